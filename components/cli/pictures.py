"""Pictures from the text-to-fundus generator: ``generate``, ``edit``, ``between``."""

import argparse
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.cli.registry import CHAMPION, LAST_TRAINED, models_known, resolve_model
from retinalogos.arguments import Commands, at_least, number_from, output_folder
from retinalogos.contact_sheet import make_sheet
from retinalogos.errors import UsageError
from retinalogos.progress import track
from retinalogos.provenance import NOTICE, append_records, software, write_png
from retinalogos.registry import check_kind

if TYPE_CHECKING:
    from retinalogos.generators.text import TextToFundusPipeline

_SHEET_IMAGES = 96  # a contact sheet of more is no longer read

_GENERATE = """\
Draws eyes from descriptions and writes, into --out:

  <prompt>-<settings>-seed<seed>.png   one picture each, with its provenance in its text chunks
  index.jsonl                          the same provenance, one line per picture
  contact_sheet.png                    the pictures of this call with their prompts and seeds

A prompt reads like a caption of the training data: eye, findings, diagnosis, appearance. The same command gives the
same pictures again; image k of a prompt has the seed S+k, and drawn with others it differs by rounding alone, a grey
level here and there.

examples:
  retinalogos generate "left eye, severe non-proliferative diabetic retinopathy" --n 8 --seed 1 --out out/
  retinalogos generate "right eye, healthy" "right eye, glaucoma" --n 4 --model models/generator --out out/
"""

_EDIT = """\
Redraws a picture by a description: all of it, as far as --strength says, or only where --mask is not black.
The picture is cut to its field of view and resized as `ingest` does; the mask is cut with it. What is written
is synthetic, and its provenance holds the hash of the picture it was made from.

examples:
  retinalogos edit out/eye.png "left eye, proliferative diabetic retinopathy" --strength 0.5 --out out/
  retinalogos edit out/eye.png "left eye, large cup" --mask disc.png --strength 1 --n 4 --out out/
"""

_BETWEEN = """\
Draws one eye --n times on the way from one description to another.

example:
  retinalogos between "left eye, healthy" "left eye, glaucoma, large cup" --n 6 --seed 1 --out out/
"""

# What is said of a picture (its prompt first, then its seed), its label on the sheet, and its pixels.
_Picture = tuple[dict[str, Any], str, np.ndarray]


def add_commands(commands: Commands) -> None:
    """Adds `generate`, `edit` and `between`."""
    generate = commands.add_parser("generate", help="draw eyes from descriptions", description=_GENERATE, epilog=NOTICE)
    generate.add_argument("prompts", nargs="+", metavar="PROMPT", help="description of the eye to draw")
    generate.add_argument("--n", type=at_least(1), default=1, help="images per prompt (default 1)")
    generate.add_argument("--seed", type=at_least(0), default=0, help="seed of each prompt's first image (default 0)")
    generate.add_argument("--size", type=at_least(8), help="pixels of the side (default: the generator's own)")
    generate.add_argument("--batch-size", type=at_least(1), default=8, help="images drawn at a time (default 8)")
    generate.set_defaults(run=_generate)
    edit = commands.add_parser("edit", help="redraw a picture by a description", description=_EDIT, epilog=NOTICE)
    edit.add_argument("picture", type=Path, metavar="PICTURE", help="image file")
    edit.add_argument("prompt", metavar="PROMPT", help="description of the eye it is to become")
    edit.add_argument("--mask", type=Path, metavar="PNG", help="image of the picture's size, black where it is kept")
    # SDEdit (arXiv 2108.01073) finds 0.3 to 0.6 faithful and realistic at once.
    edit.add_argument("--strength", type=number_from(0.01, 1), default=0.6, help="0.01 to 1, a new eye (default 0.6)")
    edit.add_argument("--n", type=at_least(1), default=1, help="variations (default 1)")
    edit.add_argument("--seed", type=at_least(0), default=0, help="seed of the first variation (default 0)")
    edit.set_defaults(run=_edit)
    between = commands.add_parser("between", help="one eye from prompt to prompt", description=_BETWEEN, epilog=NOTICE)
    between.add_argument("first", metavar="FIRST", help="description at the start")
    between.add_argument("second", metavar="SECOND", help="description at the end")
    between.add_argument("--n", type=at_least(2), default=6, help="pictures, both ends included (default 6)")
    between.add_argument("--seed", type=at_least(0), default=0, help="seed of the eye (default 0)")
    between.set_defaults(run=_between)
    for command in (generate, edit, between):
        command.add_argument("--model", metavar="DIR_OR_URI", help=models_known(CHAMPION, LAST_TRAINED))
        command.add_argument("--out", type=output_folder, required=True, metavar="DIR", help="folder to write to")
        command.add_argument(
            "--guidance", type=number_from(0), help="weight of the prompt (default: the generator's own)"
        )
        command.add_argument("--steps", type=at_least(1), help="steps of the solver (default: the generator's own)")
        # Named here and not read from the configuration, whose import takes seconds.
        solvers = ("euler", "midpoint", "heun", "multistep", "splitting")
        command.add_argument("--solver", choices=solvers, help="of the path from noise (default: the generator's own)")
        command.add_argument(
            "--guidance-interval",
            type=number_from(0, 1),
            nargs=2,
            metavar=("FROM", "TO"),
            help="times between which --guidance acts, 0 is noise and 1 the picture (default: the generator's own)",
        )
        command.add_argument(
            "--renormalise",
            action=argparse.BooleanOptionalAction,
            help="guidance turns the velocity and keeps its length, sparing colours (default: the generator's own)",
        )
        command.add_argument(
            "--autoguidance",
            type=number_from(1),
            help="times what the network adds to the prior is drawn; 1 as learned (default: the generator's own)",
        )


