"""Diversity: whether synthetic images differ among themselves as real ones do, and cover what real ones cover."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from retinalogos.errors import UsageError
from retinalogos.metrics.bands import Banded, Weighted, bands
from retinalogos.metrics.intervals import Estimate, bootstrap, percentile
from retinalogos.metrics.neighbours import nearest_distances, pairwise_distance

# Weights of the scales, finest first: Wang, Simoncelli and Bovik, Asilomar 2003, table 1.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11  # pixels, of the same paper
BATCH = 32  # pairs at a time: bounds memory


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


def disjoint_pairs(n: int, pairs: int, seed: int, patients: Sequence[str] | None = None) -> np.ndarray:
    """At most ``pairs`` pairs of n images, p × 2, no image in two of them: so pairs are independent.

    With ``patients`` (of each image) no patient either, nor both images of a pair of one.
    """
    order = np.random.default_rng(seed).permutation(n)
    if patients is not None:
        order = order[np.sort(np.unique(np.asarray(patients)[order], return_index=True)[1])]
    count = min(pairs, len(order) // 2)
    return order[: 2 * count].reshape(count, 2)


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


def inception_score(
    features: Banded,
    probabilities: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    patients: np.ndarray | None = None,
) -> Estimate:
    """exp of the mean divergence of an image's classes from those of all images (Salimans et al., NeurIPS 2016).

    High where single images are told with confidence and all together show many classes. The classes are those of
    ordinary photographs, so of fundus images it says little; it is here because papers report it. All images are one
    split; of none anything is kept but its features.

    Args:
        features: n × d.
        probabilities: of c classes, n × c, from features.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        patients: of each image, by which they are resampled; None: each for itself.
    """
    images = Weighted.draw(features, patients, resamples, np.random.default_rng(seed))
    # exp(Σ p log p / n − Σ m log m), m the mean of p: of each resample two sums.
    certain, mean = np.zeros(len(images.images)), np.zeros((len(images.images), 1))
    for places, band in images.bands():
        share = np.asarray(probabilities(band), np.float64)
        weights = images.weights(places).T / images.images[:, None]
        certain += weights @ (share * _log(share)).sum(1)
        mean = mean + weights @ share
    scores = np.exp(certain - (mean * _log(mean)).sum(1))
    return percentile(float(scores[0]), scores[1:], len(features))


def _log(probability: np.ndarray) -> np.ndarray:
    # The entropy of a class without probability is nothing; tiny keeps its logarithm finite.
    return np.log(np.maximum(probability, np.finfo(float).tiny))


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


def manifold(
    real: Banded,
    synthetic: Banded,
    k: int,
    resamples: int = 0,
    seed: int = 0,
    patients: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> Manifold:
    """The four measures of :class:`Manifold` between features n × d and m × d, a square of bands at a time.

    Args:
        real: features.
        synthetic: features.
        k: neighbours.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        patients: of the real and of the synthetic images, by which they are resampled; None: each for itself.

    Raises:
        UsageError: k is not below the number of images of each set.
    """
    if not 1 <= k < min(len(real), len(synthetic)):
        raise UsageError(f"k = {k} neighbours cannot be had among {len(real)} and {len(synthetic)} images")
    real_radius, synthetic_radius = _kth_distance(real, k), _kth_distance(synthetic, k)
    around, inside, nearest = np.zeros(len(synthetic)), np.zeros(len(real), bool), np.full(len(real), np.inf)
    for a, one in bands(real):
        for b, other in bands(synthetic):
            distance = pairwise_distance(one, other)
            around[b] += (distance <= real_radius[a, None]).sum(0)
            inside[a] |= (distance <= synthetic_radius[None, b]).any(1)
            nearest[a] = np.minimum(nearest[a], distance.min(1))
    shares = {
        "precision": (around > 0, patients[1]),
        "recall": (inside, patients[0]),
        "density": (around / k, patients[1]),
        "coverage": (nearest <= real_radius, patients[0]),
    }
    return Manifold(
        **{name: bootstrap(np.mean, x, resamples=resamples, seed=seed, groups=of) for name, (x, of) in shares.items()}
    )


def _kth_distance(features: Banded, k: int) -> np.ndarray:
    return np.concatenate([best[:, -1] for _, best, _ in nearest_distances(features, features, k, exclude_self=True)])
