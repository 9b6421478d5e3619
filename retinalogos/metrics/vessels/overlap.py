"""How far two masks agree: overlap of areas and of centre lines."""

import numpy as np

from retinalogos.metrics.vessels.skeleton import thin


def dice(a_hw: np.ndarray, b_hw: np.ndarray) -> float:
    """2·|a ∩ b| / (|a| + |b|) of bool masks; nan where both are empty."""
    total = int(a_hw.sum()) + int(b_hw.sum())
    return 2 * int((a_hw & b_hw).sum()) / total if total else float("nan")


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


def kind_accuracy(predicted_2hw: np.ndarray, truth_2hw: np.ndarray) -> float:
    """Share of the true vessel pixels found at all that have the right kind, crossings left out; nan where none.

    Args:
        predicted_2hw: bool, artery and vein.
        truth_2hw: likewise.
    """
    judged = (truth_2hw[0] ^ truth_2hw[1]) & predicted_2hw.any(0)
    if not judged.any():
        return float("nan")
    return float(
        (predicted_2hw[0] == truth_2hw[0])[judged & (predicted_2hw[0] ^ predicted_2hw[1])].sum() / judged.sum()
    )
