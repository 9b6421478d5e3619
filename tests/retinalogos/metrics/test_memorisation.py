import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.errors import DataError
from retinalogos.metrics import bands, memorisation

SIDE = 24


def pictures(seed: int, n: int, size: int = 64) -> np.ndarray:
    """Smooth random pictures: blurred noise, each its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (n, 8, 8, 3)).astype(np.float32)
    return (
        np.stack([cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse])
        .clip(0, 255)
        .astype(np.uint8)
    )


def altered_copies(images: np.ndarray, seed: int) -> np.ndarray:
    """Copies with another brightness and contrast, noise, and a shift of one pixel."""
    rng = np.random.default_rng(seed)
    changed = 0.8 * np.roll(images, 1, axis=2).astype(float) + 20 + rng.normal(0, 4, images.shape)
    return changed.clip(0, 255).astype(np.uint8)


def flagged(found: np.ndarray, unseen: np.ndarray, quantile: float) -> np.ndarray:
    calibration = memorisation.calibrate({"one": unseen}, quantile)
    return calibration.spreads({"one": found})[:, 0] > calibration.limit


def test_planted_copies_are_flagged_and_originals_are_not() -> None:
    train, test, fresh = pictures(0, 300), pictures(1, 200), pictures(2, 100)
    synthetic = np.concatenate([altered_copies(train[:20], 3), fresh])
    references = memorisation.pixel_descriptor(train, SIDE)
    unseen = memorisation.nearest(memorisation.pixel_descriptor(test, SIDE), references, 20)
    found = memorisation.nearest(memorisation.pixel_descriptor(synthetic, SIDE), references, 20)
    marks = flagged(found.relative, unseen.relative, 0.01)
    assert marks[:20].all()
    assert marks[20:].mean() <= 0.05
    np.testing.assert_array_equal(found.index[:20], np.arange(20))


def test_blurred_averages_are_near_to_all_and_copies_of_none() -> None:
    # An eye is what all eyes share and what is its own; a weak generator draws only what they share.
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(300, 40)), rng.normal(size=(200, 40))
    averages = 0.2 * rng.normal(size=(100, 40))
    unseen, found = (memorisation.nearest(x, train, 20) for x in (test, averages))
    assert flagged(found.distance, unseen.distance, 0.01).mean() > 0.9  # why distances are taken relatively
    assert flagged(found.relative, unseen.relative, 0.01).mean() <= 0.1


@pytest.mark.parametrize("quantile", [0.05, 0.2])
def test_unseen_images_are_flagged_at_the_quantile(quantile: float) -> None:
    rng = np.random.default_rng(0)
    # Two spaces of unlike scale: together they may flag no more than the quantile.
    distances = {"one": rng.gamma(4, size=1000), "other": 0.9 + 0.01 * rng.random(1000)}
    calibration = memorisation.calibrate(distances, quantile)
    assert memorisation.leave_one_out_flagged(calibration, quantile).mean() == pytest.approx(quantile, abs=0.005)
    again = {"one": rng.gamma(4, size=20000), "other": 0.9 + 0.01 * rng.random(20000)}
    most = calibration.spreads(again).max(1)
    assert (most > calibration.limit).mean() == pytest.approx(quantile, rel=0.4)
    at_limit = np.mean([again[space] < calibration.threshold(space) for space in again], axis=0) > 0
    assert at_limit.mean() == pytest.approx((most > calibration.limit).mean(), abs=1e-3)


def test_few_unseen_images_flag_one_in_their_number() -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(300):
        calibration = memorisation.calibrate({space: rng.gamma(9, size=39) for space in "abc"}, 0.001)
        most = calibration.spreads({space: rng.gamma(9, size=20) for space in "abc"}).max(1)
        alarms.append((most > calibration.limit).mean())
    # A little more, for middle and spread are those of the same images.
    assert 1 / 40 <= np.mean(alarms) < 1.5 / 40


def test_descriptor_ignores_brightness_and_contrast() -> None:
    image = pictures(0, 1)
    darker = (image * 0.5 + 30).astype(np.uint8)
    a, b = memorisation.pixel_descriptor(image, SIDE), memorisation.pixel_descriptor(darker, SIDE)
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(a - b) < 0.02


def test_descriptor_of_a_featureless_image_is_zero() -> None:
    assert not memorisation.pixel_descriptor(np.full((1, 32, 32, 3), 90, np.uint8), SIDE).any()


@settings(max_examples=25)
@given(st.integers(1, 30), st.integers(3, 30), st.integers(0, 1000))
def test_nearest_equals_brute_force_at_any_chunk(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, references = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    distance = np.linalg.norm(queries[:, None] - references[None], axis=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands, "ROWS", 7)
        found = memorisation.nearest(queries, references, 5)
        own = memorisation.nearest(references, references, 5, exclude_self=True)
    np.testing.assert_allclose(found.distance, distance.min(1), atol=1e-9)
    np.testing.assert_array_equal(found.index, distance.argmin(1))
    ordered = np.sort(distance, axis=1)[:, :5]
    np.testing.assert_allclose(found.relative, ordered[:, 0] / ordered[:, 1:].mean(1), atol=1e-6)
    among = np.linalg.norm(references[:, None] - references[None], axis=2)
    np.fill_diagonal(among, np.inf)
    np.testing.assert_allclose(own.distance, among.min(1), atol=1e-9)
    assert (own.index != np.arange(m)).all()


def test_nearest_needs_references() -> None:
    with pytest.raises(DataError, match="two training images or more, there are 1"):
        memorisation.nearest(np.zeros((2, 3)), np.zeros((1, 3)), 5)


def test_copies_are_not_authentic_and_fresh_samples_are_as_often_as_others() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(800, 2))
    own = memorisation.nearest(train, train, 2, exclude_self=True).distance
    copies = memorisation.nearest(train[:50] + 1e-6, train, 2)
    shares = [memorisation.authentic(memorisation.nearest(rng.normal(size=(800, 2)), train, 2), own) for _ in range(2)]
    assert not memorisation.authentic(copies, own).any()
    assert shares[0].mean() == pytest.approx(shares[1].mean(), abs=0.08)
    assert 0.3 < shares[0].mean() < 0.6
