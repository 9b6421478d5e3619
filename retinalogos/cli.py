"""The command ``retinalogos``: pictures from prompts, and a look into a cohort."""

import argparse
import hashlib
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from retinalogos.contact_sheet import make_sheet
from retinalogos.errors import DataError, UsageError
from retinalogos.progress import track
from retinalogos.provenance import NOTICE, append_records, software, write_png

if TYPE_CHECKING:
    from retinalogos.generators.text import TextToFundusPipeline

CHAMPION = "models:/retinalogos-text@champion"
# What `make run` leaves, whether it passed the gates or not.
LAST_TRAINED = Path("models/generator")
DEFAULT_TRACKING = "sqlite:///mlflow.db"
_SHEET_IMAGES = 96  # a contact sheet of more is no longer read

_GENERATE = """\
Draws eyes from descriptions and writes, into --out:

  <prompt>-<settings>-seed<seed>.png   one picture each, with its provenance in its text chunks
  index.jsonl                          the same provenance, one line per picture
  contact_sheet.png                    the pictures of this call with their prompts and seeds

A prompt reads like a caption of the training data: eye, findings, diagnosis, appearance. The same prompt,
seed, settings and generator give the same picture again; image k of a prompt has the seed S+k.

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

_INSPECT = """\
Counts what a cohort holds and, with --out, draws a contact sheet of its images.

example:
  retinalogos inspect data/cohort --out out/cohort.png
