"""Realism: how far the synthetic images lie from real ones as distributions in a feature space.

Fréchet distance: Heusel et al., NeurIPS 2017 (there on Inception features, "FID").
Kernel distance: Bińkowski et al., ICLR 2018 ("KID"); with a Gaussian kernel Jayasumana et al., CVPR 2024 ("CMMD").
None means anything without the distance between two sets of real images at the same size and mix of classes:
:func:`matched_draw` makes such sets.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpstrf

from retinalogos.errors import DataError, UsageError
from retinalogos.metrics.intervals import LEVEL, Estimate, centred_bootstrap

# Of CMMD, in its paper and its released code.
GAUSSIAN_WIDTH, GAUSSIAN_SCALE = 10.0, 1000.0
ROWS = 1024  # of a kernel matrix at a time: memory grows with the number of images, not with its square

# Features n × d and m × d to n × m.
Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"features of shape {features.shape}: moments need at least two rows of one dimension")
    if not np.isfinite(features).all():
        raise DataError("features hold values that are not finite; check the images and the feature space")
    return features


@dataclass(frozen=True)
class Moments:
    """Count, mean (d) and unbiased covariance (d × d) of features, float64."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Moments":
        """Moments of features, n × d.

        Raises:
            DataError: fewer than two rows, or a value is not finite.
        """
        features = _checked(features)
        mean = features.mean(0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred / (len(features) - 1))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together (Chan, Golub and LeVeque 1979, eq. 1.5)."""
        n = self.n + other.n
        step = other.mean - self.mean
        scatter = (self.n - 1) * self.covariance + (other.n - 1) * other.covariance
        scatter += np.outer(step, step) * (self.n * other.n / n)
        return Moments(n, self.mean + step * (other.n / n), scatter / (n - 1))


def streaming_moments(batches: Iterable[np.ndarray]) -> Moments:
    """Moments of batches of features, each n × d with n ≥ 2, holding one batch at a time.

    Raises:
        DataError: there is no batch.
    """
    total: Moments | None = None
    for batch in batches:
        part = Moments.of(batch)
        total = part if total is None else total.merge(part)
    if total is None:
        raise DataError("no features at all: the set of images is empty")
    return total


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


def frechet_distance(real: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance (squared, as FID is reported) between features, n × d and m × d.

    Of fewer images than features no d × d matrix is made. With centred features A and B, scaled so that Σ_a = AᵀA,
    the overlap tr (Σ_a Σ_b)^½ is the sum of the singular values of A Bᵀ, which is n × m.
    """
    real, other = _checked(real), _checked(other)
    if min(len(real), len(other)) > real.shape[1]:
        return frechet_from_moments(Moments.of(real), Moments.of(other))
    few, many = sorted((real, other), key=len)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (few, many))
    cross = a @ b.T
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(cross @ cross.T), 0, None)).sum()
    shift = few.mean(0) - many.mean(0)
    return float(max(shift @ shift + (a**2).sum() + (b**2).sum() - 2 * overlap, 0.0))


def frechet_with_interval(
    real: np.ndarray, other: np.ndarray, resamples: int, seed: int, level: float = LEVEL
) -> Estimate:
    """:func:`frechet_distance` with the bootstrap interval of both samples, centred on the estimate."""
    return centred_bootstrap(frechet_distance, real, other, resamples=resamples, seed=seed, level=level)


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
    real: np.ndarray, other: np.ndarray, points: int, resamples: int, seed: int, level: float = LEVEL
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

    Raises:
        UsageError: the candidate set is too small for two sizes.
    """
    m = len(other)
    sizes = np.unique(np.linspace(max(2, m // 2), m, points).round().astype(int))
    if len(sizes) < 2:
        raise UsageError(f"the distance at no end of images needs two sizes or more and has {m} images")
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(m) for _ in range(_ORDERS)]

    def curve(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # At full size every order gives the same distance.
        cut = [np.mean([frechet_distance(x, y[order[:n]]) for order in orders]) for n in sizes[:-1]]
        return np.array([*cut, frechet_distance(x, y)])

    def intercept(x: np.ndarray, y: np.ndarray) -> float:
        return _prolonged(sizes, curve(x, y))

    values = curve(real, other)
    value = _prolonged(sizes, values)
    around = centred_bootstrap(intercept, real, other, resamples=resamples, seed=seed, level=level, floor=-np.inf)
    return Extrapolation(sizes.tolist(), values.tolist(), Estimate(value, around.low, around.high, m))


def _prolonged(sizes: np.ndarray, values: np.ndarray) -> float:
    return float(np.polynomial.Polynomial.fit(1 / sizes, values, 1).convert().coef[0])


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(x, y) = (x·y / d + 1)³, n × m: the kernel of KID."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def kernel_distance(real: np.ndarray, other: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy under :func:`polynomial_kernel`.

        MMD² = Σ_{i≠j} k(x_i, x_j) / (n(n−1)) + Σ_{i≠j} k(y_i, y_j) / (m(m−1)) − 2 Σ k(x_i, y_j) / (nm)

    (Gretton et al., JMLR 2012, eq. 3.) Its expectation is 0 for samples of one distribution at any size,
    so single values may be negative.
    """
    return kernel_distance_subsets(real, other, subsets=1, size=None, seed=0)[0]


