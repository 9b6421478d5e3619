"""What a cohort holds, and one without copies: ``inspect``, ``release``."""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from retinalogos.arguments import Commands, at_least
from retinalogos.contact_sheet import make_sheet
from retinalogos.provenance import NOTICE

_INSPECT = """\
Counts what a cohort holds and, with --out, draws a contact sheet of its images.

example:
  retinalogos inspect data/cohort --out out/cohort.png
"""

_RELEASE = """\
Writes a synthetic cohort without the images that the step `assess` takes for copies of training images. What is left
out, and what it resembles, stands in flagged.csv of the assessment; the released folder does not name it.

example:
  retinalogos release data/synthetic --assessment metrics/assessment --out data/released
"""


def add_commands(commands: Commands) -> None:
    """Adds `inspect` and `release`."""
    inspect = commands.add_parser("inspect", help="count what a cohort holds", description=_INSPECT)
    inspect.add_argument("cohort", type=Path, metavar="COHORT", help="folder of a cohort")
    inspect.add_argument("--out", type=Path, metavar="PNG", help="write a contact sheet of the cohort to this file")
    inspect.add_argument("--images", type=at_least(1), default=30, help="images on the contact sheet (default 30)")
    inspect.set_defaults(run=_inspect)
    release = commands.add_parser(
        "release", help="a synthetic cohort without copies", description=_RELEASE, epilog=NOTICE
    )
    release.add_argument("cohort", type=Path, metavar="COHORT", help="folder of a synthetic cohort")
    release.add_argument(
        "--assessment", type=Path, required=True, metavar="DIR", help="what the step `assess` wrote about it"
    )
    release.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    release.set_defaults(run=_release)


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


def _release(arguments: argparse.Namespace) -> None:
    from retinalogos.cohort.release import release
    from retinalogos.cohort.shards import Cohort

    cohort = Cohort(arguments.cohort)
    left_out = release(cohort, arguments.assessment, arguments.out)
    print(f"{arguments.out}: {len(cohort) - left_out} images; {left_out} left out as copies of training images")
