"""The command ``retinalogos lesion-map``: draw maps by grade, turn maps into photographs, an empty map to draw on."""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from retinalogos.arguments import Commands, Find, Parser, at_least, number_from, output_folder
from retinalogos.contact_sheet import make_sheet
from retinalogos.errors import UsageError
from retinalogos.provenance import NOTICE, append_records, generator_hash, software, write_png
from retinalogos.registry import check_kind

if TYPE_CHECKING:
    from torch import Tensor

    from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline

# pyarrow, OpenCV and torch are imported where they are needed: --help should not wait for them.

# Pixels: a tenth of a picture of 64.
_MARGIN = 6
# No fundus camera has more pixels a side, and an empty map of them takes 0.7 GB while it is drawn.
_LARGEST = 8192
# The name of a patient's file stays out of what is drawn.
_OF_A_PHOTOGRAPH = "of a photograph"

_GENERATE = """\
Draws lesion maps of an ICDR grade and their photographs. Into --out go, for each seed:

  grade-<grade>-<settings>-seed<seed>-map.png    the map, which can be edited and rendered again
  grade-<grade>-<settings>-seed<seed>.png        the photograph, with its provenance in its text chunks
  index.jsonl, contact_sheet.png                 all of them

Another truncation, style or generator gives other names. A map there that was edited is never written over.

examples:
  retinalogos lesion-map generate --grade 3 --n 8 --out out/
  retinalogos lesion-map generate --grade 3 --n 8 --style ref.jpg --out out/
"""

_RENDER = """\
Turns a map, drawn or generated, into a photograph: in a style drawn from --seed, or in that of a photograph. Into
--out goes <map>-rendered-<settings>.png; another map, seed, style or margin gives another name. With --before, the map
as it was before it was edited, the picture stays bit for bit what it was but near the edit: give the --seed or the
--style that it was rendered with, of a generated map the seed in its name.

examples:
  retinalogos lesion-map render map.png --style ref.jpg --out out/
  retinalogos lesion-map render edited.png --before map.png --seed 4 --out out/
"""

_TEMPLATE = """\
Writes an empty map to draw on, and prints the colours. Draw without smoothing and save as PNG, mode RGB.

example:
  retinalogos lesion-map template --size 256 --out map.png
"""


_JOIN = """\
Makes a map of separate masks, one a class, as data sets publish them: what is not black in a mask has its class. VB,
the whole field of view, is needed. Where masks overlap the smaller one lies on top.

example:
  retinalogos lesion-map join VB=field.png EX=exudates.png HE=blood.png OD=disc.png --size 64 --out map.png
"""

_SPLIT = """\
Writes one mask a class of a map, white where the class is; VB.png is the whole field of view, as `join` takes it.

example:
  retinalogos lesion-map split map.png --out masks/
"""


def add_commands(commands: Commands, find: Find, models: str) -> None:
    """Adds ``lesion-map`` to the commands of ``retinalogos``.

    Args:
        commands: to add to.
        find: finds the generator.
        models: what --model may be, for --help.
    """
    own = commands.add_parser("lesion-map", help="photographs from lesion maps", epilog=NOTICE)
    parts = own.add_subparsers(dest="part", required=True)

    def part(name: str, text: str, run: Callable[[argparse.Namespace], None], about: str) -> Parser:
        parser: Parser = parts.add_parser(name, help=about, description=text, epilog=NOTICE)
        parser.set_defaults(run=run)
        return parser

    generate = part("generate", _GENERATE, _generate, "draw maps of a grade and their photographs")
    generate.add_argument("--grade", type=int, required=True, help="ICDR grade, 0 to 4")
    generate.add_argument("--n", type=at_least(1), default=1, help="how many (default 1)")
    generate.add_argument(
        "--seed", type=at_least(0), default=0, help="of the first; the next have the next (default 0)"
    )
    generate.add_argument(
        "--truncation", type=number_from(0, 1), default=1.0, help="1 as drawn, 0 the usual map (default 1)"
    )
    render = part("render", _RENDER, _render, "turn a map into a photograph")
    render.add_argument("map", type=Path, metavar="MAP", help="PNG in the colours that `template` prints")
    render.add_argument("--seed", type=at_least(0), default=0, help="of the style where none is given (default 0)")
    render.add_argument("--before", type=Path, metavar="MAP", help="the map before it was edited")
    render.add_argument("--margin", type=at_least(0), help=f"with --before: pixels around the edit (default {_MARGIN})")
    for each in (generate, render):
        each.add_argument(
            "--style", type=Path, metavar="PHOTOGRAPH", help="fundus photograph whose tone and light are taken over"
        )
        each.add_argument("--out", type=output_folder, required=True, help="folder")
    template = part("template", _TEMPLATE, _template, "an empty map to draw on")
    template.add_argument(
        "--size", type=at_least(16, _LARGEST), help="pixels of the side (default: that of the renderer)"
    )
    template.add_argument("--out", type=Path, required=True, help="PNG file")
    join = part("join", _JOIN, _join, "a map of separate masks")
    join.add_argument("masks", nargs="+", metavar="CLASS=PICTURE", help="BG, EX, HE, SE, MA, OD or VB, and its mask")
    join.add_argument(
        "--size", type=at_least(16, _LARGEST), help="pixels of the map's side (default: that of the masks)"
    )
    join.add_argument("--out", type=Path, required=True, help="PNG file")
    split = part("split", _SPLIT, _split, "separate masks of a map")
    split.add_argument("map", type=Path, metavar="MAP", help="PNG in the colours that `template` prints")
    split.add_argument("--out", type=output_folder, required=True, help="folder")
    for each in (generate, render, template):
        each.add_argument("--model", metavar="DIR_OR_URI", help=models)
        each.set_defaults(find=find)


