"""Figures of a segmentation, from counts of pixels by probability: of each image a histogram, and the pixels can go."""

from collections.abc import Iterable, Sequence

import numpy as np

from retinalogos.classifiers import statistics
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.overlap import dice_of_counts, iou_of_counts
from retinalogos.segmenters.structures import Targets

# Classes of probability, of equal width in its logarithmic odds up to e^±8 (0.03 %): fine enough that areas under
# curves are those of the pixels to three digits. Their middle is a probability of one half.
BINS = 256
_LARGEST = 8.0


def count(batches: Iterable[np.ndarray], structures: Sequence[str], targets: Targets) -> dict[str, np.ndarray]:
    """Of each structure how many pixels of an image have which probability, float32 n × 2 × :data:`BINS`.

    The first of the two are pixels without the structure, the second those with it. Images in which it was not looked
    for, and pixels outside of the field of view, count nothing.

    Args:
        batches: probabilities of the images in their order, b×structures×h×h.
        structures: the channels.
        targets: maps of the images.
    """
    counts = {structure: np.zeros((len(targets), 2, BINS), np.float32) for structure in structures}
    at = 0
    for batch in batches:
        rows = np.arange(at, at + len(batch))
        part = targets.take(rows)
        at += len(batch)
        for channel, structure in enumerate(structures):
            truth, known = part.mask(structure), part.known[structure]
            for place, probability in enumerate(batch[:, channel]):
                if known[place]:
                    inside = part.inside[place]
                    cell = truth[place][inside] * BINS + _bins(probability[inside])
                    counts[structure][rows[place]] = np.bincount(cell, minlength=2 * BINS).reshape(2, BINS)
    return counts


def _bins(probability: np.ndarray) -> np.ndarray:
    odds = np.log(np.maximum(probability, 1e-7)) - np.log(np.maximum(1 - probability, 1e-7))
    return ((odds / _LARGEST + 1) * (BINS / 2)).clip(0, BINS - 1).astype(int)


def figures(counts: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Dice, intersection over union, area under the ROC curve and average precision, each (resamples,).

    The pixels of all images are one set: many eyes have no lesion, and of an image without one there is no Dice. The
    decision is at a probability of one half. nan where no image shows the structure.

    Args:
        counts: n × 2 × BINS of :func:`count`.
        weights: resamples × n; None is one sample in which every image counts once.
    """
    weights = np.ones((1, len(counts))) if weights is None else weights
    pooled = (weights @ counts.reshape(len(counts), -1)).reshape(len(weights), 2, BINS)
    absent, present = pooled[:, 0], pooled[:, 1]
    positives, negatives = present.sum(1), absent.sum(1)
    hit, wrong = (part[:, BINS // 2 :].sum(1) for part in (present, absent))
    below = np.cumsum(absent, 1) - absent
    # From the highest threshold down: how much of the structure is found, and how much of what is found it is.
    found, called = (np.cumsum(part[:, ::-1], 1) for part in (present, pooled.sum(1)))
    precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "dice": np.where(positives > 0, dice_of_counts(hit, hit + wrong, positives), np.nan),
            "iou": np.where(positives > 0, iou_of_counts(hit, hit + wrong, positives), np.nan),
            "auc": (present * (below + absent / 2)).sum(1) / (positives * negatives),
            "average_precision": (present[:, ::-1] * precision).sum(1) / positives,
        }


def estimates(counts: np.ndarray, patients: np.ndarray, resamples: int, seed: int) -> dict[str, Estimate]:
    """:func:`figures` of one segmenter with intervals by patient.

    Args:
        counts: n × 2 × BINS.
        patients: of the images (n,).
        resamples: of patients; 0 gives no intervals.
        seed: of the resampling.
    """

    def of(weights: np.ndarray | None) -> dict[str, np.ndarray]:
        return {name: values[:, None] for name, values in figures(counts, weights).items()}

    return statistics.resample({"": of}, 1, patients, resamples, seed)[""].estimates()
