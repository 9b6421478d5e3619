from pathlib import Path

import numpy as np
import pytest
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

from retinalogos.errors import UsageError
from retinalogos.metrics import features
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


@pytest.mark.parametrize("save", [save_dinov2, save_resnet])
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
