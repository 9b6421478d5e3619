import tracemalloc
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from retinalogos.errors import DataError, UsageError
from retinalogos.metrics import bands, diversity, realism

seeds = st.integers(0, 2**32 - 1)


def features(seed: int, n: int, d: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)


def by_matrix_root(a: realism.Moments, b: realism.Moments) -> float:
    root = sqrtm(a.covariance @ b.covariance)
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root).real)


@settings(max_examples=20)
@given(seeds, st.integers(2, 24), st.integers(30, 80))
def test_frechet_equals_matrix_root_and_torchmetrics(seed: int, d: int, n: int) -> None:
    a, b = (realism.Moments.of(features(seed + i, n, d, 0.3 * i)) for i in range(2))
    ours = realism.frechet_from_moments(a, b)
    theirs = _compute_fid(*(torch.from_numpy(x) for x in (a.mean, a.covariance, b.mean, b.covariance)))
    assert ours == pytest.approx(by_matrix_root(a, b), rel=1e-7, abs=1e-9)
    assert ours == pytest.approx(float(theirs), rel=1e-7, abs=1e-9)


def test_frechet_of_known_normals() -> None:
    # Diagonal covariances commute: d² = |Δμ|² + Σ (σ_a − σ_b)².
    d = 5
    sd_a, sd_b = np.arange(1, d + 1.0), np.full(d, 2.0)
    a = realism.Moments(100, np.zeros(d), np.diag(sd_a**2))
    b = realism.Moments(100, np.full(d, 3.0), np.diag(sd_b**2))
    assert realism.frechet_from_moments(a, b) == pytest.approx(9 * d + ((sd_a - sd_b) ** 2).sum(), rel=1e-12)


def test_frechet_with_fewer_images_than_features_equals_the_nuclear_norm() -> None:
    # For centred features A, B (rows scaled by 1/√(n−1)) the overlap is the nuclear norm of A Bᵀ.
    x, y = features(1, 20, 64), features(2, 25, 64, 0.5)
    a, b = ((z - z.mean(0)) / np.sqrt(len(z) - 1) for z in (x, y))
    shift = x.mean(0) - y.mean(0)
    expected = shift @ shift + (a**2).sum() + (b**2).sum() - 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    assert realism.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=20)
@given(seeds)
def test_frechet_invariances(seed: int) -> None:
    x, y = features(seed, 40, 6), features(seed + 1, 50, 6, 0.4)
    distance = realism.frechet_distance(x, y)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert distance >= 0
    assert realism.frechet_distance(x, x) == pytest.approx(0, abs=1e-8)
    assert realism.frechet_distance(y, x) == pytest.approx(distance, rel=1e-7)
    assert realism.frechet_distance(x @ rotation + 5, y @ rotation + 5) == pytest.approx(distance, rel=1e-6)
    assert realism.frechet_distance(3 * x, 3 * y) == pytest.approx(9 * distance, rel=1e-7)
    assert realism.frechet_distance(rng.permutation(x), y) == pytest.approx(distance, rel=1e-7)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=seeds, n=st.integers(2, 40), band=st.integers(1, 50))
