"""The commands ``retinalogos hyperspectral generate`` and ``show``."""

import argparse
from pathlib import Path

import numpy as np

from retinalogos.arguments import Commands, Find, Parser, at_least, number_from, output_folder
from retinalogos.errors import UsageError
from retinalogos.provenance import NOTICE, append_records, page_notice, write_png
from retinalogos.registry import check_kind

MILLISECONDS = 180  # of a band in a sweep

_GENERATE = """\
Draws hyperspectral cubes and writes, into --out:

  cube-seed<seed>.npz   `cube` (uint16, bands × height × width; 65535 is a reflectance of 1), `wavelengths` in nm, and
                        `provenance` (JSON)
  cube-seed<seed>.png   its rendering in colour, with its provenance in its text chunks
  index.jsonl           the same provenance, one line per cube

The same command gives the same cubes again; a cube drawn with others differs by rounding alone.

example:
  retinalogos hyperspectral generate --n 4 --seed 1 --out out/
"""

_SHOW = """\
Shows a cube: its rendering in colour, single bands, the sweep through its bands as a GIF, and the spectrum at points.
A cube is a file (.hdr of ENVI, .tif, .h5, .npz) or a place in a cohort (FOLDER:NUMBER, from 0).

example:
  retinalogos hyperspectral show data/hyperspectral/cohort:0 --against data/hyperspectral/synthetic:0 \\
      --at 0.5 0.5 --out out/
"""


def add_commands(commands: Commands, find: Find, models: str) -> None:
    """Adds `hyperspectral` with its two commands.

    Args:
        commands: to add to.
        find: finds the generator.
        models: what --model may be, for --help.
    """
    hyperspectral: Parser = commands.add_parser("hyperspectral", help="draw and show hyperspectral cubes")
    own = hyperspectral.add_subparsers(dest="hyperspectral", required=True, metavar="COMMAND")
    generate = own.add_parser("generate", help="draw cubes", description=_GENERATE, epilog=NOTICE)
    generate.add_argument("--model", metavar="DIR_OR_URI", help=models)
    generate.add_argument("--n", type=at_least(1), default=1, help="cubes (default 1)")
    generate.add_argument("--seed", type=at_least(0), default=0, help="seed of the first cube (default 0)")
    generate.add_argument("--steps", type=at_least(1), help="network evaluations (default: the generator's own)")
    generate.add_argument("--size", type=at_least(16), help="pixels (default: its own; with a prior no other)")
    generate.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="folder to write to")
    generate.set_defaults(run=_generate, find=find)
    show = own.add_parser("show", help="pictures and spectra of a cube", description=_SHOW, epilog=NOTICE)
    show.add_argument("cube", metavar="CUBE", help="file, or FOLDER:NUMBER of a cohort")
    show.add_argument("--against", metavar="CUBE", help="a second cube, whose spectra are drawn beside")
    show.add_argument(
        "--at",
        type=number_from(0, 1),
        nargs=2,
        action="append",
        metavar=("X", "Y"),
        help="point of a spectrum, as shares of width and height from the upper left; several may be given",
    )
    show.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="folder to write to")
    show.set_defaults(run=_show)


def _generate(arguments: argparse.Namespace) -> None:
    from retinalogos.generators.hyperspectral.drawn import Provenance, provenance, write_cube
    from retinalogos.generators.hyperspectral.pipeline import CubePipeline
    from retinalogos.provenance import generator_hash

    folder = arguments.find(arguments.model)
    check_kind(folder, CubePipeline.__name__)
    pipeline = CubePipeline.from_pretrained(folder)
    weights = generator_hash(folder)
    records: list[Provenance] = []
    seeds = range(arguments.seed, arguments.seed + arguments.n)
    for start in range(0, len(seeds), 8):
        some = seeds[start : start + 8]
        drawn = pipeline(seeds=some, steps=arguments.steps, size=arguments.size)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for seed, cube in zip(some, drawn, strict=True):
            name = f"cube-seed{seed}"
            drawn_so = provenance(pipeline, weights, seed, arguments.steps, cube.shape[-1])
            record: Provenance = {"file": f"{name}.npz", **drawn_so}
            write_cube(arguments.out / f"{name}.npz", arguments.out / f"{name}.png", cube, pipeline.wavelengths, record)
            records.append({**record, "synthetic": True})
    append_records(arguments.out / "index.jsonl", records)
    print(f"{len(records)} cubes of {len(pipeline.wavelengths)} bands in {arguments.out}. {NOTICE}")


def _show(arguments: argparse.Namespace) -> None:
    from retinalogos.cohort.cubes import render_rgb
    from retinalogos.generators.hyperspectral.pictures import band_pictures, draw_spectra, write_sweep

    points = arguments.at or [[0.5, 0.5]]
    reflectance, wavelengths, source = _read(arguments.cube)
    # No names of files, which may be those of patients.
    cubes, sources = {"cube": (reflectance, wavelengths)}, {source}
    if arguments.against is not None:
        of_other, wavelengths_of_other, source_of_other = _read(arguments.against)
        cubes["against"] = of_other, wavelengths_of_other
        sources.add(source_of_other)
    notice = page_notice(sources)
    record: dict[str, str | int | float | None] = {
        "notice": notice,
        "synthetic": "true" if sources <= {"phantom", "phantom_cubes", "synthetic"} else None,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_png(arguments.out / "colour.png", render_rgb(reflectance, wavelengths), record)
    bands = band_pictures(reflectance)
    for picture, nm in zip(bands, wavelengths, strict=True):
        write_png(arguments.out / f"band-{nm:g}nm.png", picture, record)
    write_sweep(arguments.out / "sweep.gif", bands, wavelengths, MILLISECONDS, notice)
    draw_spectra(arguments.out / "spectra.png", cubes, points)
    print(f"colour.png, {len(bands)} bands, sweep.gif and spectra.png in {arguments.out}. {notice}")


def _read(name: str) -> tuple[np.ndarray, list[float], str]:
    """Reflectance, wavelengths and source of a file, or of a row of a cohort.

    Raises:
        UsageError: there is no such cube, or it cannot be shown.
    """
    from itertools import islice

    from retinalogos.cohort.cubes import check_spectra
    from retinalogos.cohort.picture import UnusableImage
    from retinalogos.cohort.readers.cubes import read_cube
    from retinalogos.cohort.shards import Cohort

    folder, colon, number = name.rpartition(":")
    if colon and number.isdecimal():
        found = next(islice(Cohort(folder).cubes(("source",)), int(number), None), None)
        if found is None:
            raise UsageError(f"{folder} has no cube number {number}")
        return found[1].reflectance, list(found[1].wavelengths), found[0]["source"]
    if not Path(name).is_file():
        raise UsageError(f"{name} is neither a file nor FOLDER:NUMBER of a cohort")
    try:
        reflectance, wavelengths = read_cube(Path(name))
        check_spectra(reflectance, wavelengths)
    except UnusableImage as error:
        raise UsageError(f"{name}: {error.reason} ({error.detail})") from None
    assert wavelengths is not None
    # What `generate` wrote says so; any other file is taken for a patient's.
    drawn = name.endswith(".npz") and "provenance" in np.load(name)
    return reflectance, list(wavelengths), "synthetic" if drawn else "cubes"