def _load(arguments: argparse.Namespace) -> tuple["LesionMapPipeline", dict[str, str]]:
    """The networks, and what provenance says of them."""
    from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline

    folder = arguments.find(arguments.model)
    check_kind(folder, LesionMapPipeline.__name__)
    pipeline = LesionMapPipeline.from_pretrained(folder)
    return pipeline, {"generator": type(pipeline).__name__, "generator_sha256": generator_hash(folder)}


def _generate(arguments: argparse.Namespace) -> None:
    from retinalogos.generators.lesion_map import maps

    pipeline, generator = _load(arguments)
    style = None if arguments.style is None else _style_of(arguments.style, pipeline)
    seeds = [arguments.seed + number for number in range(arguments.n)]
    drawn = pipeline.draw([arguments.grade] * len(seeds), seeds, arguments.truncation)
    images = (
        pipeline.render(drawn, seeds) if style is None else pipeline.render(drawn, styles=style.expand(len(seeds), -1))
    )
    settings = _settings(generator["generator_sha256"], arguments.truncation, _hash_of(arguments.style))
    names = [f"grade-{arguments.grade}-{settings}-seed{seed}" for seed in seeds]
    for name, classes in zip(names, drawn, strict=True):
        _check_unedited(arguments.out / f"{name}-map.png", maps.to_rgb(classes))
    if style is not None:
        generator["style"] = _OF_A_PHOTOGRAPH
    shown, labels, records = [], [], []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed, name, classes, image in zip(seeds, names, drawn, images, strict=True):
        record = {"grade": arguments.grade, "seed": seed, "truncation": arguments.truncation, **generator}
        for file, picture in ((f"{name}-map.png", maps.to_rgb(classes)), (f"{name}.png", image)):
            write_png(arguments.out / file, picture, record)
            records.append({"file": file, "synthetic": True, "notice": NOTICE, "software": software(), **record})
            shown.append(picture)
            labels.append(f"grade {arguments.grade}, seed {seed}")
    append_records(arguments.out / "index.jsonl", records)
    write_png(arguments.out / "contact_sheet.png", make_sheet(shown, labels, 8), generator)
    print(f"{len(seeds)} maps with their photographs in {arguments.out}. {NOTICE}")


def _settings(*values: object) -> str:
    """A short name for what was asked for beside grade and seed, so that nothing else takes a file's place."""
    return hashlib.sha256(json.dumps([str(value) for value in values]).encode()).hexdigest()[:8]


def _hash_of(style: Path | None) -> str | None:
    return None if style is None else hashlib.sha256(style.read_bytes()).hexdigest()


def _check_unedited(path: Path, colours: np.ndarray) -> None:
    """Refuses to write over a map on which somebody drew."""
    if not path.exists():
        return
    try:
        with Image.open(path) as there:
            same = there.mode == "RGB" and np.array_equal(np.asarray(there), colours)
    except (OSError, SyntaxError, ValueError):
        same = False
    if not same:
        raise UsageError(
            f"{path} is there with other pixels than would be written, as if it was drawn on: "
            "give another --out, or move it away"
        )


