"""Realism: how far the synthetic images lie from real ones as distributions in a feature space.

Fréchet distance: Heusel et al., NeurIPS 2017 (there on Inception features, "FID").
Kernel distance: Bińkowski et al., ICLR 2018 ("KID").
Neither means anything without the distance between two sets of real images at the same size and mix of
classes: :func:`matched_draw` makes such sets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpstrf

from retinalogos.errors import DataError, UsageError
from retinalogos.metrics.intervals import LEVEL, Estimate, centred_bootstrap


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
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or len(features) < 2:
            raise DataError(f"features of shape {features.shape}: moments need at least two rows of one dimension")
        if not np.isfinite(features).all():
            raise DataError("features hold values that are not finite; check the images and the feature space")
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
    """Fréchet distance (squared, as FID is reported) between features, n × d and m × d."""
    return frechet_from_moments(Moments.of(real), Moments.of(other))


def frechet_with_interval(
    real: np.ndarray, other: np.ndarray, resamples: int, seed: int, level: float = LEVEL
) -> Estimate:
    """:func:`frechet_distance` with the bootstrap interval of both samples, centred on the estimate."""
    return centred_bootstrap(frechet_distance, real, other, resamples=resamples, seed=seed, level=level)


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


def kernel_with_interval(
    real: np.ndarray, other: np.ndarray, resamples: int, seed: int, level: float = LEVEL
) -> Estimate:
    """:func:`kernel_distance` with its bootstrap interval.

    Resamples are weights on one kernel matrix, and the pairs of an image with its own copy are left out,
    so that the resampled statistic stays unbiased and no shift is needed.
    """
    x, y = np.asarray(real, np.float64), np.asarray(other, np.float64)
    rng = np.random.default_rng(seed)

    def weights(n: int) -> np.ndarray:
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples).T.astype(float)
        return np.concatenate([np.ones((n, 1)), drawn], axis=1)

    values = _discrepancies(x, y, weights(len(x)), weights(len(y)))
    n = min(len(x), len(y))
    if not resamples:
        return Estimate(float(values[0]), None, None, n)
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(values[0]), float(low), float(high), n)


def _discrepancies(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Unbiased MMD² for every column of weights u (n × r) of x and v (m × r) of y."""
    if min(len(x), len(y)) < 2:
        raise DataError(f"the kernel distance needs two images a side and has {len(x)} and {len(y)}")

    def within(z: np.ndarray, w: np.ndarray) -> np.ndarray:
        kernel = polynomial_kernel(z, z)
        np.fill_diagonal(kernel, 0.0)
        return np.einsum("ir,ir->r", w, kernel @ w) / (w.sum(0) ** 2 - (w**2).sum(0))

    between = np.einsum("ir,ir->r", u, polynomial_kernel(x, y) @ v) / (u.sum(0) * v.sum(0))
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
