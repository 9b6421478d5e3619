"""A CLIP-type model by name: a tiny one with its real classes, saved to disk and loaded as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clip import WORDS, save_tiny_clip
from transformers import BertConfig, BertModel, CLIPModel

from retinalogos.captions.clip import ClipModel
from retinalogos.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_its_vectors_are_those_of_the_model_itself(tiny_clip):
    model = ClipModel.from_pretrained(str(tiny_clip), CPU)
    pictures = list(np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), np.uint8))
    texts = ["left eye", "right", "a caption longer than the model reads"]
    images, words = model.images(pictures), model.texts(texts)
    assert images.shape == words.shape == (3, 8)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    inputs = model.processor(
        images=pictures, text=texts, padding=True, truncation=True, max_length=WORDS, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(tiny_clip)(**inputs).logits_per_image
    torch.testing.assert_close(model.scale * images @ words.T, expected, rtol=1e-4, atol=1e-4)


def test_a_name_that_is_no_clip_model_is_refused(tmp_path, tiny_clip):
    with pytest.raises(UsageError, match="clip_model 'nowhere/at-all'"):
        ClipModel.from_pretrained("nowhere/at-all", CPU)
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=60)
    BertModel(config).save_pretrained(tmp_path)
    ClipModel.from_pretrained(str(tiny_clip), CPU).processor.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="is a BertModel"):
        ClipModel.from_pretrained(str(tmp_path), CPU)