"""


# What is said of a picture (its prompt first, then its seed), its label on the sheet, and its pixels.
_Picture = tuple[dict[str, Any], str, np.ndarray]


class _Parser(argparse.ArgumentParser):
    """An argument parser that answers wrong use with one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def _at_least(low: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        return int(text)

    return whole_number


def _number(low: float, high: float = math.inf) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not math.isfinite(value) or not low <= value <= high:
            limits = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not a finite number {limits}")
        return value

    return number


def _parser() -> _Parser:
    parser = _Parser(prog="retinalogos", description=__doc__, epilog=NOTICE)
    parser.add_argument("--version", action="version", version=software())
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")
    plain = argparse.RawDescriptionHelpFormatter
    generate = commands.add_parser(
        "generate", help="draw eyes from descriptions", description=_GENERATE, epilog=NOTICE, formatter_class=plain
    )
    generate.add_argument("prompts", nargs="+", metavar="PROMPT", help="description of the eye to draw")
    generate.add_argument("--n", type=_at_least(1), default=1, help="images per prompt (default 1)")
    generate.add_argument("--seed", type=_at_least(0), default=0, help="seed of each prompt's first image (default 0)")
    generate.add_argument("--size", type=_at_least(8), help="pixels of the side (default: the generator's own)")
    generate.add_argument("--batch-size", type=_at_least(1), default=8, help="images drawn at a time (default 8)")
    generate.set_defaults(run=_generate)
    edit = commands.add_parser(
        "edit", help="redraw a picture by a description", description=_EDIT, epilog=NOTICE, formatter_class=plain
    )
    edit.add_argument("picture", type=Path, metavar="PICTURE", help="image file")
    edit.add_argument("prompt", metavar="PROMPT", help="description of the eye it is to become")
    edit.add_argument("--mask", type=Path, metavar="PNG", help="image of the picture's size, black where it is kept")
    # SDEdit (arXiv 2108.01073) finds 0.3 to 0.6 faithful and realistic at once.
    edit.add_argument("--strength", type=_number(0.01, 1), default=0.6, help="0.01 to 1, a new eye (default 0.6)")
    edit.add_argument("--n", type=_at_least(1), default=1, help="variations (default 1)")
    edit.add_argument("--seed", type=_at_least(0), default=0, help="seed of the first variation (default 0)")
    edit.set_defaults(run=_edit)
    between = commands.add_parser(
        "between", help="one eye from prompt to prompt", description=_BETWEEN, epilog=NOTICE, formatter_class=plain
    )
    between.add_argument("first", metavar="FIRST", help="description at the start")
    between.add_argument("second", metavar="SECOND", help="description at the end")
    between.add_argument("--n", type=_at_least(2), default=6, help="pictures, both ends included (default 6)")
    between.add_argument("--seed", type=_at_least(0), default=0, help="seed of the eye (default 0)")
    between.set_defaults(run=_between)
    for command in (generate, edit, between):
        command.add_argument(
            "--model",
            metavar="DIR_OR_URI",
            help=f"folder of a trained generator, or models:/NAME@ALIAS or models:/NAME/VERSION of the MLflow "
            f"registry (MLFLOW_TRACKING_URI, else {DEFAULT_TRACKING} here); default {CHAMPION}, and where there is no "
            f"champion {LAST_TRAINED} here",
        )
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
        command.add_argument("--guidance", type=_number(0), help="weight of the prompt (default: the generator's own)")
        command.add_argument("--steps", type=_at_least(1), help="steps of the solver (default: the generator's own)")
    inspect = commands.add_parser(
        "inspect", help="count what a cohort holds", description=_INSPECT, formatter_class=plain
    )
    inspect.add_argument("cohort", type=Path, metavar="COHORT", help="folder of a cohort")
    inspect.add_argument("--out", type=Path, metavar="PNG", help="write a contact sheet of the cohort to this file")
    inspect.add_argument("--images", type=_at_least(1), default=30, help="images on the contact sheet (default 30)")
    inspect.set_defaults(run=_inspect)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 1 failed, 2 wrong use (one line on stderr)."""
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except UsageError as error:
        print(f"retinalogos: {error}", file=sys.stderr)
        return 2
    except (DataError, OSError) as error:
        print(f"retinalogos: {error}", file=sys.stderr)
        return 1
    return 0


def resolve_model(model: str | None) -> Path:
    """Folder of the generator that ``model`` names: a folder, or a ``models:/`` URI of the MLflow registry.

    ``None`` is the champion; where there is none, the generator that was trained last here, and that is said.

    Raises:
        UsageError: there is no such folder, registry, model or version, or the version holds no generator.
    """
    if model is None:
        try:
            return resolve_model(CHAMPION)
        except UsageError:
            if not (LAST_TRAINED / "model_index.json").is_file():
                raise
        print(
            f"retinalogos: no champion here, so {LAST_TRAINED} draws: it did not pass every gate (reports/index.html)",
            file=sys.stderr,
        )
        return LAST_TRAINED
    if not model.startswith("models:/"):
        folder = Path(model)
        if not (folder / "model_index.json").is_file():
            raise UsageError(f"--model {model}: no generator there (it has no model_index.json)")
        return folder
    # Only this place of the library knows the registry, and only when it is asked for.
    import mlflow
    from mlflow.exceptions import MlflowException

    if "MLFLOW_TRACKING_URI" not in os.environ:
        database = Path(DEFAULT_TRACKING.removeprefix("sqlite:///"))
        if not database.is_file():
            raise UsageError(
                f"--model {model}: no registry here ({database} not found); run `make run`, "
                "set MLFLOW_TRACKING_URI, or give --model a folder"
            )
        mlflow.set_tracking_uri(DEFAULT_TRACKING)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model))
    except MlflowException as error:
        raise UsageError(f"--model {model}: {str(error).splitlines()[0]}") from None
    found = sorted(path.parent for path in folder.rglob("model_index.json"))
    if not found:
        raise UsageError(f"--model {model}: this version holds no generator (no model_index.json in it)")
    return found[0]


def _load(folder: Path) -> "TextToFundusPipeline":
    from retinalogos.generators.text import TextToFundusPipeline

    try:
        return TextToFundusPipeline.from_pretrained(folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{folder} holds no generator that can be loaded: {reason}") from None


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
                "prompt": arguments.first,
                "seed": arguments.seed,
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
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out} is a file; name a folder")
    folder = resolve_model(arguments.model)
    # Here and not above: torch takes seconds to import, and --help needs none of it.
    from retinalogos.provenance import generator_hash

    return _load(folder), generator_hash(folder)


def _sampling(arguments: argparse.Namespace, pipeline: "TextToFundusPipeline") -> dict[str, Any]:
    """Guidance and steps as asked for, else the generator's own: the provenance names what was used."""
    return {
        name: getattr(pipeline.config, name) if getattr(arguments, name) is None else getattr(arguments, name)
        for name in ("guidance", "steps")
    }


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
    append_records(out / "index.jsonl", records, key="file")
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


def _inspect(arguments: argparse.Namespace) -> None:
    from retinalogos.cohort.schema import EYES, GLAUCOMA, ICDR_GRADES, SEXES
    from retinalogos.cohort.shards import Cohort, decode_image, encode_png

    cohort = Cohort(arguments.cohort)
    table = cohort.table(
        ["split", "eye", "sex", "dr_grade", "glaucoma", "patient_id", "source", "licence", "width", "generator"]
    ).to_pydict()
    count = {column: Counter(values) for column, values in table.items()}
    print(f"{cohort.meta['name']}: {len(cohort)} images of {len(count['patient_id'])} patients")
    if synthetic := len(cohort) - count["generator"][None]:
        print(f"  {synthetic} of them synthetic. {NOTICE}")
    groups = {
        "source": [(source, source) for source in sorted(count["source"])],
        "licence": [(licence, licence) for licence in sorted(filter(None, count["licence"]))],
        "split": [(split, split) for split in cohort.meta["splits"]],
        "eye": [(eye, eye) for eye in EYES],
        "sex": [(sex, sex) for sex in SEXES],
        "dr_grade": [(grade, f"{grade} {name}") for grade, name in enumerate(ICDR_GRADES)],
        "glaucoma": [(state, state) for state in GLAUCOMA],
        "width": [(width, f"{width} px") for width in sorted(count["width"])],
    }
    for column, values in groups.items():
        for value, name in [*values, (None, "not known")]:
            if count[column][value]:
                share = count[column][value] / len(cohort)
                print(f"  {column:10} {name:48} {count[column][value]:8} {share:7.1%}")
    if arguments.out is None:
        return
    # By lot, always the same one: even distances would meet the turns in which a cohort lists its classes.
    shown = min(arguments.images, len(cohort))
    chosen = set(np.random.default_rng(0).choice(len(cohort), shown, replace=False).tolist())
    images: list[np.ndarray] = []
    labels: list[str] = []
    for index, row in enumerate(cohort.rows(("image", "eye", "dr_grade", "glaucoma"))):
        if index in chosen:
            images.append(decode_image(row["image"]["bytes"]))
            grade = None if row["dr_grade"] is None else f"DR {row['dr_grade']}"
            disease = None if row["glaucoma"] in (None, "no") else f"glaucoma: {row['glaucoma']}"
            labels.append(", ".join(filter(None, (row["eye"], grade, disease))))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(encode_png(make_sheet(images, labels)))
    print(f"contact sheet of {len(images)} images: {arguments.out}")


if __name__ == "__main__":
    sys.exit(main())
