"""Figures of the assessment."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from retinalogos.figures import REAL, SYNTHETIC, save
from retinalogos.metrics.assessment import Pair
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.observation import TASKS, Observed

THRESHOLD = "#333333"


def _image(axes: Axes, image: np.ndarray | None, title: str = "") -> None:
    axes.set_axis_off()
    if image is not None:
        axes.imshow(image, interpolation="none")
    if title:
        axes.set_title(title, fontsize=7)


def closest_pairs(path: Path, synthetic: list[Pair], real: list[Pair], images: dict[str, np.ndarray]) -> str:
    """A row per rank: synthetic image, its nearest training image; real test image, its nearest training image."""
    rows = max(len(synthetic), len(real))
    figure = Figure(figsize=(7, 1.75 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, 4, squeeze=False)
    heads = ("synthetic", "nearest training image", "real test image", "nearest training image")
    for row, axes in enumerate(grid):
        pairs = (synthetic[row] if row < len(synthetic) else None, real[row] if row < len(real) else None)
        for side, pair in enumerate(pairs):
            for column, image_id in enumerate((pair.image_id, pair.train_id) if pair else (None, None)):
                title = heads[2 * side + column] if row == 0 else ""
                if pair and column == 1:
                    title += f"\n{pair.space}: {pair.ratio:.2f} × threshold"
                _image(axes[2 * side + column], images[image_id] if image_id else None, title.strip())
    return save(figure, path)


def class_grid(path: Path, groups: list[tuple[str, list[np.ndarray], list[np.ndarray]]], columns: int) -> str:
    """A row per class: at most ``columns`` real images on the left, as many synthetic ones on the right."""
    shape = next(image.shape for _, *sides in groups for side in sides for image in side)
    side = shape[0]
    figure = Figure(figsize=(2 * columns + 0.6, len(groups) + 0.3), layout="constrained")
    for half, (axes, head) in enumerate(zip(figure.subplots(1, 2), ("real", "synthetic"), strict=True)):
        mosaic = np.full((side * len(groups), side * columns, 3), 255, np.uint8)
        for row, (_, *sides) in enumerate(groups):
            for column, image in enumerate(sides[half]):
                mosaic[row * side : (row + 1) * side, column * side : (column + 1) * side] = image
        axes.imshow(mosaic, interpolation="none")
        axes.set_title(head, fontsize=9)
        names = [name for name, *_ in groups] if half == 0 else []
        axes.set_yticks([(row + 0.5) * side for row in range(len(names))], names, fontsize=8, rotation=90, va="center")
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return save(figure, path)


def counterfactuals(path: Path, rows: list[tuple[str, np.ndarray]], columns: int) -> str:
    """A column per eye (at most ``columns``), a row per version: as asked, one attribute changed, another seed."""
    shown = [(name, images[:columns]) for name, images in rows]
    count = len(shown[0][1])
    figure = Figure(figsize=(1.3 * count + 0.5, 1.3 * len(shown) + 0.1), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.concatenate([np.concatenate(list(images), axis=1) for _, images in shown]), interpolation="none")
    side = shown[0][1].shape[1]
    axes.set_yticks([(row + 0.5) * side for row in range(len(shown))], [name for name, _ in shown], fontsize=7)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return save(figure, path)


def _bar(axes: Axes, at: int, estimate: Estimate, colour: str) -> None:
    axes.bar(at, estimate.value, color=colour, width=0.7)
    if estimate.low is not None and estimate.high is not None:
        axes.vlines(at, estimate.low, estimate.high, color=THRESHOLD, lw=1.2)


def realism(path: Path, results: dict[str, Any], space: str) -> str:
    """Fréchet and kernel distance of synthetic and of other real images, to the training and the test images."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("frechet", "kernel"), strict=True):
        ticks = []
        for at, (reference, result) in enumerate(results.items()):
            _bar(axes, 3 * at, result[kind]["floor"], REAL)
            _bar(axes, 3 * at + 1, result[kind]["synthetic"], SYNTHETIC)
            ticks += [(3 * at, f"real to\n{reference}"), (3 * at + 1, f"synthetic\nto {reference}")]
        axes.set_xticks([t for t, _ in ticks], [name for _, name in ticks], fontsize=7)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_title({"frechet": "Fréchet distance", "kernel": "kernel distance (MMD²)"}[kind], fontsize=9)
    figure.suptitle(f"Distances in the feature space {space!r}, 95 % intervals", fontsize=9)
    return save(figure, path)


def sample_size(path: Path, results: dict[str, Any]) -> str:
    """Fréchet distance by 1/n with the line prolonged to no end of images, to the training and the test images."""
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    for axes, (reference, result) in zip(figure.subplots(1, 2), results.items(), strict=True):
        for kind, colour, name in (("floor", REAL, "real images"), ("synthetic", SYNTHETIC, "synthetic images")):
            curve, end = result["frechet_by_size"][kind], result["frechet_infinity"][kind]
            inverse = 1 / np.array(curve["sizes"])
            slope = np.polyfit(inverse, curve["values"], 1)[0]
            axes.plot(inverse, curve["values"], "o", color=colour, ms=3.5, label=name)
            axes.plot([0, inverse[0]], [end.value, end.value + slope * inverse[0]], color=colour, lw=1)
            if end.low is not None and end.high is not None:
                axes.vlines(0, end.low, end.high, color=colour, lw=1.2)
        axes.set_xlabel("1 / number of images", fontsize=8)
        axes.set_title(f"Fréchet distance to the {reference} images", fontsize=9)
        axes.axhline(0, color="black", lw=0.6)
        axes.legend(fontsize=7)
    return save(figure, path)


