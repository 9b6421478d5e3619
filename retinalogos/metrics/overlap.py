"""How far two masks agree: overlap of areas and of centre lines."""

import numpy as np

from retinalogos.metrics.vessels.skeleton import thin


def dice_of_counts(both: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """2·both / (one + other), from pixels in both masks and in each, of any shape; nan where both are empty."""
    total = np.asarray(one + other, float)
    return np.divide(2 * both, total, out=np.full(total.shape, np.nan), where=total > 0)


def iou_of_counts(both: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union (Jaccard's index), likewise."""
    union = np.asarray(one + other - both, float)
    return np.divide(both, union, out=np.full(union.shape, np.nan), where=union > 0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2·|a ∩ b| / (|a| + |b|) of bool masks, over all their pixels; nan where both are empty."""
    return float(dice_of_counts(np.sum(a & b), np.sum(a), np.sum(b)))


def centre_line_dice(predicted_hw: np.ndarray, truth_hw: np.ndarray) -> float:
    """clDice (Shit et al., CVPR 2021): how much of each mask's centre line lies inside the other, harmonic mean.

    Vessels of the wrong width cost nothing, vessels that are missing or interrupted do. nan where both are empty.
    """
    lines = thin(predicted_hw), thin(truth_hw)
    if not lines[0].any() and not lines[1].any():
        return float("nan")
    if not lines[0].any() or not lines[1].any():
        return 0.0
    precision = float(truth_hw[lines[0]].mean())
    sensitivity = float(predicted_hw[lines[1]].mean())
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0
