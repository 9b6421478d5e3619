"""CLIP-type models by name: tiny ones of the published classes and layouts, saved to disk and loaded as any other."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clip import WORDS, save_tiny_clip
from tiny_retinal_clip import SIDE, Published, save_checkpoint, save_text_model
from transformers import BertConfig, BertModel, CLIPModel

from retinalogos.captions.clip import ClipModel, load_clip_model
from retinalogos.captions.configuration import ClipConfig
from retinalogos.captions.retinal_clip import _residual_network
from retinalogos.errors import UsageError
from retinalogos.metrics.features import feature_space

CPU = torch.device("cpu")
PICTURES = list(np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE, 3), np.uint8))
TEXTS = ["left eye", "the right eye of the left", "." * 90]


def load(loader: str, model: object, text_model: object = "") -> ClipModel:
    return load_clip_model(ClipConfig(loader=loader, model=str(model), text_model=str(text_model)), CPU)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> Path:
    return save_text_model(tmp_path_factory.mktemp("bert") / "clinical")


def test_its_vectors_are_those_of_the_model_itself(tiny_clip):
    model = load("transformers", tiny_clip)
    texts = ["left eye", "right", "a caption longer than the model reads"]
    images, words = model.images(PICTURES), model.texts(texts)
    assert images.shape == words.shape == (3, 8)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    inputs = model.processor(
        images=PICTURES, text=texts, padding=True, truncation=True, max_length=WORDS, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = CLIPModel.from_pretrained(tiny_clip)(**inputs).logits_per_image
    torch.testing.assert_close(model.scale * images @ words.T, expected, rtol=1e-4, atol=1e-4)


# The published file of FLAIR is for 512 pixels: a test below.
@pytest.mark.parametrize(
    ("loader", "layout"), [("flair", "folder"), ("retizero", "folder"), ("retizero", "weights.pth")]
)
def test_models_of_the_retina_answer_as_published(loader, layout, text_model, tmp_path):
    published = Published(text_model, retizero=loader == "retizero")
    model = load(loader, save_checkpoint(published, tmp_path / layout), text_model)
    torch.testing.assert_close(model.images(PICTURES), torch.stack([published.image(one) for one in PICTURES]))
    # Together, so that the shorter are padded; the longest is cut.
    torch.testing.assert_close(model.texts(TEXTS), torch.stack([published.text(one) for one in TEXTS]))
    assert model.scale == pytest.approx(np.exp(2.5))


def test_flair_scales_pictures_to_512_pixels_and_fills_up_below(text_model, tmp_path):
    published = Published(text_model, retizero=False)
    model = load("flair", save_checkpoint(published, tmp_path / "flair_resnet.pth"), text_model)
    wide = np.zeros((256, 512, 3), np.uint8)
    wide[:, :, 0] = np.arange(512) // 2
    filled = np.concatenate([wide, np.zeros_like(wide)])
    torch.testing.assert_close(model.images([wide])[0], published.image(filled))
    small = wide[:128, :128]
    assert model.images([small]).shape == (1, 6)


def test_the_scale_is_bounded_as_where_it_was_trained(text_model, tmp_path):
    published = Published(text_model, retizero=False)
    torch.nn.init.constant_(published.logit_scale, 9.0)
    assert load("flair", save_checkpoint(published, tmp_path / "f"), text_model).scale == pytest.approx(100, rel=1e-3)


def test_a_checkpoint_of_another_model_is_refused(text_model, tmp_path, tiny_clip):
    flair = save_checkpoint(Published(text_model, retizero=False), tmp_path / "flair")
    with pytest.raises(UsageError, match=r"no checkpoint of the loader retizero: it has no .*lora_vit"):
        load("retizero", flair, text_model)
    with pytest.raises(UsageError, match="of the loader flair: it has no vision_model"):
        load("flair", tiny_clip, text_model)
    wider = BertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, vocab_size=13)
    (tmp_path / "wide").mkdir()
    for file in text_model.glob("*token*"):
        (tmp_path / "wide" / file.name).write_bytes(file.read_bytes())
    BertModel(wider).save_pretrained(tmp_path / "wide")
    with pytest.raises(UsageError, match=r"with text_model .*size mismatch"):
        load("flair", flair, tmp_path / "wide")
    with pytest.raises(UsageError, match=r"purify\.clip\.text_model 'nowhere/at-all'"):
        load("flair", flair, "nowhere/at-all")
    with pytest.raises(UsageError, match=r"purify\.clip\.model 'nowhere/at-all'"):
        load("retizero", "nowhere/at-all", text_model)


def test_a_name_that_is_no_clip_model_is_refused(tmp_path, tiny_clip):
    with pytest.raises(UsageError, match=r"clip\.model 'nowhere/at-all'"):
        load("transformers", "nowhere/at-all")
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=60)
    BertModel(config).save_pretrained(tmp_path)
    load("transformers", tiny_clip).processor.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="is a BertModel"):
        load("transformers", tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_the_residual_network_is_that_of_torchvision():
    from torchvision.models import resnet50

    theirs = resnet50(weights=None)
    theirs.fc = torch.nn.Identity()
    for norm in (part for part in theirs.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    pixels = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        ours = _residual_network(theirs.state_dict()).eval()(pixel_values=pixels).pooler_output.flatten(1)
        torch.testing.assert_close(ours, theirs.eval()(pixels))


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is not None, reason="open_clip is installed")
def test_open_clip_says_what_to_install():
    with pytest.raises(UsageError, match=r"retinalogos\[open-clip\]"):
        load("open_clip", "ViT-B-32/openai")


@pytest.mark.skipif(importlib.util.find_spec("open_clip") is None, reason="open_clip is not installed")
def test_open_clip_loads_a_folder_and_answers_as_the_package(tmp_path):
    import open_clip
    from PIL import Image

    tower = {"width": 64, "layers": 1, "heads": 1}
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 64},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, **tower},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    moments = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": moments}))
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    loaded = load("open_clip", tmp_path)
    look = open_clip.image_transform(32, is_train=False, **moments)
    pixels = torch.stack([look(Image.fromarray(one)) for one in PICTURES])
    with torch.inference_mode():
        expected = model.encode_image(pixels, normalize=True)
        words = model.encode_text(open_clip.SimpleTokenizer(context_length=16)(TEXTS), normalize=True)
    torch.testing.assert_close(loaded.images(PICTURES), expected)
    torch.testing.assert_close(loaded.texts(TEXTS), words)
    with pytest.raises(UsageError, match=r"clip\.model 'nowhere/at-all'"):
        load("open_clip", "nowhere/at-all")


def test_the_image_tower_of_flair_is_a_feature_space(text_model, tmp_path):
    file = save_checkpoint(Published(text_model, retizero=False), tmp_path / "flair")
    space = feature_space(f"flair:{file}", seed=0)
    assert space.name == "flair"
    np.testing.assert_allclose(space.features(np.stack(PICTURES)), load("flair", file, text_model).images(PICTURES))
    with pytest.raises(UsageError, match="feature space 'flair:nowhere/at-all': 'nowhere/at-all': no checkpoint"):
        feature_space("flair:nowhere/at-all", seed=0)
