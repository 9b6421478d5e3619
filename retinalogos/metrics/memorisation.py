"""Memorisation: whether synthetic images are copies of training images.

The distance of a synthetic image to its nearest training image says nothing by itself, twice over. A blurred, average
image is near to every training image and a copy of none: so the distance is taken relative to those of its other
near training images (Carlini et al., USENIX Security 2023, eq. 1). And how small is small? So it is calibrated
with real images that the generator never saw: an image that is relatively nearer to one training image than nearly
all of those is flagged. The same rule applied to the real test images gives the share to expect without copying.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from retinalogos.errors import DataError
from retinalogos.metrics.diversity import grey, pairwise_distance

CHUNK = 1024  # queries and references at a time: bounds the distance matrix to 8 MB


def pixel_descriptor(images: np.ndarray, side: int) -> np.ndarray:
    """Small grey copies with zero mean and unit length, float32, n × side².

    The Euclidean distance of two descriptors is √(2 − 2r), r the correlation of the small images: brightness
    and contrast, which a copy may change, do not count. An image without contrast becomes zero.

    Args:
        images: uint8, n × h × w × 3.
        side: pixels of the small copy (area average).
    """
    small = np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in grey(images)])
    flat = small.reshape(len(small), -1)
    flat = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-6)


@dataclass(frozen=True)
class Neighbours:
    """Nearest reference rows of n queries.

    Attributes:
        distance: to the nearest, n.
        index: of the nearest, n.
        relative: ``distance`` over the mean distance to the next nearest ones, n, 0-1; 0 for a copy, near 1 for an
            image that resembles no one reference more than others.
    """

    distance: np.ndarray
    index: np.ndarray
    relative: np.ndarray


def nearest(queries: np.ndarray, references: np.ndarray, k: int, exclude_self: bool = False) -> Neighbours:
    """Nearest rows of references (m × d) for each of queries (n × d), by Euclidean distance.

    Memory is bounded by one chunk of distances, whatever n and m.

    Args:
        queries: n × d.
        references: m × d.
        k: number of nearest references behind ``relative``, the nearest among them; at most all of them are taken.
        exclude_self: queries and references are the same rows, and a row is not its own neighbour.

    Raises:
        DataError: there are fewer than two references to each query.
    """
    k = min(k, len(references) - exclude_self)
    if k < 2:
        raise DataError(f"nearest neighbours need two training images or more, there are {len(references)}")
    closest = np.full((len(queries), k), np.inf)
    index = np.zeros(len(queries), int)
    for q in range(0, len(queries), CHUNK):
        rows = slice(q, q + CHUNK)
        best = closest[rows]
        for r in range(0, len(references), CHUNK):
            distance = pairwise_distance(queries[rows], references[r : r + CHUNK])
            if exclude_self:
                own = np.arange(len(distance)) + q - r
                inside = (own >= 0) & (own < distance.shape[1])
                distance[np.flatnonzero(inside), own[inside]] = np.inf
            index[rows] = np.where(distance.min(1) < best.min(1), distance.argmin(1) + r, index[rows])
            best = np.partition(np.concatenate([best, distance], axis=1), k - 1, axis=1)[:, :k]
        closest[rows] = np.sort(best, axis=1)
    others = closest[:, 1:].mean(1)
    relative = np.divide(closest[:, 0], others, out=np.zeros(len(queries)), where=others > 0)
    return Neighbours(closest[:, 0], index, relative)


def nearest_of_batches(batches: Iterable[np.ndarray], references: np.ndarray, k: int) -> Neighbours:
    """:func:`nearest` for queries that come batch by batch: memory does not grow with their descriptors."""
    parts = [nearest(batch, references, k) for batch in batches]
    if not parts:
        return Neighbours(np.empty(0), np.empty(0, int), np.empty(0))
    return Neighbours(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("distance", "index", "relative"))
    )


def calibrated_threshold(unseen_to_train: np.ndarray, quantile: float) -> float:
    """Relative distance below which only a share ``quantile`` of real, unseen images come to a training image."""
    return float(np.quantile(unseen_to_train, quantile))


def flagged(relative: np.ndarray, threshold: float) -> np.ndarray:
    """Which images lie relatively nearer to a training image than the threshold: bool, n."""
    return relative < threshold


def leave_one_out_flagged(unseen_to_train: np.ndarray, quantile: float) -> np.ndarray:
    """Which unseen images would be flagged by the threshold of all the others: bool, n.

    Their mean is the share to expect of a generator that copies nothing; an image does not set the
    threshold that judges it.
    """
    n = len(unseen_to_train)
    if n < 2:
        return np.zeros(n, bool)
    others = [np.quantile(np.delete(unseen_to_train, i), quantile) for i in range(n)]
    return unseen_to_train < np.array(others)


def authentic(synthetic: Neighbours, train_to_train: np.ndarray) -> np.ndarray:
    """Which synthetic images are authentic: bool, n (Alaa et al., ICML 2022).

    A synthetic image is authentic when its nearest training image has a training image nearer to itself
    than the synthetic one is. The share among unseen real images is what an honest generator should reach
    (0.4-0.5: isolated training images are more often somebody's nearest).

    Args:
        synthetic: neighbours of the synthetic images among the training images.
        train_to_train: distance of each training image to its nearest other training image.
    """
    return synthetic.distance > train_to_train[synthetic.index]
