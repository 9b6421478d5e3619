"""Pictures of real and synthetic cubes: in colour, band by band, as a sweep, and as spectra."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from components.judge_cubes.step import FiguresConfig
from retinalogos.classifiers.structures import STRUCTURES
from retinalogos.cohort.cubes import FULL_SCALE, render_rgb
from retinalogos.cohort.shards import Cohort
from retinalogos.contact_sheet import make_sheet
from retinalogos.figures import REAL, SYNTHETIC, save
from retinalogos.generators.hyperspectral.pictures import band_pictures, draw_spectra, write_sweep
from retinalogos.metrics.cubes import CubeSets, structure_spectra
from retinalogos.provenance import write_png


def draw_figures(folder: Path, config: FiguresConfig, sets: CubeSets, synthetic: Cohort) -> dict[str, str]:
    """Writes ``colour.png``, ``bands.png``, ``sweep.gif``, ``points.png`` and, with structures, ``spectra.png``.

    Returns:
        File by what it shows.
    """
    said = {"generator": synthetic.table(("generator",)).to_pylist()[0]["generator"]}
    shown = [("real", cube) for cube in sets.held_out[: config.cubes]]
    shown += [("synthetic", cube) for cube in sets.synthetic[: config.cubes]]
    pictures = [render_rgb(cube / FULL_SCALE, sets.wavelengths) for _, cube in shown]
    columns = min(config.cubes, len(sets.held_out))
    write_png(folder / "colour.png", make_sheet(pictures, [kind for kind, _ in shown], columns), said)
    chosen = np.linspace(0, len(sets.wavelengths) - 1, config.bands).round().astype(int)
    bands, labels = [], []
    for kind, cubes in (("real", sets.held_out), ("synthetic", sets.synthetic)):
        bands += [band_pictures(cubes[0])[band] for band in chosen]
        labels += [f"{kind}, {sets.wavelengths[band]:g} nm" for band in chosen]
    write_png(folder / "bands.png", make_sheet(bands, labels, len(chosen)), said)
    pair = [
        np.concatenate(parts, 1)
        for parts in zip(*(band_pictures(c[0]) for c in (sets.held_out, sets.synthetic)), strict=True)
    ]
    write_sweep(folder / "sweep.gif", pair, sets.wavelengths, config.milliseconds)
    first = {
        kind: (cubes[0] / FULL_SCALE, sets.wavelengths)
        for kind, cubes in (("real", sets.held_out), ("synthetic", sets.synthetic))
    }
    draw_spectra(folder / "points.png", first, config.points)
    names = {"colour": "colour.png", "bands": "bands.png", "sweep": "sweep.gif", "points": "points.png"}
    if sets.synthetic_classes is not None:
        names["spectra"] = _spectra(folder / "spectra.png", sets)
    return names


def _spectra(path: Path, sets: CubeSets) -> str:
    """Mean spectra of each structure, with the middle two thirds of the cubes."""
    figure = Figure(figsize=(4 * len(STRUCTURES), 3.2), layout="constrained")
    for axis, (name, structure) in zip(figure.subplots(1, len(STRUCTURES)), STRUCTURES.items(), strict=True):
        for kind, cubes, classes, colour in (
            ("real", sets.held_out, sets.held_out_classes, REAL),
            ("synthetic", sets.synthetic, sets.synthetic_classes, SYNTHETIC),
        ):
            spectra = structure_spectra(cubes, classes, structure, sets.seed)
            if spectra:
                means = np.stack([pixels.mean(0) for pixels in spectra])
                low, middle, high = np.quantile(means, (1 / 6, 0.5, 5 / 6), axis=0)
                axis.plot(sets.wavelengths, middle, color=colour, label=kind)
                axis.fill_between(sets.wavelengths, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set(title=name.replace("_", " "), xlabel="wavelength, nm", ylabel="reflectance")
        if axis.lines:
            axis.legend(frameon=False)
        else:
            axis.set(xticks=[], yticks=[], xlabel="", ylabel="")
            axis.text(0.5, 0.5, "none was found", ha="center", transform=axis.transAxes)
    return save(figure, path)