def test_moments_read_in_bands_equal_those_of_everything(
    seed: int, n: int, band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = features(seed, n, 7, 100.0)
    monkeypatch.setattr(bands, "ROWS", band)
    moments = realism.Moments.of(whole)
    assert moments.n == len(whole)
    np.testing.assert_allclose(moments.mean, whole.mean(0), rtol=1e-10)
    np.testing.assert_allclose(moments.covariance, np.cov(whole.T), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("d", [4, 64])
def test_distances_do_not_depend_on_the_bands(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(1, 40, d), features(2, 30, d, 0.3)
    eyes = np.arange(40) // 2, np.arange(30) // 3
    estimates = {
        "frechet": realism.frechet_with_interval,
        "kernel": realism.kernel_with_interval,
        "gaussian": realism.gaussian_with_interval,
    }
    whole = {name: of(x, y, 20, 0, patients=eyes) for name, of in estimates.items()}
    monkeypatch.setattr(bands, "ROWS", 7)
    for name, of in estimates.items():
        again = of(x, y, 20, 0, patients=eyes)
        assert astuple(again) == pytest.approx(astuple(whole[name]), rel=1e-6), name


def test_fellow_eyes_widen_the_interval_and_each_patient_alone_does_not() -> None:
    rng = np.random.default_rng(0)
    # Two eyes of one person are nearly one picture: eighty images say as much as forty.
    x, y = (np.repeat(rng.normal(shift, 1, (40, 5)), 2, 0) + rng.normal(0, 0.01, (80, 5)) for shift in (0, 0.5))
    people = np.repeat(np.arange(40), 2)
    for of in (realism.frechet_with_interval, realism.kernel_with_interval):
        by_image, alone, by_patient = (
            of(x, y, 300, 0, patients=who) for who in ((None, None), (np.arange(80),) * 2, (people, people))
        )
        widths = [one.high - one.low for one in (by_image, alone, by_patient)]
        assert by_image.value == alone.value == by_patient.value
        assert widths[1] == pytest.approx(widths[0], rel=0.25)
        assert widths[2] > 1.2 * widths[0]


def test_copies_of_a_patient_do_not_shift_the_resamples_of_the_kernel_distance() -> None:
    rng = np.random.default_rng(1)
    x, y = (np.repeat(rng.normal(size=(30, 5)), 2, 0) for _ in range(2))
    people = np.repeat(np.arange(30), 2)
    found = realism.kernel_with_interval(x, y, 2000, 0, patients=(people, people))
    # The mean of resamples lies at the estimate, well within the interval.
    assert (found.low + found.high) / 2 == pytest.approx(found.value, abs=0.15 * (found.high - found.low))


def test_memory_does_not_grow_with_the_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "ROWS", 128)
    d, peaks = 256, {}
    for n in (600, 1_800):
        x, y = (bands.on_disk((n, d), np.float32) for _ in range(2))
        for at, side in enumerate((x, y)):
            for start in range(0, n, 300):
                side[start : start + 300] = np.random.default_rng([at, start]).normal(size=(300, d))
        people = np.arange(n) // 2
        tracemalloc.start()
        realism.frechet_with_interval(x, y, 2, 0, patients=(people, people))
        realism.kernel_with_interval(x, y, 20, 0, patients=(people, people))
        diversity.manifold(x, y, 5, resamples=2, patients=(people, people))
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # Of an image of each side some numbers (row, patient, radius), and nothing of the 2,048 bytes of their features.
    assert (peaks[1_800] - peaks[600]) / 1_200 < 512


def test_a_disk_without_room_is_said_before_anything_is_written() -> None:
    array = bands.on_disk((3, 2), np.float32)
    array[1] = 5
    assert array.tolist() == [[0, 0], [5, 5], [0, 0]]
    with pytest.raises(UsageError, match=r"GB do not fit into .*: name a folder with more room in TMPDIR"):
        bands.on_disk((2**40, 2**12), np.float64)


def test_of_few_images_of_fewer_patients_there_are_intervals_all_the_same() -> None:
    x, y = features(1, 5, 3), features(2, 3, 3)
    people = np.array([0, 0, 1, 1, 2]), np.array([0, 0, 1])
    for found in (
        realism.frechet_with_interval(x, y, 50, 0, patients=people),
        realism.frechet_at_infinity(x, y, 3, 50, 0, patients=people).infinity,
        realism.kernel_with_interval(x, y, 50, 0, patients=people),
    ):
        assert found.low < found.high


def test_moments_refuse_what_has_none() -> None:
    with pytest.raises(DataError, match="two rows"):
        realism.Moments.of(np.zeros((1, 3)))
    with pytest.raises(DataError, match="not finite"):
        realism.Moments.of(np.array([[1.0, np.nan], [0, 1]]))


def test_frechet_interval_holds_the_estimate_and_shrinks_with_n() -> None:
    widths = []
    for n in (50, 800):
        estimate = realism.frechet_with_interval(features(1, n, 4), features(2, n, 4, 1.0), resamples=100, seed=0)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == n
        widths.append(estimate.high - estimate.low)
    assert widths[1] < widths[0] / 2


@settings(max_examples=15)
@given(seeds, st.integers(2, 40))
def test_kernel_distance_equals_torchmetrics(seed: int, n: int) -> None:
    x, y = features(seed, n, 8), features(seed + 1, n, 8, 0.2)  # theirs takes equal sizes only
    theirs = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert realism.kernel_distance(x, y) == pytest.approx(float(theirs), rel=1e-8, abs=1e-10)


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """CMMD without its diagonal terms, pair by pair."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / 200))

    inside = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    return 1000 * (sum(inside) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_gaussian_distance_is_that_of_cmmd_at_any_band(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(0, 12, 5), features(1, 9, 5, 0.7)
    expected = by_hand(x, y)
    estimate = realism.gaussian_with_interval(x, y, resamples=200, seed=0)
    assert estimate.value == pytest.approx(expected, rel=1e-9)
    assert estimate.low < estimate.value < estimate.high
    monkeypatch.setattr(bands, "ROWS", 5)
    again = realism.gaussian_with_interval(x, y, resamples=200, seed=0)
    assert [again.value, again.low, again.high] == pytest.approx([estimate.value, estimate.low, estimate.high])
    assert realism.gaussian_with_interval(3 * x, y, 0, 0).value == pytest.approx(expected)  # length does not count


def test_the_distance_at_no_end_of_images_takes_the_bias_of_few_away() -> None:
    # Both of one distribution: the true distance is 0, that of a finite sample is not.
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(20_000, 8))
    few = rng.normal(size=(160, 8))
    found = realism.frechet_at_infinity(reference, few, points=6, resamples=10, seed=0)
    assert (found.sizes[0], found.sizes[-1]) == (80, 160)
    assert found.values[0] > found.values[-1] == pytest.approx(realism.frechet_distance(reference, few))
    assert abs(found.infinity.value) < found.values[-1] / 2
    assert found.infinity.low < found.infinity.value < found.infinity.high
    with pytest.raises(UsageError, match="has 2 images"):
        realism.frechet_at_infinity(reference, few[:2], points=6, resamples=0, seed=0)


def test_kernel_distance_is_unbiased() -> None:
    # Of one distribution the mean over many small samples is zero within its own standard error;
    # the biased estimate (with the diagonal) would be off by about (k(x,x) − k(x,y)) / n a side.
    rng = np.random.default_rng(0)
    values = [realism.kernel_distance(rng.normal(size=(6, 5)), rng.normal(size=(9, 5))) for _ in range(3000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert 4 * error < 0.5


def test_kernel_subsets() -> None:
    x, y = features(1, 60, 8), features(2, 70, 8, 1.0)
    whole = realism.kernel_distance(x, y)
    mean, sd = realism.kernel_distance_subsets(x, y, subsets=200, size=30, seed=0)
    assert sd > 0
    assert mean == pytest.approx(whole, abs=4 * sd / np.sqrt(200) + 0.05 * whole)
    assert realism.kernel_distance_subsets(x, y, 5, 30, seed=3) == realism.kernel_distance_subsets(x, y, 5, 30, seed=3)
    with pytest.raises(UsageError, match="subsets of 61"):
        realism.kernel_distance_subsets(x, y, subsets=2, size=61, seed=0)


def test_kernel_interval_of_one_distribution_holds_zero_and_of_two_does_not() -> None:
    x, same = np.split(features(1, 220, 6), [100])
    other = same + 1.0
    close = realism.kernel_with_interval(x, same, resamples=300, seed=0)
    far = realism.kernel_with_interval(x, other, resamples=300, seed=0)
    assert close.low < 0 < close.high
    assert 0 < far.low < far.value < far.high
    assert far.value == pytest.approx(realism.kernel_distance(x, other), rel=1e-10)


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcd"), max_size=40), st.lists(st.sampled_from("bcde"), max_size=40), seeds)
def test_matched_draw_has_equal_size_and_mix(a: list[str], b: list[str], seed: int) -> None:
    first, second = realism.matched_draw(a, b, seed)
    assert len(first) == len(second) == sum(min(a.count(c), b.count(c)) for c in "abcde")
    assert sorted(a[i] for i in first) == sorted(b[i] for i in second)
    assert len(set(first)) == len(first)
    assert len(set(second)) == len(second)
