"""Quality against sampling speed, and the points that no other beats in both."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from retinalogos.figures import REAL, SYNTHETIC, save

Point = Mapping[str, float | None]

# What is held against speed, as in the published search, and its name on the plot. Lower is better, but for one.
MEASURES = {
    "fid_structures": "hyperspectral FID (structures)",
    "fid_random_conv": "hyperspectral FID (random convolutions)",
    "divergence_veins": "spectral KL, veins",
    "divergence_arteries": "spectral KL, arteries",
    "divergence_nerve_head": "spectral KL, nerve head",
    "ms_ssim_gap": "|ΔMS-SSIM|",
    "authentic": "share of authentic cubes",
}
_HIGHER_IS_BETTER = ("authentic",)
SPEED = "cubes_per_second"
_COLUMNS = 4


def _worse(point: Point, measure: str) -> float:
    """The measure as something to be small; infinite where it is not defined."""
    value = point[measure]
    if value is None:
        return float("inf")
    return -value if measure in _HIGHER_IS_BETTER else value


def front(points: Sequence[Point], measure: str) -> list[int]:
    """Places of the points that no other beats in both quality and speed, the fastest first."""
    kept: list[int] = []
    order = sorted(range(len(points)), key=lambda place: (-(points[place][SPEED] or 0), _worse(points[place], measure)))
    for place in order:
        if not kept or _worse(points[place], measure) < _worse(points[kept[-1]], measure):
            kept.append(place)
    return kept


def plot(points: Sequence[Point], measures: Sequence[str], path: Path) -> str:
    """Draws a panel for each measure: the points, their front, and what real cubes score."""
    rows = -(-len(measures) // _COLUMNS)
    figure = Figure(figsize=(4.2 * min(_COLUMNS, len(measures)), 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, min(_COLUMNS, len(measures)), squeeze=False).ravel()
    for axes, measure in zip(panels, measures, strict=False):
        for point in points:
            value = point[measure]
            if value is not None:
                axes.plot(point[SPEED], value, "o", ms=4, color=SYNTHETIC)
                label = f"{point['compression']}·{point['latent_channels']}·{point['base_channels']}"
                axes.annotate(label, (point[SPEED], value), fontsize=6, xytext=(3, 3), textcoords="offset points")
        best = [points[place] for place in front(points, measure) if points[place][measure] is not None]
        axes.plot([point[SPEED] for point in best], [point[measure] for point in best], color=SYNTHETIC, lw=1)
        floor = points[0].get(f"{measure}_real")
        if floor is not None:
            axes.axhline(floor, color=REAL, linestyle=":", lw=1)
        axes.set_xscale("log")
        axes.margins(0.2)  # room for the names
        axes.set_title(MEASURES[measure], fontsize=8)
        axes.tick_params(which="both", labelsize=7)
    for axes in panels[len(measures) :]:
        axes.set_axis_off()
    figure.supxlabel("cubes drawn in a second", fontsize=8)
    figure.suptitle("compression · latent channels · base channels; line: Pareto front; dotted: real cubes", fontsize=8)
    return save(figure, path)
