"""Curves that a reader points at: distances by size of the sample, grades seen, and what classifiers tell apart."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from markupsafe import Markup
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from components.report import charts, layout
from components.report.figures import Results
from retinalogos.classifiers import mixes
from retinalogos.classifiers.predictions import read_scores

_GROUPS = 8  # of equal number by probability: about fifteen images in each of the laptop's test split
# Of rates of false alarms, so that all curves are read at the same ones.
_RATES = np.linspace(0, 1, 101)

Chart = dict[str, str | Markup]


def assessment(results: Results) -> list[Chart]:
    """Fréchet distance by the number of images, and the grade that is seen by the grade that was asked for."""
    drawn = []
    sides = {"synthetic": "synthetic", "floor": "other real images"}
    for reference, found in results.get("realism", {}).items():
        by_size = found.get("frechet_by_size", {})
        by_number: dict[str, list[charts.Point]] = {
            says: list(zip(by_size[key]["sizes"], by_size[key]["values"], strict=True))
            for key, says in sides.items()
            if key in by_size
        }
        title = f"FID to the {reference}{'ing' if reference == 'train' else ''} images, by size of the sample"
        drawn.append(_chart(title, charts.line_chart(by_number, "images", "FID")))
    judged = results.get("control", {}).get("judge", {})
    by_grade: dict[str, list[charts.Point]] = {}
    for kind, says in (("synthetic", "synthetic"), ("real", "real test images")):
        seen = judged.get(kind, {}).get("dr_grade", {}).get("curve", {})
        whole = {grade: figure for grade, figure in seen.items() if figure and None not in figure.values()}
        by_grade[says] = [
            (int(grade.removeprefix("grade_")), figure["value"], figure["low"], figure["high"])
            for grade, figure in whole.items()
        ]
    title = "Mean grade that a classifier of real images sees, by grade asked for, or recorded"
    drawn.append(_chart(title, charts.line_chart(by_grade, "grade", "mean grade seen", diagonal=True)))
    return [chart for chart in drawn if chart["svg"]]


def classification(results: Results, predictions: Path) -> list[Chart]:
    """ROC curve and calibration on the real test images, of each task with two classes.

    Of the mixes those that differ most: all real images, the mix that the summary speaks of, and synthetic ones alone.
    """
    if not predictions.is_file():
        return []
    wanted = {mixes.REAL, layout.headline(results), mixes.SYNTHETIC}
    arms = [arm for arm in results.get("arms", {}) if arm in wanted]
    drawn = []
    for task in [task for task, names in results["tasks"].items() if len(names) == 2]:
        found = {mixes.words(arm): read_scores(predictions, "test", arm, task) for arm in arms}
        found = {arm: scores for arm, scores in found.items() if scores[0].any() and not scores[0].all()}
        title = layout.task_words(task)
        for says, curve, names in (
            ("ROC curve", _roc, ("false alarms (1 − specificity)", "sensitivity")),
            ("calibration", _calibration, ("probability told", "share that have it")),
        ):
            curves = {arm: list(curve(*scores)) for arm, scores in found.items()}
            drawn.append(_chart(f"{title}: {says}", charts.line_chart(curves, *names, diagonal=True)))
    return [chart for chart in drawn if chart["svg"]]


def _chart(name: str, svg: Markup) -> Chart:
    return {"name": name, "svg": svg}


def _roc(truth: np.ndarray, score: np.ndarray) -> Iterator[tuple[float, float]]:
    """Sensitivity that is reached with no more than each rate of false alarms."""
    false_positives, true_positives, _ = roc_curve(truth, score, drop_intermediate=False)
    reached = true_positives[np.searchsorted(false_positives, _RATES, side="right") - 1]
    return zip(_RATES.tolist(), reached.tolist(), strict=True)


def _calibration(truth: np.ndarray, score: np.ndarray) -> Iterator[tuple[float, float]]:
    """Mean probability and share of positives in groups of images of equal number."""
    share, told = calibration_curve(truth, score.clip(0, 1), n_bins=_GROUPS, strategy="quantile")
    return zip(told.tolist(), share.tolist(), strict=True)
