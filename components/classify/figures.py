"""Pictures of the comparison. The same numbers give the same bytes: no dates and no program versions in the PNGs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from retinalogos.classifiers.experiment import REAL, TASKS
from retinalogos.metrics.intervals import Estimate

COLOURS = ("#4c6a92", "#e0a458", "#d1772f", "#8c4a1f", "#6b8f71", "#7d5a80")
DPI = 100
Figures = Mapping[str, Mapping[str, Estimate]]

TITLES = {
    "dr_grade": "grade of diabetic retinopathy",
    "glaucoma": "glaucoma",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "qwk": "weighted kappa",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
SHORT = {"dr_grade": tuple("01234"), "glaucoma": TASKS["glaucoma"]}


def _save(figure: Figure, path: Path) -> str:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return path.name


def words(arm: str) -> str:
    """Name of an arm as a reader would say it."""
    if arm.startswith(f"{REAL}_plus_"):
        return f"real + {arm.rpartition('_')[2]} % of the synthetic"
    return f"{arm} only"


def bars(path: Path, task: str, arms: Figures) -> str:
    """A group of bars per figure, a bar with its interval per arm."""
    names = list(next(iter(arms.values())))
    figure = Figure(figsize=(1.5 * len(names) + 1.6, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(arms)
    for index, (arm, estimates) in enumerate(arms.items()):
        for at, name in enumerate(names):
            estimate, x = estimates[name], at + (index - (len(arms) - 1) / 2) * width
            label = words(arm) if at == 0 else None
            axes.bar(x, np.nan_to_num(estimate.value), width * 0.95, color=COLOURS[index % len(COLOURS)], label=label)
            if estimate.low is not None and estimate.high is not None:
                axes.vlines(x, estimate.low, estimate.high, color="#333333", lw=1.2)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(range(len(names)), [TITLES[name] for name in names], fontsize=8)
    axes.set_title(f"{TITLES[task]}: real test eyes, 95 % intervals", fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return _save(figure, path)


def differences(path: Path, task: str, arms: Figures) -> str:
    """Every figure minus that of training on real images only, with the interval of the paired difference."""
    names = list(next(iter(arms.values())))
    figure = Figure(figsize=(6.4, 0.32 * len(names) * (len(arms) + 0.6) + 1.2), layout="constrained")
    axes = figure.subplots()
    for index, (arm, estimates) in enumerate(arms.items()):
        for at, name in enumerate(names):
            estimate, y = estimates[name], at + 0.7 * ((index + 0.5) / len(arms) - 0.5)
            colour = COLOURS[(index + 1) % len(COLOURS)]
            axes.plot(estimate.value, y, "o", ms=4, color=colour, label=words(arm) if at == 0 else None)
            if estimate.low is not None and estimate.high is not None:
                axes.hlines(y, estimate.low, estimate.high, color=colour, lw=1.6)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(names)), [TITLES[name] for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("difference to real images only (right: better)", fontsize=8)
    axes.set_title(TITLES[task], fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return _save(figure, path)


def confusions(path: Path, task: str, arms: Mapping[str, np.ndarray]) -> str:
    """Truth (rows) against decision (columns) of every arm: shares of the row as shade, counts over seeds as number."""
    names = SHORT[task]
    figure = Figure(figsize=(2.4 * len(arms) + 0.4, 2.9), layout="constrained")
    for axes, (arm, counts) in zip(figure.subplots(1, len(arms), squeeze=False)[0], arms.items(), strict=True):
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
    return _save(figure, path)
