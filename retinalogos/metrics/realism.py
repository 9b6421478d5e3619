"""Realism: how far the synthetic images lie from real ones as distributions in a feature space.

Fréchet distance: Heusel et al., NeurIPS 2017 (there on Inception features, "FID").
Kernel distance: Bińkowski et al., ICLR 2018 ("KID"); with a Gaussian kernel Jayasumana et al., CVPR 2024 ("CMMD").
None means anything without the distance between two sets of real images at the same size and mix of classes:
:func:`matched_draw` makes such sets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpstrf

from retinalogos.errors import DataError, UsageError
from retinalogos.metrics.bands import Banded, Weighted, bands, taken
from retinalogos.metrics.intervals import LEVEL, Estimate, centred_bootstrap, percentile

# Of CMMD, in its paper and its released code.
GAUSSIAN_WIDTH, GAUSSIAN_SCALE = 10.0, 1000.0

# Features n × d and m × d to n × m.
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _checked(features: np.ndarray) -> np.ndarray:
    if not np.isfinite(features).all():
        raise DataError("features hold values that are not finite; check the images and the feature space")
    return features


def _enough(features: Banded) -> None:
    if len(features.shape) != 2 or len(features) < 2:
        raise DataError(f"features of shape {features.shape}: moments need at least two rows of one dimension")


@dataclass(frozen=True)
class Moments:
    """Count, mean (d) and unbiased covariance (d × d) of features, float64."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: Banded) -> "Moments":
        """Moments of features, n × d, a band in memory at a time (Chan, Golub and LeVeque 1979, eq. 1.5).

        Raises:
            DataError: fewer than two rows, or a value is not finite.
        """
        _enough(features)
        n, mean, scatter = 0, np.zeros(features.shape[1]), np.zeros((features.shape[1],) * 2)
        for _, band in bands(features):
            own = _checked(band).mean(0)
            centred = band - own
            step, share = own - mean, len(band) / (n + len(band))
            scatter += centred.T @ centred
            scatter += np.outer(step, step) * (n * share)
            mean, n = mean + step * share, n + len(band)
        return cls(n, mean, scatter / (n - 1))


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """Fréchet (2-Wasserstein) distance, squared, between the normal distributions with these moments.

        d² = |μ_a − μ_b|² + tr Σ_a + tr Σ_b − 2 tr (Σ_a Σ_b)^½

    (Dowson and Landau 1982.) With Σ_a = L Lᵀ the product Σ_a Σ_b has the eigenvalues of the symmetric
    Lᵀ Σ_b L, so the last trace is the sum of their roots: no matrix root, no complex numbers. L is a pivoted
    Cholesky factor, which also takes covariances without full rank (fewer images than features).
    """
    factor = _semidefinite_factor(a.covariance)
    eigenvalues = np.linalg.eigvalsh(factor.T @ b.covariance @ factor)
    overlap = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    shift = a.mean - b.mean
    return float(max(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * overlap, 0.0))


def _semidefinite_factor(matrix: np.ndarray) -> np.ndarray:
    """L (d × rank) with L Lᵀ = matrix, for a symmetric positive semidefinite matrix."""
    factored, pivots, rank, _ = dpstrf(matrix, lower=1)
    factor = np.empty((len(matrix), rank))
    factor[pivots - 1] = np.tril(factored)[:, :rank]
    return factor


def frechet_distance(real: Banded, other: Banded) -> float:
    """Fréchet distance (squared, as FID is reported) between features, n × d and m × d, read band by band.

    Of fewer images than features no d × d matrix is made. With centred features A and B, scaled so that Σ_a = AᵀA,
    the overlap tr (Σ_a Σ_b)^½ is the sum of the singular values of A Bᵀ, n of them.
    """
    _enough(real)
    _enough(other)
    if min(len(real), len(other)) > real.shape[1]:
        return frechet_from_moments(Moments.of(real), Moments.of(other))
    few, many = sorted((real, other), key=len)
    a = np.concatenate([_checked(band) for _, band in bands(few)])
    mean_a, mean_b = a.mean(0), np.sum([_checked(band).sum(0) for _, band in bands(many)], 0) / len(many)
    a = (a - mean_a) / np.sqrt(len(a) - 1)
    squares, spread = np.zeros((len(a), len(a))), 0.0
    for _, band in bands(many):
        b = (band - mean_b) / np.sqrt(len(many) - 1)
        cross = a @ b.T
        squares += cross @ cross.T
        spread += (b**2).sum()
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(squares), 0, None)).sum()
    shift = mean_a - mean_b
    return float(max(shift @ shift + (a**2).sum() + spread - 2 * overlap, 0.0))


# Patients of the images of the reference and of the other set; None: each image stands for itself.
Patients = tuple[np.ndarray | None, np.ndarray | None]


