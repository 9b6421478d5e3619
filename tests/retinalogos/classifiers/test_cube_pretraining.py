"""Pre-training on cubes and the probe after it: known answers on cubes of a few pixels."""

import numpy as np
import pytest
import torch
from short_training import TRAINING

from retinalogos.classifiers.cube_pretraining import contrasts, gain, local_contrasts, mean_auc, scores
from retinalogos.masked_autoencoder import MaskedAutoencoderConfig, pretrained

CONFIG = MaskedAutoencoderConfig(patch=4, width=16, layers=1, heads=2, mask=0.5)


@pytest.fixture(scope="module")
def cubes() -> np.ndarray:
    return np.random.default_rng(0).integers(1000, 9000, (32, 3, 8, 8)).astype(np.uint16)


def test_a_plain_difference_is_told_and_none_is_not(cubes, tmp_path) -> None:
    labels = np.arange(32) % 2 == 1
    shown = cubes.copy()
    shown[labels, 0] = shown[labels, 0] // 3
    model = pretrained(shown, shown, CONFIG, TRAINING, 0, tmp_path, "pictures")
    for pictures, told in ((shown, True), (cubes, False)):
        features = model.features(pictures)
        area = mean_auc(labels[16:], scores(features[:16], labels[:16], features[16:])[:, None])
        assert area == 1 if told else area < 0.95


def test_contrasts_tell_how_bands_vary_together_and_not_how_bright_they_are() -> None:
    rng = np.random.default_rng(0)
    pattern, other = np.exp(0.1 * rng.standard_normal((2, 4, 32, 32)))
    cubes = np.stack([pattern, pattern**2, other], 1) * 8000
    local = local_contrasts(cubes.astype(np.uint16))
    assert np.allclose(local_contrasts((0.5 * cubes).astype(np.uint16)), local, atol=0.01)
    found = contrasts(local)
    deviation, correlation = found[:, :3], found[:, 3:]
    assert np.allclose(deviation[:, 1] - deviation[:, 0], np.log(2), atol=0.02)
    assert np.allclose(correlation[:, 0], 1, atol=0.01), "the first two bands"
    assert np.abs(correlation[:, 1:]).max() < 0.2


def test_a_change_of_contrast_is_told_wherever_it_lies() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2 == 1
    cubes = np.full((40, 2, 32, 32), 8000.0)
    for cube, label in zip(cubes, labels, strict=True):
        row = rng.integers(4, 28)
        cube[:, row : row + 2] *= np.array([0.7 if label else 0.9, 0.8])[:, None, None]
    cubes *= 1 + 0.01 * rng.standard_normal(cubes.shape)
    features = contrasts(local_contrasts(cubes.astype(np.uint16)))
    assert mean_auc(labels[20:], scores(features[:20], labels[:20], features[20:])[:, None]) == 1


def test_features_depend_on_the_cube_and_the_seed_alone(cubes, tmp_path) -> None:
    one, again, other = (pretrained(cubes, None, CONFIG, TRAINING, seed, tmp_path, "pictures") for seed in (0, 0, 1))
    assert np.array_equal(one.features(cubes[:4]), again.features(cubes[:4]))
    assert np.allclose(one.features(cubes)[2], one.features(cubes[2:3])[0], atol=1e-4)
    assert not np.allclose(one.features(cubes[:4]), other.features(cubes[:4]))


def test_signed_pictures_are_shown_as_they_are(cubes, tmp_path) -> None:
    local = local_contrasts(cubes)
    assert local.min() < 0 < local.max()
    seen = pretrained(local, None, CONFIG, TRAINING, 0, tmp_path, "pictures").scaled(local)
    assert torch.allclose(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(seen.std((0, 2, 3)), torch.ones(3), atol=1e-2)


def test_nothing_is_told_of_what_lies_outside_the_field() -> None:
    cubes = np.random.default_rng(0).integers(8000, 9000, (2, 3, 32, 32)).astype(np.uint16)
    cubes[..., :10] = 0
    local = local_contrasts(cubes)
    assert not local[..., :11].any(), "outside, and the edge"
    assert (local[..., 11:] != 0).mean() > 0.99
    assert np.abs(local).max() < 0.2, "the dark beside the field is no surrounding"


def test_a_gain_is_the_difference_of_areas_on_the_same_cubes() -> None:
    labels = np.array([False, True] * 20)
    perfect, blind = labels[:, None] * np.ones(3), np.zeros((40, 3))
    found = gain(labels, perfect, blind, resamples=20, seed=0)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert gain(labels, blind, blind, resamples=20, seed=0).value == 0
    assert np.isnan(mean_auc(np.ones(3, bool), np.zeros((3, 1))))


def test_hidden_patches_are_told_by_where_they_are(tmp_path) -> None:
    """Every picture is the same, so a network that knows places tells all of it, and one that does not its mean."""
    values = np.arange(4, dtype=np.uint16).repeat(16).reshape(1, 1, 2, 2, 4, 4).transpose(0, 1, 2, 4, 3, 5)
    pictures = np.broadcast_to(1000 + 3000 * values.reshape(1, 1, 8, 8), (8, 1, 8, 8)).copy()
    training = TRAINING.model_copy(update={"steps": 300, "learning_rate": 0.01, "batch_size": 8})
    model = pretrained(pictures, pictures, CONFIG, training, 0, tmp_path, "pictures")
    with torch.no_grad():
        loss = model.network(model.scaled(pictures), noise=torch.rand(8, 4)).loss
    assert loss < 0.1
