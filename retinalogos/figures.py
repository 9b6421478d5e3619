"""Figures as PNGs. The same numbers give the same bytes: no dates and no program versions in the files."""

from pathlib import Path

from matplotlib.figure import Figure

# Colours of real images, and of synthetic ones.
REAL, SYNTHETIC = "#4c6a92", "#d1772f"
_DPI = 100


def save(figure: Figure, path: Path) -> str:
    """Writes a figure and returns its file name."""
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
    return path.name