def _generate(arguments: argparse.Namespace) -> None:
    pipeline, weights = _generator(arguments, arguments.prompts)
    settings = {**_sampling(arguments, pipeline), "size": arguments.size or pipeline.config.size}
    tasks = [(prompt, arguments.seed + k) for prompt in arguments.prompts for k in range(arguments.n)]
    drawn = (
        ({"prompt": prompt, "seed": seed, **settings}, f"{prompt} (seed {seed})", image)
        for (prompt, seed), image in _draw(pipeline, tasks, arguments.batch_size, settings)
    )
    columns = arguments.n if len(arguments.prompts) > 1 and arguments.n <= 12 else None
    _write(arguments.out, drawn, len(tasks), type(pipeline).__name__, weights, columns)


def _edit(arguments: argparse.Namespace) -> None:
    picture, marked, digest = _opened(arguments.picture, arguments.mask)
    pipeline, weights = _generator(arguments, [arguments.prompt])
    image, mask = _cut(picture, marked, pipeline.config.size)
    sampling = _sampling(arguments, pipeline)
    settings = {
        **sampling,
        "strength": arguments.strength,
        "edited_sha256": digest,
        "mask_sha256": None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest(),
    }

    def drawn() -> Iterator[_Picture]:
        for seed in range(arguments.seed, arguments.seed + arguments.n):
            edited = pipeline.edit(
                image[None],
                arguments.prompt,
                seeds=seed,
                strength=arguments.strength,
                masks=None if mask is None else mask[None],
                **sampling,
            )
            label = f"{arguments.prompt} (seed {seed}, strength {arguments.strength:g})"
            yield {"prompt": arguments.prompt, "seed": seed, **settings}, label, edited[0]

    _write(arguments.out, drawn(), arguments.n, type(pipeline).__name__, weights, None)


def _between(arguments: argparse.Namespace) -> None:
    pipeline, weights = _generator(arguments, [arguments.first, arguments.second])
    sampling = _sampling(arguments, pipeline)

    def drawn() -> Iterator[_Picture]:
        for share in np.linspace(0, 1, arguments.n).round(4).tolist():
            image = pipeline.between(
                arguments.first,
                arguments.second,
                [share],
                seed=arguments.seed,
                **sampling,
            )
            record = {
                # Files are named by it: they then lie in order.
                "prompt": f"{share:.2f} of the way from {arguments.first} to {arguments.second}",
                "seed": arguments.seed,
                "first_prompt": arguments.first,
                "second_prompt": arguments.second,
                "share": share,
                **sampling,
            }
            yield record, f"{share:.0%} {arguments.second}", image[0]

    _write(arguments.out, drawn(), arguments.n, type(pipeline).__name__, weights, min(arguments.n, 12))


def _generator(arguments: argparse.Namespace, prompts: Sequence[str]) -> "tuple[TextToFundusPipeline, str]":
    """The pipeline that --model names, and the hash of its files."""
    if not all(prompt.strip() for prompt in prompts):
        raise UsageError('a prompt is empty; describe the eye, for example "left eye, healthy"')
    folder = resolve_model(arguments.model)
    # Here and not above: torch takes seconds to import, and --help needs none of it.
    from retinalogos.provenance import generator_hash

    return _load(folder), generator_hash(folder)