def memorisation(path: Path, distances: dict[str, dict[str, np.ndarray]]) -> str:
    """Relative distance to the nearest training image: synthetic against real test images, with the threshold."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (space, values) in zip(
        figure.subplots(1, len(distances), squeeze=False)[0], distances.items(), strict=True
    ):
        low, high = min(v.min() for v in values.values()), max(v.max() for v in values.values())
        bins = np.linspace(min(low, 0.0), high if high > low else low + 1, 41)
        for name, colour in (("test", REAL), ("synthetic", SYNTHETIC)):
            share = np.full(len(values[name]), 1 / len(values[name]))
            label = "real test images" if name == "test" else "synthetic images"
            axes.hist(values[name], bins, weights=share, color=colour, alpha=0.6, label=label)
        axes.axvline(float(values["threshold"][0]), color=THRESHOLD, ls="--", lw=1, label="threshold")
        axes.set_title(space, fontsize=9)
        axes.set_xlabel("distance to the nearest training image,\nrelative to the next nearest", fontsize=8)
        axes.set_ylabel("share of images", fontsize=8)
        axes.legend(fontsize=7)
    return save(figure, path)


def confusions(path: Path, synthetic: dict[str, Any], real: dict[str, Any]) -> str:
    """Asked (rows) against seen by the judge (columns), in shares of the row: synthetic above, real test below."""
    tasks = [task for task in synthetic if task in TASKS]
    figure = Figure(figsize=(2.5 * len(tasks) + 0.4, 5), layout="constrained")
    for row, (who, results) in enumerate((("synthetic", synthetic), ("real test", real))):
        for column, task in enumerate(tasks):
            axes = figure.add_subplot(2, len(tasks), row * len(tasks) + column + 1)
            if task not in results:
                axes.set_axis_off()
                continue
            counts = np.array(results[task]["confusion"], float)
            share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
            for (i, j), value in np.ndenumerate(share):
                shade = "white" if value > 0.6 else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=shade)
            names = TASKS[task]
            axes.set_xticks(range(len(names)), names, fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7)
            axes.set_xlabel("seen by the judge", fontsize=7)
            axes.set_ylabel("asked for" if row == 0 else "recorded", fontsize=7)
            axes.set_title(f"{who}: {task}", fontsize=8)
    return save(figure, path)


def grade_curves(path: Path, judged: dict[str, Any]) -> str | None:
    """Mean grade that the judge expects by grade asked for, or recorded; None where it knows no grades."""
    curves = {name: results.get("dr_grade", {}).get("curve", {}) for name, results in judged.items()}
    if not any(curves.values()):
        return None
    figure = Figure(figsize=(3.4, 3), layout="constrained")
    axes = figure.subplots()
    for name, colour in (("real", REAL), ("synthetic", SYNTHETIC)):
        curve = curves[name]
        grades = [int(key.removeprefix("grade_")) for key in curve]
        axes.plot(grades, [found.value for found in curve.values()], "o-", color=colour, ms=4, lw=1.2, label=name)
        for grade, found in zip(grades, curve.values(), strict=True):
            if found.low is not None and found.high is not None:
                axes.vlines(grade, found.low, found.high, color=colour, lw=1.2)
    last = len(TASKS["dr_grade"]) - 1
    axes.plot([0, last], [0, last], color=THRESHOLD, lw=0.8, ls="--")
    axes.set_xlabel("DR grade asked for, or recorded", fontsize=8)
    axes.set_ylabel("mean grade seen by the judge", fontsize=8)
    axes.legend(fontsize=7)
    return save(figure, path)


def measurements(path: Path, synthetic: Observed, real: Observed) -> str:
    """Measured cup-to-disc ratio against the one asked for, and lesion load by grade, of phantom eyes."""
    figure = Figure(figsize=(6.4, 3), layout="constrained")
    ratio, load = figure.subplots(1, 2)
    for side, (observed, colour, name) in enumerate(((real, REAL, "real test"), (synthetic, SYNTHETIC, "synthetic"))):
        if observed.measured is None:
            continue
        ratio.scatter(observed.asked.vcdr, observed.measured.vcdr, s=6, color=colour, alpha=0.6, lw=0, label=name)
        grades = observed.asked.codes["dr_grade"]
        for grade in range(len(TASKS["dr_grade"])):
            values = observed.measured.load[(grades == grade) & np.isfinite(observed.measured.load)]
            if len(values):
                load.boxplot(
                    100 * values,
                    positions=[grade + 0.36 * side - 0.18],
                    widths=0.3,
                    showfliers=False,
                    manage_ticks=False,
                    boxprops={"color": colour},
                    medianprops={"color": colour},
                )
    ratio.plot([0, 1], [0, 1], color=THRESHOLD, lw=0.8)
    ratio.set(xlim=(0, 1), ylim=(0, 1))
    ratio.set_xlabel("vertical cup-to-disc ratio asked for", fontsize=8)
    ratio.set_ylabel("measured", fontsize=8)
    ratio.legend(fontsize=7)
    load.set_xticks(range(len(TASKS["dr_grade"])))
    load.set_xlabel("grade asked for", fontsize=8)
    load.set_ylabel("lesion load measured, % of the field", fontsize=8)
    return save(figure, path)
