"""The blind study of readers: ``reader-study prepare | serve | analyse | export``."""

import argparse
from pathlib import Path

from retinalogos.arguments import Commands, at_least

_READER_STUDY = """\
A blind study of what readers see: real or synthetic, and how good. First `prepare` a folder, then `serve` it, then
`analyse` it. The folder holds pictures and the key to them: keep it from the readers.

examples:
  retinalogos reader-study prepare study --real data/cohort --synthetic data/synthetic --images 30 --seed 1
  retinalogos reader-study serve study
  retinalogos reader-study analyse study --out study-results
  retinalogos reader-study export study --out answers.csv
"""


def add_commands(commands: Commands) -> None:
    """Adds `reader-study` with its parts."""
    study = commands.add_parser("reader-study", help="readers judge real or synthetic", description=_READER_STUDY)
    parts = study.add_subparsers(dest="part", required=True, metavar="PART")
    prepare = parts.add_parser("prepare", help="draw the pictures of a study by lot")
    prepare.add_argument("folder", type=Path, metavar="FOLDER", help="folder to make")
    prepare.add_argument(
        "--real", type=Path, required=True, metavar="COHORT", help="cohort; its test split is drawn from"
    )
    prepare.add_argument("--synthetic", type=Path, required=True, metavar="COHORT", help="cohort of synthetic pictures")
    # The paper's shares are of about 29 pictures of each kind.
    prepare.add_argument("--images", type=at_least(3), default=30, help="pictures of each kind (default 30)")
    prepare.add_argument(
        "--repeats", type=at_least(0), default=3, help="of these, of each kind, seen twice by every reader (default 3)"
    )
    prepare.add_argument("--size", type=at_least(32), help="pixels of the side (default: those of the smallest)")
    prepare.add_argument("--seed", type=at_least(0), default=0, help="of choice and orders (default 0)")
    prepare.add_argument(
        "--unmatched", action="store_true", help="whatever the mix of grade and glaucoma in the two cohorts"
    )
    prepare.set_defaults(run=_prepare)
    serve = parts.add_parser("serve", help="show it to readers in their browsers")
    serve.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a study")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine only)"
    )
    serve.add_argument("--port", type=at_least(0), default=8765, help="port; 0: any free one (default 8765)")
    serve.set_defaults(run=_serve)
    analyse = parts.add_parser("analyse", help="figures with intervals: a page and JSON")
    analyse.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a study")
    analyse.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: FOLDER/results)")
    # Usual for percentile intervals of 95 %: Efron and Tibshirani 1993, section 13.3.
    analyse.add_argument("--resamples", type=at_least(100), default=1000, help="of the bootstrap (default 1000)")
    analyse.add_argument("--seed", type=at_least(0), default=0, help="of the resampling (default 0)")
    analyse.set_defaults(run=_analyse)
    export = parts.add_parser("export", help="every answer, with what the picture really is, as a table")
    export.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a study")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write, .csv or .json")
    export.set_defaults(run=_export)


def _prepare(arguments: argparse.Namespace) -> None:
    from retinalogos.reader_study.design import prepare

    study = prepare(
        arguments.real,
        arguments.synthetic,
        arguments.folder,
        images=arguments.images,
        repeats=arguments.repeats,
        seed=arguments.seed,
        size=arguments.size,
        matched=not arguments.unmatched,
    )
    print(
        f"{arguments.images} real and {arguments.images} synthetic pictures of {study.size} pixels in "
        f"{arguments.folder}; each reader answers {2 * (arguments.images + arguments.repeats)} times"
    )


def _serve(arguments: argparse.Namespace) -> None:
    from retinalogos.reader_study.server import serve

    serve(arguments.folder, arguments.host, arguments.port)


def _analyse(arguments: argparse.Namespace) -> None:
    from retinalogos.reader_study.results import write_results

    out = arguments.out or arguments.folder / "results"
    found = write_results(arguments.folder, out, arguments.resamples, arguments.seed)
    print(found["conclusion"], *found["cautions"], f"page: {out / 'index.html'}", sep="\n")


def _export(arguments: argparse.Namespace) -> None:
    from retinalogos.reader_study.results import write_answers

    answers = write_answers(arguments.folder, arguments.out)
    print(f"{answers} answers in {arguments.out}, with the key: keep them from readers until all are done")
