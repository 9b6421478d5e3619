"""Diversity: whether synthetic images differ among themselves as real ones do, and cover what real ones cover."""

from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from retinalogos.errors import UsageError
from retinalogos.metrics.intervals import Estimate, bootstrap

# Weights of the scales, finest first: Wang, Simoncelli and Bovik, Asilomar 2003, table 1.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11  # pixels, of the same paper
BATCH = 32  # pairs at a time: bounds memory
ROWS = 1024  # of a matrix of distances at a time: memory grows with the number of images, not with its square


def scale_weights(size: int) -> tuple[float, ...]:
    """Weights of the scales of MS-SSIM that an image of ``size`` pixels has room for, summing to one.

    The coarsest scale must be larger than the window, and torchmetrics asks for size // (scales − 1)² to be
    so as well: five scales need 176 pixels, four 99, three 44. Values at different numbers of scales must not be
    compared.

    Raises:
        UsageError: not even one scale fits.
    """
    scales = sum(min(size // 2**i, size // max(i, 1) ** 2) > WINDOW - 1 for i in range(len(SCALE_WEIGHTS)))
    if scales == 0:
        raise UsageError(f"MS-SSIM needs images of more than {WINDOW - 1} pixels, these have {size}")
    weights = np.array(SCALE_WEIGHTS[:scales])
    return tuple(float(w) for w in weights / weights.sum())


def disjoint_pairs(n: int, pairs: int, seed: int) -> np.ndarray:
    """At most ``pairs`` pairs of n images, no image in two of them (so that pairs are independent): p × 2."""
    count = min(pairs, n // 2)
    return np.random.default_rng(seed).permutation(n)[: 2 * count].reshape(count, 2)


def ms_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity of each pair, in [0, 1] (Wang, Simoncelli and Bovik 2003).

    Args:
        a: uint8, n × size × size × 3; compared as luma (ITU-R 601), on which the measure is defined.
        b: of the same shape.
    """
    betas = scale_weights(min(a.shape[1:3]))
    values = []
    for start in range(0, len(a), BATCH):
        one, two = (torch.from_numpy(grey(x[start : start + BATCH]))[:, None] for x in (a, b))
        value = multiscale_structural_similarity_index_measure(
            one, two, data_range=255.0, betas=betas, kernel_size=WINDOW, reduction="none"
        )
        values.append(torch.atleast_1d(value).numpy())
    return np.concatenate(values) if values else np.empty(0, np.float32)


def grey(images: np.ndarray) -> np.ndarray:
    """Luma of uint8 RGB images (… × 3) by the weights of ITU-R BT.601, float32 0-255."""
    return images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def mean_similarity(similarity: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean MS-SSIM over random disjoint pairs of a set: higher means less diverse (Odena et al., ICML 2017).

    Args:
        similarity: of each pair (:func:`ms_ssim` of :func:`disjoint_pairs`).
        resamples: of the bootstrap over pairs.
        seed: of the bootstrap.
    """
    return bootstrap(np.mean, similarity, resamples=resamples, seed=seed)


def inception_score(probabilities: np.ndarray, splits: int = 1) -> float:
    """exp of the mean divergence of an image's classes from those of all images (Salimans et al., NeurIPS 2016).

    High where single images are told with confidence and all together show many classes. The classes are those of
    ordinary photographs, so of fundus images it says little; it is here because papers report it.

    Args:
        probabilities: n × c.
        splits: the set is cut into so many parts in its order, and their scores are averaged.
    """
    scores = []
    for part in np.array_split(np.asarray(probabilities, np.float64), splits):
        # The entropy of a class without probability is nothing; tiny keeps its logarithm finite.
        logs = [np.log(np.maximum(p, np.finfo(float).tiny)) for p in (part, part.mean(0, keepdims=True))]
        scores.append(np.exp((part * (logs[0] - logs[1])).sum(1).mean()))
    return float(np.mean(scores))


@dataclass(frozen=True)
class Manifold:
    """Precision and recall (Kynkäänniemi et al., NeurIPS 2019), density and coverage (Naeem et al., ICML 2020).

    With the ball around each image that reaches to its k-th neighbour of the same set:

    - precision: share of synthetic images inside some real ball
    - recall: share of real images inside some synthetic ball
    - density: number of real balls around a synthetic image, over k; may exceed 1
    - coverage: share of real balls that hold a synthetic image

    Intervals are over the images that are counted, with the balls as they are.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def manifold(real: np.ndarray, synthetic: np.ndarray, k: int, resamples: int = 0, seed: int = 0) -> Manifold:
    """The four measures of :class:`Manifold` between features n × d and m × d, a band of distances at a time.

    Raises:
        UsageError: k is not below the number of images of each set.
    """
    if not 1 <= k < min(len(real), len(synthetic)):
        raise UsageError(f"k = {k} neighbours cannot be had among {len(real)} and {len(synthetic)} images")
    real_radius, synthetic_radius = _kth_distance(real, k), _kth_distance(synthetic, k)
    around = np.zeros(len(synthetic))
    inside, nearest = [], []
    for start in range(0, len(real), ROWS):
        band = slice(start, start + ROWS)
        distance = pairwise_distance(real[band], synthetic)
        around += (distance <= real_radius[band, None]).sum(0)
        inside.append((distance <= synthetic_radius[None, :]).any(1))
        nearest.append(distance.min(1))
    shares = {
        "precision": around > 0,
        "recall": np.concatenate(inside),
        "density": around / k,
        "coverage": np.concatenate(nearest) <= real_radius,
    }
    return Manifold(**{name: bootstrap(np.mean, x, resamples=resamples, seed=seed) for name, x in shares.items()})


def _kth_distance(features: np.ndarray, k: int) -> np.ndarray:
    radii = []
    for start in range(0, len(features), ROWS):
        distance = pairwise_distance(features[start : start + ROWS], features)
        rows = np.arange(len(distance))
        distance[rows, start + rows] = np.inf
        radii.append(np.partition(distance, k - 1, axis=1)[:, k - 1])
    return np.concatenate(radii)


def pairwise_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances, n × m, of rows of a (n × d) and b (m × d), in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.clip(squared, 0, None))