def frechet_with_interval(
    real: Banded,
    other: Banded,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    patients: Patients = (None, None),
) -> Estimate:
    """:func:`frechet_distance` with the bootstrap interval of both samples, centred on the estimate."""

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return frechet_distance(taken(real, x), taken(other, y))

    rows = (np.arange(len(side)) for side in (real, other))
    return centred_bootstrap(distance, *rows, resamples=resamples, seed=seed, level=level, groups=patients)


@dataclass(frozen=True)
class Extrapolation:
    """The Fréchet distance at several sizes of the sample, and where the line through them meets no end of images.

    Attributes:
        sizes: images of the candidate set, ascending.
        values: mean distance at each size.
        infinity: the distance of a sample without bound ("FID∞").
    """

    sizes: list[int]
    values: list[float]
    infinity: Estimate


# Orders in which a set is cut short; the distance at a size is their mean.
_ORDERS = 4


def frechet_at_infinity(
    real: Banded,
    other: Banded,
    points: int,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    patients: Patients = (None, None),
) -> Extrapolation:
    """FID∞ of Chong and Forsyth, CVPR 2020: the bias of the distance falls as 1/n, so a line in 1/n is prolonged to 0.

    The sizes lie evenly in n between half of the candidate set and all of it. The reference keeps its size, so its
    share of the bias stays. The line holds only while n is well above the number of features: below it the curve bends,
    and the value is too low (it may be negative).

    Args:
        real: reference features, n × d.
        other: features of the candidate set, m × d.
        points: number of sizes, two or more.
        resamples: of the bootstrap, centred as in :func:`frechet_with_interval`; each takes 4 · points distances.
        seed: of orders and resamples.
        level: coverage of the interval.
        patients: as in :func:`frechet_with_interval`.

    Raises:
        UsageError: the candidate set is too small for two sizes.
    """

    def curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.unique(np.linspace(max(2, len(y) // 2), len(y), points).round().astype(int))
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(len(y)) for _ in range(_ORDERS)]
        reference = taken(real, x)
        # In the order in which they lie on disk: a distance does not depend on it.
        cut = [
            np.mean([frechet_distance(reference, taken(other, np.sort(y[order[:n]]))) for order in orders])
            for n in sizes[:-1]
        ]
        # At full size every order gives the same distance.
        return sizes, np.array([*cut, frechet_distance(reference, taken(other, y))])

    def intercept(x: np.ndarray, y: np.ndarray) -> float:
        sizes, values = curve(x, y)
        return _prolonged(sizes, values) if len(sizes) > 1 else np.nan

    everything = np.arange(len(real)), np.arange(len(other))
    if len(other) < 3:
        raise UsageError(f"the distance at no end of images needs two sizes or more and has {len(other)} images")
    sizes, values = curve(*everything)
    around = centred_bootstrap(
        intercept, *everything, resamples=resamples, seed=seed, level=level, floor=-np.inf, groups=patients
    )
    value = Estimate(around.value, around.low, around.high, len(other))
    return Extrapolation(sizes.tolist(), values.tolist(), value)


def _prolonged(sizes: np.ndarray, values: np.ndarray) -> float:
    return float(np.polynomial.Polynomial.fit(1 / sizes, values, 1).convert().coef[0])


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(x, y) = (x·y / d + 1)³, n × m: the kernel of KID."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def kernel_distance(real: Banded, other: Banded) -> float:
    """Unbiased squared maximum mean discrepancy under :func:`polynomial_kernel`.

        MMD² = Σ_{i≠j} k(x_i, x_j) / (n(n−1)) + Σ_{i≠j} k(y_i, y_j) / (m(m−1)) − 2 Σ k(x_i, y_j) / (nm)

    (Gretton et al., JMLR 2012, eq. 3.) Its expectation is 0 for samples of one distribution at any size,
    so single values may be negative.
    """
    return kernel_with_interval(real, other, 0, 0).value


def kernel_distance_subsets(real: Banded, other: Banded, subsets: int, size: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation of :func:`kernel_distance` over seeded subsets, as KID is reported.

    Args:
        real: features, n × d.
        other: features, m × d.
        subsets: number of subsets (100 in the reference implementation).
        size: images of each side in a subset, drawn without replacement.
        seed: of the draws.

    Raises:
        UsageError: size is larger than a sample or smaller than two.
    """
    if not 2 <= size <= min(len(real), len(other)):
        raise UsageError(f"subsets of {size} cannot be drawn from {len(real)} and {len(other)} images")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        some = (taken(side, rng.choice(len(side), size, replace=False)) for side in (real, other))
        values.append(kernel_distance(*some))
    return float(np.mean(values)), float(np.std(values))


def gaussian_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(x, y) = exp(−|x − y|² / (2σ²)), n × m, with σ = 10, of x and y brought to unit length: the kernel of CMMD."""
    x, y = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(float).tiny) for z in (x, y))
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.exp(-np.clip(squared, 0, None) / (2 * GAUSSIAN_WIDTH**2))


def gaussian_with_interval(
    real: Banded,
    other: Banded,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    patients: Patients = (None, None),
) -> Estimate:
    """Unbiased squared maximum mean discrepancy of unit vectors under :func:`gaussian_kernel`, times 1,000.

    Jayasumana et al., CVPR 2024, eq. 4, whose released code brings the features to unit length and multiplies so too
    (it keeps the terms i = j, which adds about 1/n of the kernel's spread). CMMD proper is this in the space ``clip``.
    """
    found = kernel_with_interval(real, other, resamples, seed, level, patients, gaussian_kernel)
    low, high = (None if end is None else GAUSSIAN_SCALE * end for end in (found.low, found.high))
    return Estimate(GAUSSIAN_SCALE * found.value, low, high, found.n)


def kernel_with_interval(
    real: Banded,
    other: Banded,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    patients: Patients = (None, None),
    kernel: Kernel = polynomial_kernel,
) -> Estimate:
    """Unbiased squared maximum mean discrepancy (:func:`kernel_distance`) with its bootstrap interval.

    Resamples are weights on one kernel matrix, of which a square of bands is in memory at a time. Patients are drawn;
    pairs of an image with another copy of itself or of its fellow eye are left out, so that the resampled statistic
    stays unbiased and no shift is needed.

    Raises:
        DataError: a side has fewer than two images.
    """
    if min(len(real), len(other)) < 2:
        raise DataError(f"the kernel distance needs two images a side and has {len(real)} and {len(other)}")
    rng = np.random.default_rng(seed)
    x, y = (Weighted.draw(side, of, resamples, rng) for side, of in zip((real, other), patients, strict=True))
    values = _within(x, kernel) + _within(y, kernel) - 2 * _between(x, y, kernel)
    return percentile(float(values[0]), values[1:], min(len(real), len(other)), level)


def _within(x: Weighted, kernel: Kernel) -> np.ndarray:
    """Mean of the kernel over the pairs of different images of one side, of each resample."""
    total, pairs = np.zeros(len(x.images)), x.images**2
    for a, one in x.bands():
        w = x.weights(a)
        for b, other in x.bands():
            if b.start < a.start:
                continue  # the kernel is symmetric: these pairs count twice below
            band, t = kernel(one, other), x.weights(b)
            fellow = x.member[a, None] == x.member[None, b]
            if a == b:
                np.fill_diagonal(band, 0)
                np.fill_diagonal(fellow, False)
                pairs -= (w**2).sum(0)
            once = np.einsum("ir,ir->r", w, band @ t)
            if fellow.any():
                # Of a patient drawn w times, w² pairs of fellow eyes are counted, and w of them are of one copy.
                once -= np.einsum("ir,ir->r", w, np.where(fellow, band, 0) @ (t - 1))
                pairs -= (1 if a == b else 2) * np.einsum("ir,ir->r", w, fellow.astype(float) @ (t - 1))
            total += (1 if a == b else 2) * once
    # Of a resample of one image alone, drawn again and again, there is no pair.
    return np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0)


