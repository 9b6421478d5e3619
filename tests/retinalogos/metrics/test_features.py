from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_retfound import PATCH, SIDE, WIDTH, mae_features, save_tiny_retfound
from torch.nn import functional as F
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
)

from retinalogos.errors import UsageError
from retinalogos.metrics import features, inception
from retinalogos.metrics.realism import frechet_distance


def images(seed: int, n: int = 5, size: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_random_conv_is_seeded_and_blind_to_order_and_batching(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = features.RandomConv(seed=3), features.RandomConv(seed=4)
    batch = images(0, 10)
    whole = one.features(batch)
    assert whole.shape == (10, 8 * 32)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, features.RandomConv(seed=3).features(batch))
    assert not np.allclose(whole, other.features(batch))
    monkeypatch.setattr(features, "BATCH", 3)
    np.testing.assert_allclose(one.features(batch[::-1]), whole[::-1], rtol=1e-4, atol=1e-5)


def test_random_conv_sees_blur_and_colour() -> None:
    space = features.RandomConv(seed=0)
    sharp = images(0, 40)
    blurred = (sharp.reshape(40, 8, 4, 8, 4, 3).mean((2, 4)).repeat(4, 1).repeat(4, 2)).astype(np.uint8)
    green = sharp * np.array([0, 1, 0], np.uint8)
    floor = frechet_distance(space.features(sharp), space.features(images(1, 40)))
    assert frechet_distance(space.features(sharp), space.features(blurred)) > 10 * floor
    assert frechet_distance(space.features(sharp), space.features(green)) > 10 * floor


def save_dinov2(folder: Path) -> None:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)


def save_resnet(folder: Path) -> None:
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def save_clip(folder: Path) -> None:
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = tower | {"image_size": 28, "patch_size": 14}
    CLIPModel(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_dinov2, save_resnet, save_clip])
def test_any_vision_backbone_loads_from_a_folder(tmp_path: Path, save) -> None:
    folder = tmp_path / "tiny"
    save(folder)
    space = features.feature_space(str(folder), seed=0)
    assert space.name == "tiny"
    vectors = space.features(images(0, 3, 40))
    assert vectors.shape == (3, 16)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(space.features(images(0, 3, 40)), vectors, rtol=1e-5, atol=1e-6)
    assert not np.allclose(space.features(images(1, 3, 40)), vectors, atol=1e-4)


def test_places_of_a_backbone_are_its_patches_without_the_tokens_before_them(tmp_path: Path) -> None:
    save_dinov2(tmp_path / "vit")
    save_resnet(tmp_path / "maps")
    for name, channels, side in (("vit", 16, 2), ("maps", 16, 4)):
        space = features.feature_space(str(tmp_path / name), seed=0)
        assert isinstance(space, features.Local)
        places = space.patches(images(0, 3, 40))
        assert places.shape == (3, channels, side, side)
        pixels = space._processor(images=list(images(0, 3, 40)), return_tensors="pt")["pixel_values"]
        hidden = space._model(pixels).last_hidden_state.detach().numpy()
        corner = hidden[:, 2] if name == "vit" else hidden[:, :, 0, 1]
        np.testing.assert_allclose(places[:, :, 0, 1], corner, atol=1e-5)
    assert not isinstance(features.RandomConv(seed=0), features.Local)


def test_cohort_needs_a_classifier() -> None:
    with pytest.raises(UsageError, match="trained on the real training images"):
        features.feature_space("cohort", seed=0)

    class Network:
        def features(self, batch: np.ndarray) -> np.ndarray:
            return batch.reshape(len(batch), -1)[:, :4].astype(float)

    space = features.feature_space("cohort", seed=0, network=Network())
    assert space.features(images(0)).shape == (5, 4)


def test_an_unknown_name_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="feature space 'no-such-model'") as caught:
        features.feature_space("no-such-model", seed=0)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the layout of torch-fidelity's file."""
    torch.manual_seed(0)
    network = inception.InceptionV3()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_loads_from_its_file_and_names_classes(inception_file: Path) -> None:
    space = features.feature_space(f"inception:{inception_file}", seed=0)
    assert space.name == "inception"
    vectors = space.features(images(0, 2, 40))
    assert vectors.shape == (2, 2048)
    assert vectors.std() > 0
    assert isinstance(space, features.Classifying)
    shares = space.probabilities(vectors)
    assert shares.shape == (2, 1008)
    np.testing.assert_allclose(shares.sum(1), 1)
    weights = torch.load(inception_file)
    # Of the published file: 94 convolutions with five arrays of batch normalisation each, and the classes.
    assert len(weights) == 94 * 6 + 2
    assert weights["Mixed_6c.branch7x7dbl_5.conv.weight"].shape == (192, 160, 1, 7)
    assert weights["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)


def test_inception_equals_torch_fidelity(inception_file: Path) -> None:
    module = "torch_fidelity.feature_extractor_inceptionv3"
    fidelity = pytest.importorskip(module, exc_type=ImportError, reason="torch-fidelity needs torchvision")
    theirs = fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    batch = images(0, 2, 64)
    expected = theirs.eval()(torch.from_numpy(batch).permute(0, 3, 1, 2))[0].numpy()
    ours = features.feature_space(f"inception:{inception_file}", seed=0).features(batch)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_resize_of_inception_begins_at_the_first_pixel() -> None:
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)
    # Half a pixel apart, and beyond the last pixel its own value.
    assert inception.resize_from_first_pixel(ramp, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]


def test_other_weights_for_inception_are_refused(tmp_path: Path) -> None:
    torch.save({"layer": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="other weights than torch-fidelity's"):
        features.feature_space(f"inception:{tmp_path / 'other.pth'}", seed=0)
    with pytest.raises(UsageError, match="name the file, inception:FILE"):
        features.feature_space(f"inception:{tmp_path / 'none.pth'}", seed=0)


def test_retfound_reads_the_layout_of_mae(tmp_path: Path) -> None:
    batch = images(0, 3, SIDE)
    weights = save_tiny_retfound(tmp_path / "mae.pth")
    space = features.feature_space(f"retfound:{tmp_path / 'mae.pth'}", seed=0)
    assert space.name == "retfound"
    expected = mae_features(weights, torch.from_numpy(batch).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(space.features(batch), expected.numpy(), rtol=1e-3, atol=1e-4)
    assert isinstance(space, features.Local)
    places = space.patches(batch)
    assert places.shape == (3, WIDTH, SIDE // PATCH, SIDE // PATCH)
    mean = F.layer_norm(torch.from_numpy(places.mean((2, 3))), (WIDTH,), eps=1e-6)
    np.testing.assert_allclose(mean.numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)
    torch.save({"model": {"layer": torch.zeros(2)}}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match="no checkpoint of a ViT in the layout of MAE"):
        features.feature_space(f"retfound:{tmp_path / 'other.pth'}", seed=0)
    with pytest.raises(UsageError, match="name the file, retfound:FILE"):
        features.feature_space("retfound", seed=0)