def kernel_distance_subsets(
    real: np.ndarray, other: np.ndarray, subsets: int, size: int | None, seed: int
) -> tuple[float, float]:
    """Mean and standard deviation of :func:`kernel_distance` over seeded subsets, as KID is reported.

    Args:
        real: features, n × d.
        other: features, m × d.
        subsets: number of subsets (100 in the reference implementation).
        size: images of each side in a subset, drawn without replacement; None: all of them.
        seed: of the draws.

    Raises:
        UsageError: size is larger than a sample or smaller than two.
    """
    if size is not None and not 2 <= size <= min(len(real), len(other)):
        raise UsageError(f"subsets of {size} cannot be drawn from {len(real)} and {len(other)} images")
    rng = np.random.default_rng(seed)
    x, y = np.asarray(real, np.float64), np.asarray(other, np.float64)
    values = []
    for _ in range(subsets):
        xs = x if size is None else x[rng.choice(len(x), size, replace=False)]
        ys = y if size is None else y[rng.choice(len(y), size, replace=False)]
        one_x, one_y = np.ones((len(xs), 1)), np.ones((len(ys), 1))
        values.append(_discrepancies(xs, ys, one_x, one_y)[0])
    return float(np.mean(values)), float(np.std(values))


def gaussian_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k(x, y) = exp(−|x − y|² / (2σ²)), n × m, with σ = 10: the kernel of CMMD."""
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :] - 2 * x @ y.T
    return np.exp(-np.clip(squared, 0, None) / (2 * GAUSSIAN_WIDTH**2))


def gaussian_with_interval(
    real: np.ndarray, other: np.ndarray, resamples: int, seed: int, level: float = LEVEL
) -> Estimate:
    """Unbiased squared maximum mean discrepancy of unit vectors under :func:`gaussian_kernel`, times 1,000.

    Jayasumana et al., CVPR 2024, eq. 4, whose released code brings the features to unit length and multiplies so too
    (it keeps the terms i = j, which adds about 1/n of the kernel's spread). CMMD proper is this in the space ``clip``.
    """
    x, y = (np.asarray(z, np.float64) for z in (real, other))
    x, y = (z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), np.finfo(float).tiny) for z in (x, y))
    found = kernel_with_interval(x, y, resamples, seed, level, gaussian_kernel)
    low, high = (None if end is None else GAUSSIAN_SCALE * end for end in (found.low, found.high))
    return Estimate(GAUSSIAN_SCALE * found.value, low, high, found.n)


def kernel_with_interval(
    real: np.ndarray,
    other: np.ndarray,
    resamples: int,
    seed: int,
    level: float = LEVEL,
    kernel: Kernel = polynomial_kernel,
) -> Estimate:
    """Unbiased squared maximum mean discrepancy (:func:`kernel_distance`) with its bootstrap interval.

    Resamples are weights on one kernel matrix, and the pairs of an image with its own copy are left out,
    so that the resampled statistic stays unbiased and no shift is needed.
    """
    x, y = np.asarray(real, np.float64), np.asarray(other, np.float64)
    rng = np.random.default_rng(seed)

    def weights(n: int) -> np.ndarray:
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples).T.astype(float)
        return np.concatenate([np.ones((n, 1)), drawn], axis=1)

    values = _discrepancies(x, y, weights(len(x)), weights(len(y)), kernel)
    n = min(len(x), len(y))
    if not resamples:
        return Estimate(float(values[0]), None, None, n)
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values[0]), float(low), float(high), n)


def _discrepancies(
    x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray, kernel: Kernel = polynomial_kernel
) -> np.ndarray:
    """Unbiased MMD² for every column of weights u (n × r) of x and v (m × r) of y, a band of the kernel at a time."""
    if min(len(x), len(y)) < 2:
        raise DataError(f"the kernel distance needs two images a side and has {len(x)} and {len(y)}")

    def products(a: np.ndarray, b: np.ndarray, w: np.ndarray, t: np.ndarray, leave_own: bool) -> np.ndarray:
        total = np.zeros(w.shape[1])
        for start in range(0, len(a), ROWS):
            band = kernel(a[start : start + ROWS], b)
            if leave_own:
                rows = np.arange(len(band))
                band[rows, start + rows] = 0.0
            total += np.einsum("ir,ir->r", w[start : start + ROWS], band @ t)
        return total

    def within(z: np.ndarray, w: np.ndarray) -> np.ndarray:
        return products(z, z, w, w, True) / (w.sum(0) ** 2 - (w**2).sum(0))

    between = products(x, y, u, v, False) / (u.sum(0) * v.sum(0))
    return within(x, u) + within(y, v) - 2 * between


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
