"""Memorisation: whether synthetic images are copies of training images.

The distance of a synthetic image to its nearest training image says nothing by itself, twice over. A blurred, average
image is near to every training image and a copy of none: so the distance is taken relative to those of its other
near training images (Carlini et al., USENIX Security 2023, eq. 1). And how small is small? So it is calibrated
with real images that the generator never saw: an image that is relatively nearer to one training image than nearly
all of those is flagged. The same rule applied to the real test images gives the share to expect without copying.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from retinalogos.errors import DataError
from retinalogos.metrics.bands import Banded
from retinalogos.metrics.control import auc
from retinalogos.metrics.diversity import grey
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.neighbours import nearest_distances


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


def nearest(queries: Banded, references: Banded, k: int, exclude_self: bool = False) -> Neighbours:
    """Nearest rows of references (m × d) for each of queries (n × d), by Euclidean distance.

    Memory is bounded by a square of bands, whatever n and m.

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
    distance, relative, index = np.zeros(len(queries)), np.zeros(len(queries)), np.zeros(len(queries), int)
    for places, best, closest in nearest_distances(queries, references, k, exclude_self):
        others = best[:, 1:].mean(1)
        distance[places], index[places] = best[:, 0], closest
        relative[places] = np.divide(best[:, 0], others, out=np.zeros(len(best)), where=others > 0)
    return Neighbours(distance, index, relative)


@dataclass(frozen=True)
class Calibration:
    """What relative distances in several spaces say, after real, unseen images.

    A distance becomes so many spreads below the middle of the unseen images' distances, in logarithms; the spread is
    that of their nearer half (the sixth that is nearest lies beyond one). So spaces can be compared, and an image is
    judged by the one in which it stands out the most.

    Attributes:
        middle: median of the logarithms, by space.
        spread: distance of their 16th percentile from it, by space.
        limit: spreads beyond which an image is flagged.
        unseen: of each unseen image, the most spreads in any space, n.
    """

    middle: dict[str, float]
    spread: dict[str, float]
    limit: float
    unseen: np.ndarray

    def spreads(self, relative: Mapping[str, np.ndarray]) -> np.ndarray:
        """How many spreads below the middle each image lies in each space: n × spaces."""
        columns = [(self.middle[space] - _log(values)) / self.spread[space] for space, values in relative.items()]
        return np.stack(columns, axis=1)

    def threshold(self, space: str) -> float:
        """The relative distance that lies at the limit."""
        return float(np.exp(self.middle[space] - self.limit * self.spread[space]))


def _log(relative: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(relative, 1e-6))  # of a copy bit by bit it is zero


def calibrate(unseen: Mapping[str, np.ndarray], quantile: float) -> Calibration:
    """Sets the limit so that a further unseen image is flagged, in whatever space, with the chance ``quantile``.

    Of n unseen images the k-th most suspicious sets it, k = quantile · (n + 1), and the most suspicious of all where
    there are too few for that: then the chance is 1 / (n + 1). In truth it is a little more, for middle and spread are
    taken from the same images.

    Args:
        unseen: relative distance of each unseen image to the training images, n, by space.
        quantile: share of unseen images that may be flagged, 0-1.
    """
    logs = {space: _log(values) for space, values in unseen.items()}
    middle = {space: float(np.median(values)) for space, values in logs.items()}
    spread = {space: max(middle[space] - float(np.quantile(values, 0.16)), 1e-3) for space, values in logs.items()}
    most = Calibration(middle, spread, np.inf, np.empty(0)).spreads(unseen).max(1)
    return Calibration(middle, spread, _limit(most, quantile), most)


def _limit(most: np.ndarray, quantile: float) -> float:
    return float(np.quantile(most, 1 - quantile, method="weibull"))


def leave_one_out_flagged(calibration: Calibration, quantile: float) -> np.ndarray:
    """Which unseen images would be flagged by the limit of all the others: bool, n.

    Their mean is the share to expect of a generator that copies nothing; no image sets the limit that judges it.
    """
    most = calibration.unseen
    if len(most) < 2:
        return np.zeros(len(most), bool)
    return most > np.array([_limit(np.delete(most, i), quantile) for i in range(len(most))])


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


def membership_auc(
    members: np.ndarray, others: np.ndarray, resamples: int, seed: int, patients: np.ndarray | None = None
) -> Estimate:
    """How well closeness to the synthetic images tells who was in training: 0.5 not at all, 1 always.

    The attack of one who has nothing but the synthetic images (GAN-Leaks: Chen et al., CCS 2020). Distances are the
    relative ones, so that a plain eye, which is near to everything, is not taken for a member.

    Args:
        members: relative distance of each training image to the synthetic ones, n.
        others: the same of real images that were not in training, m.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        patients: of the n and then of the m images, by which they are resampled; None: each for itself.
    """
    member = np.repeat([True, False], [len(members), len(others)])
    return auc(member, -np.concatenate([members, others]), resamples, seed, patients)
