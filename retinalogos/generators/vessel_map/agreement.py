"""How well found vessels agree with drawn ones: per eye, then with intervals over eyes."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import roc_auc_score

from retinalogos.generators.vessel_map.examples import Examples
from retinalogos.generators.vessel_map.maps import KINDS, to_channels
from retinalogos.generators.vessel_map.segmenter import Segmenter, found, predictions
from retinalogos.metrics.intervals import Estimate, bootstrap
from retinalogos.metrics.overlap import centre_line_dice, dice


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


def of_eye(
    probabilities_2hw: np.ndarray, classes_hw: np.ndarray, field_hw: np.ndarray, known: bool
) -> dict[str, float]:
    """Dice, clDice and area under the ROC curve of vessels, and of each kind where the map tells it; in the field."""
    truth = to_channels(classes_hw) & field_hw
    seen = found(probabilities_2hw) & field_hw
    either = 1 - (1 - probabilities_2hw[0]) * (1 - probabilities_2hw[1])
    inside = truth.any(0)[field_hw]
    figures = {
        "dice": dice(seen.any(0), truth.any(0)),
        "cl_dice": centre_line_dice(seen.any(0), truth.any(0)),
        "auc": float(roc_auc_score(inside, either[field_hw])) if 0 < inside.sum() < inside.size else float("nan"),
    }
    if known:
        for kind, one, other in zip(KINDS, seen, truth, strict=True):
            figures[f"{kind}_dice"] = dice(one, other)
        figures["kind_accuracy"] = kind_accuracy(seen, truth)
    return figures


def of_eyes(segmenter: Segmenter, eyes: Examples) -> list[dict[str, float]]:
    """:func:`of_eye` of each eye."""
    return [
        of_eye(probabilities, eyes.maps[i], eyes.fields[i], bool(eyes.known[i]))
        for i, probabilities in predictions(segmenter, eyes)
    ]


def mean(values: np.ndarray) -> float:
    """Mean of what is defined; nan where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def summary(
    rows: Sequence[Mapping[str, float]], patients: Sequence[str], resamples: int, seed: int
) -> dict[str, Estimate]:
    """Mean of each figure over eyes, with its bootstrap interval; ``patients`` of the eyes are drawn, not eyes."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {
        name: bootstrap(
            mean,
            np.array([row.get(name, float("nan")) for row in rows]),
            resamples=resamples,
            seed=seed,
            groups=np.array(patients),
        )
        for name in names
    }
