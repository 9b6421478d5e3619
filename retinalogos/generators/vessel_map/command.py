"""The command ``retinalogos vessel-map``: draw eyes, or paint a vessel map that was drawn by hand."""

import argparse
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retinalogos.arguments import Commands, Find, Parser, at_least, number_from, output_folder
from retinalogos.errors import UsageError
from retinalogos.registry import check_kind

if TYPE_CHECKING:
    from retinalogos.generators.vessel_map.cascade import Drawn, VesselMapCascade, Wish

_DESCRIPTION = (
    "Draws vessel maps, photographs for them and their enlargements. Synthetic images: for research use only, not for "
    "diagnosis."
)
_GRID_EYES = 32  # a grid of more is no longer read


def add_commands(commands: Commands, find: Find, models: str) -> None:
    """Adds ``vessel-map`` with ``generate`` and ``render`` to the commands of ``retinalogos``.

    Args:
        commands: to add to.
        find: finds the generator.
        models: what --model may be, for --help.
    """
    vessel_map = commands.add_parser("vessel-map", help="eyes by vessel maps", description=_DESCRIPTION)
    actions = vessel_map.add_subparsers(required=True, metavar="ACTION")
    generate = _action(actions, "generate", "draw masks, photographs and enlargements", _generate)
    generate.add_argument("--n", type=at_least(1), default=6, help="eyes (default 6)")
    generate.add_argument("--eye", choices=("left", "right"), help="side (default: either)")
    for mark in ("disc", "fovea"):
        generate.add_argument(
            f"--{mark}",
            type=number_from(0, 1),
            nargs=2,
            metavar=("X", "Y"),
            help=f"where the {mark} lies, in shares of the side",
        )
    render = _action(actions, "render", "paint the photograph for a drawn vessel map", _render)
    render.add_argument("mask", type=Path, help="PNG: red arteries, blue veins, green crossings on black")
    render.add_argument("--n", type=at_least(1), default=1, help="photographs of the same map (default 1)")
    for action in (generate, render):
        action.add_argument("--model", metavar="DIR_OR_URI", help=models)
        action.set_defaults(find=find)


def _action(actions: Commands, name: str, text: str, run: Callable[[argparse.Namespace], None]) -> Parser:
    action = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    action.add_argument("--out", type=output_folder, required=True, help="folder for the pictures")
    action.add_argument(
        "--seed", type=at_least(0), default=0, help="of the first picture; the next has the next (default 0)"
    )
    action.add_argument("--batch-size", type=at_least(1), default=8, help="eyes drawn at once (default 8)")
    action.add_argument("--prompt", metavar="TEXT", help="caption, for a painter that was trained with captions")
    action.add_argument("--noise", type=float, default=0.01, help="level of noise on what is enlarged (default 0.01)")
    action.set_defaults(run=run)
    return action


def _cascade(arguments: argparse.Namespace, parts: tuple[str, ...]) -> "tuple[VesselMapCascade, dict[str, str | None]]":
    """The models that are needed, and what provenance says of the generator."""
    if not 0 <= arguments.noise < 1:
        raise UsageError(f"--noise {arguments.noise} is no level from 0 to below 1")
    # Here and not above: torch takes seconds to import, and --help needs none of it.
    from retinalogos.generators.vessel_map.cascade import VesselMapCascade, unbundled
    from retinalogos.provenance import generator_hash

    folder = arguments.find(arguments.model)
    check_kind(folder, VesselMapCascade.__name__)
    cascade = VesselMapCascade.load_whole(unbundled(folder, parts), arguments.noise)
    return cascade, {"generator": type(cascade).__name__, "generator_sha256": generator_hash(folder)}


def _generate(arguments: argparse.Namespace) -> None:
    import numpy as np

    from retinalogos.generators.vessel_map.cascade import PARTS, Wish
    from retinalogos.generators.vessel_map.examples import SIDES

    cascade, generator = _cascade(arguments, PARTS)
    marks = np.array([arguments.disc or (np.nan, np.nan), arguments.fovea or (np.nan, np.nan)])
    side = SIDES.index(arguments.eye)
    wishes = [Wish(arguments.seed + i, side, marks, arguments.prompt) for i in range(arguments.n)]
    asked = {"eye": arguments.eye, "prompt": arguments.prompt}
    name = arguments.eye or "either"
    _write(arguments.out, cascade.stream(wishes, arguments.batch_size), name, generator | asked)


def _render(arguments: argparse.Namespace) -> None:
    import numpy as np

    from retinalogos.generators.vessel_map.cascade import Drawn, Wish
    from retinalogos.generators.vessel_map.maps import read_drawn

    cascade, generator = _cascade(arguments, ("paint", "enlarge"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        known = cascade.parts["paint"].config
        classes = read_drawn(arguments.mask, known.size * known.map_factor)
    for warning in said:
        print(f"warning: {warning.message}")
    seeds = [arguments.seed + i for i in range(arguments.n)]
    nowhere = np.full((2, 2), np.nan)

    def eyes() -> Iterator[tuple[Wish, Drawn]]:
        for start in range(0, arguments.n, arguments.batch_size):
            batch = seeds[start : start + arguments.batch_size]
            maps = np.stack([classes] * len(batch))
            images = cascade.paint(maps, batch, [arguments.prompt] * len(batch))
            for seed, *pictures in zip(batch, images, cascade.enlarge(images, batch, maps), strict=True):
                yield Wish(seed, 0, nowhere), Drawn(classes, *pictures)

    drawn_by_hand = hashlib.sha256(arguments.mask.read_bytes()).hexdigest()
    asked = {"mask_sha256": drawn_by_hand, "prompt": arguments.prompt}
    _write(arguments.out, eyes(), drawn_by_hand[:8], generator | asked)


def _write(out: Path, eyes: "Iterable[tuple[Wish, Drawn]]", name: str, source: dict[str, str | None]) -> None:
    """Writes masks, photographs and enlargements as they come, then the grid and index.jsonl."""
    from retinalogos.generators.vessel_map.grid import write_grid
    from retinalogos.generators.vessel_map.maps import to_colour
    from retinalogos.provenance import NOTICE, append_records, software, write_png

    weights = str(source["generator_sha256"])[:8]
    shown: list[Drawn] = []
    records: list[dict[str, str | int | float | None]] = []
    drawn = 0
    for drawn, (wish, eye) in enumerate(eyes, start=1):
        out.mkdir(parents=True, exist_ok=True)
        record = {**source, "seed": wish.seed}
        pictures = {"mask": to_colour(eye.classes), "image": eye.image, "enlarged": eye.enlarged}
        for kind, picture in pictures.items():
            file = f"{weights}-{name}-seed{wish.seed}-{kind}.png"
            write_png(out / file, picture, record)
            records.append({"file": file, "synthetic": "true", "notice": NOTICE, "software": software(), **record})
        if drawn <= _GRID_EYES:
            shown.append(eye)
    append_records(out / "index.jsonl", records)
    write_grid(out / "grid.png", shown, source)
    print(f"{drawn} eyes, index.jsonl and grid.png in {out}. {NOTICE}")
