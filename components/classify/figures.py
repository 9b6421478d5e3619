"""Figures of the comparison."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from retinalogos.classifiers.experiment import PRIMARY, TASKS
from retinalogos.classifiers.mixes import parse, words
from retinalogos.figures import REAL, SYNTHETIC, save
from retinalogos.metrics.intervals import Estimate
from retinalogos.segmenters import experiment as segmenters

TITLES = {
    "dr_grade": "DR grade",
    "referable_dr": "referable DR",
    "glaucoma": "glaucoma",
    "findings": "findings (mean)",
    "vessels": "vessels",
    "lesions": "lesions (mean)",
    "disc_cup": "disc and cup (mean)",
}
MERITS = {"auc": "AUC", "qwk": "weighted kappa", "dice": "Dice"}
SHORT = {"dr_grade": tuple("01234"), "referable_dr": TASKS["referable_dr"], "glaucoma": TASKS["glaucoma"]}
# Confusion matrices beside each other: as many as one reads.
_COLUMNS = 4


def primary(task: str) -> str:
    """The figure by which mixes are compared."""
    return PRIMARY.get(task, segmenters.PRIMARY)


def dots(path: Path, tasks: Mapping[str, Mapping[str, Estimate]], place: str, zero: bool = False) -> str:
    """A column for each task with the figure by which mixes are compared, a row for each mix: a dot with its interval.

    With ``zero`` the figures are differences to the mix's reference, and a line stands where there is none.
    """
    arms = list(dict.fromkeys(arm for of_arm in tasks.values() for arm in of_arm))
    figure = Figure(figsize=(2.2 + 2.1 * len(tasks), 1.0 + 0.24 * len(arms)), layout="constrained")
    columns = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, (task, of_arm) in zip(columns, tasks.items(), strict=True):
        for arm, estimate in of_arm.items():
            row, colour = arms.index(arm), SYNTHETIC if parse(arm).has_synthetic else REAL
            axes.plot(estimate.value, row, "o", ms=4, color=colour)
            if estimate.low is not None and estimate.high is not None:
                axes.hlines(row, estimate.low, estimate.high, color=colour, lw=1.6)
        if zero:
            axes.axvline(0, color="black", lw=0.8)
        axes.set_title(f"{TITLES[task]}: {MERITS[primary(task)]}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(axis="x", color="#dddddd", lw=0.5)
    columns[0].set_yticks(range(len(arms)), [words(arm) for arm in arms], fontsize=8)
    columns[0].invert_yaxis()
    kind = "differences to what each is compared with" if zero else "figures"
    eyes = "real test eyes" if place == "test" else f"eyes of {place}"
    figure.suptitle(f"{eyes}: {kind}, 95 % intervals", fontsize=9)
    return save(figure, path)


def confusions(path: Path, task: str, arms: Mapping[str, np.ndarray]) -> str:
    """Truth (rows) against decision (columns) of every arm: shares of the row as shade, counts over seeds as number."""
    names = SHORT[task]
    columns = min(len(arms), _COLUMNS)
    rows = -(-len(arms) // columns)
    figure = Figure(figsize=(2.4 * columns + 0.4, 2.9 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places[len(arms) :]:
        axes.set_visible(False)
    for axes, (arm, counts) in zip(places, arms.items(), strict=False):
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if share[i, j] > 0.6 else "black"
            axes.text(j, i, f"{count:.0f}", ha="center", va="center", fontsize=7, color=colour)
        axes.set_xticks(range(len(names)), names, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel("decision", fontsize=7)
        axes.set_title(words(arm), fontsize=8)
    figure.axes[0].set_ylabel(f"{TITLES[task]}: truth", fontsize=7)
    return save(figure, path)