def _render(arguments: argparse.Namespace) -> None:
    from retinalogos.generators.lesion_map import maps

    if arguments.before is None and arguments.margin is not None:
        raise UsageError("--margin is around an edit: give --before, the map before it was edited, too")
    margin = _MARGIN if arguments.margin is None else arguments.margin
    pipeline, generator = _load(arguments)
    classes = maps.read_drawn(arguments.map, pipeline.size)
    record: dict[str, str | int | float | None] = {"map": json.dumps(_shares(classes)), **generator}
    if arguments.style is None:
        style = pipeline.styles([arguments.seed])
        record["seed"] = arguments.seed
    else:
        style = _style_of(arguments.style, pipeline)
        record["style"] = _OF_A_PHOTOGRAPH
    if arguments.before is None:
        image, edit = pipeline.render(classes[None], styles=style)[0], None
    else:
        before = maps.read_drawn(arguments.before, pipeline.size)
        if (before == classes).all():
            raise UsageError(
                f"--before {arguments.before} has the same map as {arguments.map}, so nothing was edited: "
                "give the map before the edit, or leave out --before"
            )
        old = pipeline.render(before[None], styles=style)[0]
        image = pipeline.edit(old, before, classes, style, margin)
        edit = [hashlib.sha256(before.tobytes()).hexdigest(), margin]
        record["edited"] = f"{int((before != classes).sum())} pixels of the map"
    arguments.out.mkdir(parents=True, exist_ok=True)
    style_of = arguments.seed if arguments.style is None else _hash_of(arguments.style)
    drawn = hashlib.sha256(classes.tobytes()).hexdigest()
    settings = _settings(generator["generator_sha256"], drawn, style_of, edit)
    path = arguments.out / f"{arguments.map.stem}-rendered-{settings}.png"
    write_png(path, image, record)
    entry = {"file": path.name, "synthetic": True, "notice": NOTICE, "software": software(), **record}
    append_records(arguments.out / "index.jsonl", [entry])
    print(f"{path}. {NOTICE}")


def _shares(classes: np.ndarray) -> dict[str, float]:
    """Share of the field of each class that a map has, for its provenance."""
    from retinalogos.generators.lesion_map import maps

    field = max(1, int((classes != maps.BG).sum()))
    present = [c for c in (*maps.LESIONS, maps.OD) if (classes == c).any()]
    return {maps.CLASSES[c]: round(float((classes == c).sum()) / field, 5) for c in present}


def _style_of(path: Path, pipeline: "LesionMapPipeline") -> "Tensor":
    """The style 1×latent of a photograph, which is cut to its field of view as `ingest` does."""
    from retinalogos.cohort.field_of_view import find_field, place, square_image
    from retinalogos.cohort.picture import UnusableImage, check_visible, open_photograph

    try:
        image = open_photograph(path).pixels()
        check_visible(image)
    except UnusableImage as error:
        raise UsageError(f"--style {path} cannot be used as a picture: {error} ({error.detail})") from None
    frame = find_field(image)
    cut = square_image(image, frame, place(frame, image.shape[1], image.shape[0], pipeline.size))
    return pipeline.style_of(cut[None])


def _template(arguments: argparse.Namespace) -> None:
    from retinalogos.generators.lesion_map import maps

    size = arguments.size
    if size is None:
        from retinalogos.generators.lesion_map.pipeline import RENDER, LesionMapPipeline, load_render

        folder = arguments.find(arguments.model)
        check_kind(folder, LesionMapPipeline.__name__)
        size = load_render(folder / RENDER).config.size
    _write_map(arguments.out, maps.to_rgb(maps.template(size)))
    for short, name, colour in zip(maps.CLASSES, maps.NAMES, maps.COLOURS, strict=True):
        print(f"{short}  #{bytes(colour.tolist()).hex()}  {name}")
    print(f"{arguments.out}: {size} × {size} pixels")


def _write_map(path: Path, colours: np.ndarray) -> None:
    """Never over another file: somebody may have drawn on it."""
    if path.suffix.lower() != ".png":
        raise UsageError(
            f"--out {path} must end in .png: other formats blur or lose the colours, which are read exactly"
        )
    if path.exists():
        raise UsageError(f"--out {path} is there already, and may be drawn on: give another name, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours).save(path, "PNG")


def _join(arguments: argparse.Namespace) -> None:
    from retinalogos.generators.lesion_map import maps

    paths: dict[str, Path] = {}
    for word in arguments.masks:
        name, equals, file = word.partition("=")
        if not (name and equals and file):
            raise UsageError(f"{word!r} is no CLASS=PICTURE, such as EX=exudates.png")
        if name in paths:
            raise UsageError(f"{name} is given twice: {paths[name]} and {file}; join the two pictures first")
        paths[name] = Path(file)
    classes = maps.read_masks(paths, arguments.size)
    if (classes == maps.BG).all():
        raise UsageError(f"VB={paths['VB']} is all black; it must be white where the field of view is")
    _write_map(arguments.out, maps.to_rgb(classes))
    shares = (
        ", ".join(f"{name} {100 * share:.2f} %" for name, share in _shares(classes).items()) or "no lesion, no disc"
    )
    print(f"{arguments.out}: {classes.shape[1]} × {classes.shape[0]} pixels; of the field: {shares}")


def _split(arguments: argparse.Namespace) -> None:
    from retinalogos.generators.lesion_map import maps

    masks = maps.to_masks(maps.read_drawn(arguments.map, None))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(arguments.out / f"{name}.png", "PNG")
    print(f"{len(masks)} masks in {arguments.out}")