def _between(x: Weighted, y: Weighted, kernel: Kernel) -> np.ndarray:
    """Mean of the kernel over the pairs of an image of each side, of each resample."""
    total = np.zeros(len(x.images))
    for a, one in x.bands():
        w = x.weights(a)
        for b, other in y.bands():
            total += np.einsum("ir,ir->r", w, kernel(one, other) @ y.weights(b))
    return total / (x.images * y.images)


def matched_draw(a: Sequence[str], b: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices into two sets of images that have the same size and the same mix of classes.

    Of every class as many images are drawn from each set as the poorer set has: FID and KID of the two
    draws to a third set can then be compared, since both estimators and both mixes are alike.

    Args:
        a: class of each image of the first set.
        b: class of each image of the second set.
        seed: of the draw.

    Returns:
        Sorted indices into a and into b, of equal length (zero where no class is in both).
    """
    rng = np.random.default_rng(seed)
    first, second = np.asarray(a, dtype=object), np.asarray(b, dtype=object)
    drawn: tuple[list[int], list[int]] = ([], [])
    for name in sorted(set(a) & set(b)):
        members = [np.flatnonzero(side == name) for side in (first, second)]
        count = min(len(m) for m in members)
        for chosen, indices in zip(drawn, members, strict=True):
            chosen.extend(rng.choice(indices, count, replace=False))
    return np.sort(np.array(drawn[0], int)), np.sort(np.array(drawn[1], int))
