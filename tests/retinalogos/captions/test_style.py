"""Figures on texts, held against torchmetrics and against texts whose figures are known."""

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import bleu_score

from retinalogos.captions.style import (
    Experts,
    Style,
    bleu_of_each,
    content_of,
    distinct,
    read_experts,
    root,
    self_bleu,
    words_of,
)
from retinalogos.errors import UsageError

# Long enough for torchmetrics, which has no BLEU of fewer than four words, and alike enough to share all n-grams.
LINES = st.lists(st.lists(st.sampled_from(["pale", "disc"]), min_size=4, max_size=9), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(LINES)
@example([["pale", "disc", "disc", "pale"], ["pale", "disc", "disc", "pale", "disc"], ["disc", "disc", "disc", "disc"]])
def test_bleu_is_that_of_torchmetrics(texts):
    found = bleu_of_each(texts)
    for number, text in enumerate(texts):
        # torchmetrics takes the first of two references that are as close in length: the shorter here.
        others = sorted((other for place, other in enumerate(texts) if place != number), key=len)
        expected = float(bleu_score([" ".join(text)], [[" ".join(other) for other in others]], n_gram=4, smooth=True))
        if expected:  # it gives 0 where an order shares nothing, smoothed or not
            assert found[number] == pytest.approx(expected, abs=1e-5)
    assert self_bleu(texts) == pytest.approx(sum(found) / len(found))


def test_self_bleu_of_equal_different_and_short_texts():
    same = [words_of("the optic disc is pale")] * 3
    assert self_bleu(same) == pytest.approx(1)
    assert self_bleu([["a", "b", "c", "d"], ["e", "f", "g", "h"]]) == 0
    # Two words: one of two unigrams, and of bigrams none, smoothed to one half.
    assert self_bleu([["hard", "exudates"], ["soft", "exudates"]]) == pytest.approx(math.sqrt(0.5 * 0.5))
    assert math.isnan(self_bleu([["alone"], []]))


def test_distinct_counts_within_texts_and_up_to_a_number_of_words():
    texts = [["a", "b", "a"], ["b", "a", "b", "a"]]
    assert distinct(texts, 1) == 2 / 7
    assert distinct(texts, 2) == 2 / 5  # "a b" and "b a"; "a b" over the end of the first text is none
    assert distinct(texts, 2, words=3) == 1
    assert math.isnan(distinct([["a"]], 2))


def test_spelling_and_number_do_not_make_another_word():
    for one, other in (
        ("haemorrhages", "hemorrhage"),
        ("greyish", "grayish"),
        ("opacities", "opacity"),
        ("disk", "disc"),
    ):
        assert root(one) == root(other)
    assert root("glass") == "glass"
    assert content_of([words_of("The pale discs of the disk.")]) == {"pale": 1, "disc": 2}


def test_lengths_kinds_and_order_of_topics():
    style = Style(
        [
            "Fundus photograph of good quality. The disc is pale. A few small red haemorrhages near the macula.",
            "Haemorrhages near the disc.",
        ]
    )
    assert style.lengths == [4, 17]
    assert (style.length(0.1), style.length(0.9), style.mean_length) == (4, 17, 10.5)
    assert style.mean_sentences == 2
    assert style.per_hundred("colour") == pytest.approx(100 * 2 / 21)
    # Of five topics ten pairs, of which the haemorrhages before the macula are out of order; and the second's one pair.
    assert style.order == (9, 11)


def test_texts_of_nothing_have_no_figures():
    style = Style([])
    assert math.isnan(style.mean_length)
    assert math.isnan(style.per_hundred("size"))
    assert (style.vocabulary, style.length(0.5), style.order) == (0, 0, (0, 0))


def test_experts_are_read_by_finding(tmp_path):
    definitions = {
        "hard exudates": ["small yellowish deposits", "hard exudates"],
        "hemorrhages": ["dark red lesion"],
        "non severe hemorrhages": ["few"],
        "gremlin": ["unknown"],
        "no glaucoma": ["no glaucoma"],
    }
    (tmp_path / "texts.json").write_text(json.dumps({"definitions": definitions, "abbreviations": {}}))
    experts = read_experts(tmp_path / "texts.json")
    assert experts.by_code == {"hard_exudate": ["small yellowish deposits"], "haemorrhage": ["dark red lesion"]}
    assert experts.names_read == 4
    assert len(experts.style.texts) == 6
    assert isinstance(experts, Experts)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"definitions": {}}', '{"definitions": {"a": "b"}}', '{"definitions": {"a": [1]}}']
)
def test_a_file_that_is_none_of_experts_is_refused_by_name(text, tmp_path):
    (tmp_path / "texts.json").write_text(text)
    with pytest.raises(UsageError, match=r"expert texts .*texts\.json"):
        read_experts(tmp_path / "texts.json")