def _load(folder: Path) -> "TextToFundusPipeline":
    from retinalogos.generators.text import TextToFundusPipeline

    check_kind(folder, TextToFundusPipeline.__name__)
    try:
        return TextToFundusPipeline.from_pretrained(folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{folder} holds no generator that can be loaded: {reason}") from None


def _sampling(arguments: argparse.Namespace, pipeline: "TextToFundusPipeline") -> dict[str, Any]:
    """Settings as asked for, else the generator's own: the provenance names what was used."""
    names = ("guidance", "steps", "solver", "guidance_interval", "renormalise", "autoguidance")
    asked = {name: getattr(arguments, name) for name in names}
    return {name: getattr(pipeline.config, name) if value is None else value for name, value in asked.items()}


def _opened(picture: Path, mask: Path | None) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Pixels of the picture, those of the mask, and the hash of the picture's file."""
    from retinalogos.cohort.picture import UnusableImage, check_visible, open_photograph

    path = picture
    try:
        photograph = open_photograph(picture)
        pixels, marked = photograph.pixels(), None
        check_visible(pixels)
        if mask is not None:
            path = mask
            marked = open_photograph(mask).pixels().max(2)
    except UnusableImage as error:
        raise UsageError(f"{path}: {error}; {error.detail}") from None
    if marked is not None and marked.shape != pixels.shape[:2]:
        raise UsageError(
            f"--mask {mask} is {marked.shape[1]}×{marked.shape[0]} pixels, "
            f"{picture} {pixels.shape[1]}×{pixels.shape[0]}: they must be the same"
        )
    return pixels, marked, hashlib.sha256(photograph.data).hexdigest()


def _cut(pixels: np.ndarray, marked: np.ndarray | None, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture cut and resized as `ingest` does, and its mask with it."""
    from retinalogos.cohort.field_of_view import find_field, place, square_image, square_map

    frame = find_field(pixels)
    at = place(frame, pixels.shape[1], pixels.shape[0], size)
    # A pixel is redrawn as soon as any of it is marked.
    small = None if marked is None else square_map((marked > 0).astype(np.uint8), frame, at, least=1e-6)
    return square_image(pixels, frame, at), small


def _write(out: Path, drawn: Iterable[_Picture], total: int, generator: str, weights: str, columns: int | None) -> None:
    """Writes pictures as they come, then index.jsonl and the contact sheet."""
    images: list[np.ndarray] = []
    labels: list[str] = []
    records: list[dict[str, str | int | float | None]] = []
    for settings, label, image in track(drawn, "generate", total=total, unit="image"):
        record = {**settings, "generator": generator, "generator_sha256": weights}
        prompt, seed, *others = settings.values()
        name = _file_name(str(prompt), seed, [weights, *map(str, others)])
        out.mkdir(parents=True, exist_ok=True)
        write_png(out / name, image, record)
        records.append({"file": name, "synthetic": True, "notice": NOTICE, "software": software(), **record})
        images.append(image)
        labels.append(label)
    append_records(out / "index.jsonl", records)
    sheet = {"generator": generator, "generator_sha256": weights}
    shown = make_sheet(images[:_SHEET_IMAGES], labels[:_SHEET_IMAGES], columns)
    write_png(out / "contact_sheet.png", shown, sheet)
    print(f"{len(images)} images, index.jsonl and contact_sheet.png in {out}. {NOTICE}")


def _draw(
    pipeline: "TextToFundusPipeline",
    tasks: list[tuple[str, int]],
    batch_size: int,
    settings: dict[str, Any],
) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """Each (prompt, seed) with its image, as soon as its batch is drawn."""
    for start in range(0, len(tasks), batch_size):
        batch = tasks[start : start + batch_size]
        images = pipeline([prompt for prompt, _ in batch], seeds=[seed for _, seed in batch], **settings)
        yield from zip(batch, images, strict=True)


def _file_name(prompt: str, seed: int, settings: list[str]) -> str:
    """Readable and distinct: the same prompt with other settings or weights is another file."""
    slug = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "prompt"
    digest = hashlib.sha256("\0".join([prompt, *settings]).encode()).hexdigest()[:8]
    return f"{slug}-{digest}-seed{seed}.png"
