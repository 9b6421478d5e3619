"""Picture of the anatomy of drawn vessels beside real ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from retinalogos.figures import REAL, SYNTHETIC, save

_ROWS = (("real", REAL), ("synthetic", SYNTHETIC))
_COLUMNS = 4


def intervals(path: Path, compared: Mapping[str, Mapping[str, Any]]) -> None:
    """A panel for each figure that is defined: means of real and of drawn eyes with their 95 % intervals."""
    shown = {name: found for name, found in compared.items() if all(found[side].n for side, _ in _ROWS)}
    rows = max(1, -(-len(shown) // _COLUMNS))
    figure = Figure(figsize=(2.6 * _COLUMNS, 1.0 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, (name, found) in zip(panels, shown.items(), strict=False):
        for place, (side, colour) in enumerate(_ROWS):
            estimate = found[side]
            axes.plot(estimate.value, place, "o", ms=4, color=colour)
            if estimate.low is not None and estimate.high is not None:
                axes.hlines(place, estimate.low, estimate.high, color=colour, lw=1.6)
        axes.set_yticks(range(len(_ROWS)), [side for side, _ in _ROWS], fontsize=7)
        axes.set_ylim(len(_ROWS) - 0.5, -0.5)
        axes.tick_params(labelsize=7)
        axes.set_title(name.replace("_", " "), fontsize=8)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    save(figure, path)
