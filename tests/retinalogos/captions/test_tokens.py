"""Tokens are counted as the text encoder itself counts them."""

import pytest
from transformers import AutoTokenizer

from retinalogos.captions.tokens import TokenBudget, resolve_text_encoder
from retinalogos.errors import UsageError

TEXTS = ["", "Left eye.", "Severe non-proliferative diabetic retinopathy; cup-to-disc ratio of about 0.6.", "μ, 眼 é"]


def test_minilm_counts_as_transformers_does(budget):
    own = AutoTokenizer.from_pretrained(resolve_text_encoder("minilm"))
    assert budget.count_all(TEXTS) == [len(own(text)["input_ids"]) for text in TEXTS]


def test_a_folder_counts_as_the_name_does(budget):
    folder = TokenBudget(resolve_text_encoder("minilm"), 64)
    assert folder.count_all(TEXTS) == budget.count_all(TEXTS)


def test_long_texts_are_counted_whole(budget):
    assert budget.count("retina " * 900) > 900


def test_what_fits(budget):
    assert budget.fits("Left eye.")
    assert not budget.fits("eye " * 63)
    assert budget.fits("eye " * 62)  # and two special tokens


def test_lengths_are_without_special_tokens(budget):
    assert budget.lengths(["left eye"])["left eye"] == 2


def test_unknown_tokenizer_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no tokenizer"):
        TokenBudget(str(tmp_path), 64)


def test_budget_without_room_is_refused():
    with pytest.raises(UsageError, match="special tokens take 2"):
        TokenBudget("minilm", 2)
