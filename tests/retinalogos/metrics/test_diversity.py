import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.inception import InceptionScore

from retinalogos.errors import UsageError
from retinalogos.metrics import bands, diversity, neighbours
from retinalogos.metrics.intervals import Estimate


def noise(seed: int, n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_ms_ssim_of_an_image_with_itself_is_one_and_with_noise_is_low() -> None:
    images = noise(0, 4)
    np.testing.assert_allclose(diversity.ms_ssim(images, images), 1, atol=1e-4)
    assert diversity.ms_ssim(images, noise(1, 4)).max() < 0.3


def test_ms_ssim_is_symmetric() -> None:
    a, b = noise(0, 3), noise(1, 3) // 2 + noise(0, 3) // 2
    np.testing.assert_allclose(diversity.ms_ssim(a, b), diversity.ms_ssim(b, a), atol=1e-5)


@pytest.mark.parametrize(("size", "scales"), [(11, 1), (64, 3), (96, 3), (128, 4), (175, 4), (176, 5), (512, 5)])
def test_scales_fit_the_image(size: int, scales: int) -> None:
    weights = diversity.scale_weights(size)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1)
    images = noise(0, 1, size)
    assert diversity.ms_ssim(images, images) == pytest.approx(1, abs=1e-4)


@given(st.integers(11, 200))
@settings(max_examples=20)
def test_an_image_of_any_size_is_like_itself(size: int) -> None:
    images = noise(1, 1, size)
    assert diversity.ms_ssim(images, images) == pytest.approx(1, abs=1e-4)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(UsageError, match="MS-SSIM needs images of more than 10 pixels"):
        diversity.scale_weights(10)


@given(st.integers(0, 50), st.integers(0, 40), st.integers(0, 99))
def test_pairs_share_no_image(n: int, pairs: int, seed: int) -> None:
    chosen = diversity.disjoint_pairs(n, pairs, seed)
    assert chosen.shape == (min(pairs, n // 2), 2)
    assert len(np.unique(chosen)) == chosen.size


def test_pairs_share_no_patient() -> None:
    people = np.array(list("aabbccddeeffgh"))
    chosen = people[diversity.disjoint_pairs(14, 10, 0, people)]
    assert chosen.shape == (4, 2)
    assert len(np.unique(chosen)) == 8


def test_a_collapsed_set_is_seen() -> None:
    varied = noise(0, 12, 32)
    collapsed = np.repeat(varied[:1], 12, axis=0)
    one, two = diversity.disjoint_pairs(12, pairs=6, seed=0).T
    high, low = (diversity.mean_similarity(diversity.ms_ssim(s[one], s[two]), 20, 0) for s in (collapsed, varied))
    assert high.value == pytest.approx(1, abs=1e-4)
    assert low.high < 0.5
    assert low.n == 6


def test_grey_is_luma() -> None:
    assert diversity.grey(np.full((1, 2, 2, 3), 100, np.uint8)) == pytest.approx(100)
    assert diversity.grey(np.array([0, 255, 0], np.uint8)) == pytest.approx(149.685)


def test_pairwise_distance() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    expected = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(neighbours.pairwise_distance(a, b), expected, atol=1e-12)


def test_manifold_of_one_distribution_of_a_far_one_and_of_a_collapsed_one() -> None:
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    alike = diversity.manifold(real, same, k=5)
    assert alike.precision.value > 0.9
    assert alike.recall.value > 0.9
    assert alike.density.value == pytest.approx(1, abs=0.15)
    assert alike.coverage.value > 0.9
    far = diversity.manifold(real, same + 100, k=5)
    assert [getattr(far, name).value for name in ("precision", "recall", "density", "coverage")] == [0, 0, 0, 0]
    collapsed = diversity.manifold(real, real[:1] + 0.01 * same, k=5)
    assert collapsed.precision.value > 0.9
    assert collapsed.recall.value < 0.1
    assert collapsed.coverage.value < 0.3


def test_manifold_by_hand() -> None:
    # Balls to the nearest neighbour: real {0, 1, 10} have radii 1, 1, 9; synthetic {0.5, 30} have 29.5.
    measures = diversity.manifold(np.array([[0.0], [1.0], [10.0]]), np.array([[0.5], [30.0]]), k=1)
    assert measures.precision.value == 0.5  # 0.5 lies in the balls of 0 and 1; 30 in none
    assert measures.density.value == 1.0  # 2 balls around 0.5 (10 − 0.5 > 9), none around 30
    assert measures.recall.value == 1.0
    assert measures.coverage.value == pytest.approx(2 / 3)


def test_manifold_does_not_depend_on_the_band_and_has_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(50, 3)), rng.normal(0.5, 1, size=(40, 3))
    whole = diversity.manifold(real, made, k=3, resamples=100, seed=0)
    monkeypatch.setattr(bands, "ROWS", 7)
    assert diversity.manifold(real, made, k=3, resamples=100, seed=0) == whole
    assert whole.precision.low < whole.precision.value < whole.precision.high
    assert (whole.precision.n, whole.coverage.n) == (40, 50)


def score_of(probabilities: np.ndarray, resamples: int = 0) -> Estimate:
    return diversity.inception_score(probabilities, lambda features: features, resamples, seed=0)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 9))
def test_inception_score_equals_torchmetrics(seed: int, n: int, classes: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (n, classes)))
    metric = InceptionScore(feature=torch.nn.Identity(), splits=1)
    metric.features = [logits]  # as its update would keep them
    assert score_of(logits.softmax(1).numpy()).value == pytest.approx(float(metric.compute()[0]), rel=1e-9)


def test_inception_score_of_sure_and_even_classes_is_their_number_and_of_one_class_is_one() -> None:
    assert score_of(np.eye(5)[np.arange(50) % 5]).value == pytest.approx(5)
    assert score_of(np.eye(5)[np.zeros(50, int)]).value == pytest.approx(1)


def test_the_inception_score_has_an_interval_that_no_band_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(6, 0.2), 60)
    whole = score_of(probabilities, 200)
    assert whole.low < whole.value < whole.high
    monkeypatch.setattr(bands, "ROWS", 7)
    again = score_of(probabilities, 200)
    assert (again.value, again.low, again.high) == pytest.approx((whole.value, whole.low, whole.high))


def test_manifold_refuses_too_many_neighbours() -> None:
    with pytest.raises(UsageError, match="k = 5"):
        diversity.manifold(np.zeros((5, 2)), np.zeros((9, 2)), k=5)
