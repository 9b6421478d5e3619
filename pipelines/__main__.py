"""Command line of the graphs: ``python -m pipelines params | compose | compile | run-local | dvc``."""

import argparse
import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from components import ROOT, tracking
from pipelines.params import Choices, check_idle, compose, last_choices, presets, validate, write
from retinalogos.errors import DataError, UsageError

EXAMPLES = textwrap.dedent(
    """\
    examples:
      python -m pipelines params --preset smoke
      python -m pipelines params --cohort odir5k --data DIR --set pretrain.steps=2000 --set seed=1
      python -m pipelines compile --out compiled --preset gpu --image registry.example/retinalogos@sha256:…
      python -m pipelines run-local --preset smoke

    exit code: 0 done, 1 a step failed, 2 wrong use (the reason stands in one line)
    """
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipelines",
        description="Composes the parameters of a run, compiles the pipelines, runs one here.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    choices = _Parser(add_help=False)
    choices.add_argument("--preset", default="laptop", help=f"one of {', '.join(presets())} (default: laptop)")
    choices.add_argument("--cohort", help="name of the data set's reader (default: the phantom)")
    choices.add_argument("--data", help="folder of the data set")
    choices.add_argument(
        "--set",
        dest="settings",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="a single parameter, its value as YAML",
    )
    choices.add_argument(
        "--settings",
        dest="several",
        default="",
        help="several at once, separated by spaces as in a shell: one with spaces is quoted",
    )
    commands.add_parser(
        "params", parents=[choices], help="choose the parameters of the next `dvc repro`: writes run/params.yaml"
    )
    commands.add_parser("compose", help="write run/params.yaml again from the last choices; a stage of dvc.yaml")
    compile_ = commands.add_parser("compile", parents=[choices], help="write the IR YAML of every pipeline")
    compile_.add_argument("--out", type=Path, required=True, help="folder for PIPELINE.yaml")
    compile_.add_argument("--image", help="image of the steps, by digest (default: infra/images.yaml)")
    local = commands.add_parser("run-local", parents=[choices], help="run the whole pipeline here, without a cluster")
    local.add_argument(
        "--out", type=Path, default=ROOT / "local_outputs", help="folder for the outputs (default: local_outputs)"
    )
    commands.add_parser("dvc", help="write dvc.yaml from the graph")
    return parser


def _choices(options: argparse.Namespace) -> Choices:
    try:
        several = shlex.split(options.several)
    except ValueError as error:
        raise UsageError(f"settings {options.several!r}: {error}") from None
    settings = (*options.settings, *several)
    return Choices(preset=options.preset, cohort=options.cohort, data=options.data, settings=settings)


def _compile(options: argparse.Namespace) -> None:
    from components import image

    if options.image:
        os.environ[image.VARIABLE] = options.image
    reference = image.image()
    if not image.is_published(reference):
        print("note: infra/images.yaml names no published image; --image gives one", file=sys.stderr)
    values = compose(_choices(options))
    validate(values)
    from kfp import compiler

    from pipelines.main_line import NAME, full

    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{NAME}.yaml"
    compiler.Compiler().compile(full(values), str(path))
    print(path)


def _run_local(options: argparse.Namespace) -> None:
    values = compose(_choices(options))
    validate(values)
    from pipelines import local
    from pipelines.graph import MAIN_LINE
    from pipelines.main_line import full

    places = local.run(full(values), MAIN_LINE, values, options.out)
    for stage, ports in local.hashes(places).items():
        for port, digest in ports.items():
            print(f"{stage}.{port}  {digest}  {places[stage][port]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "params":
            check_idle()
            print(write(_choices(options)).relative_to(ROOT))
        elif options.command == "compose":
            tracking.new_workflow()
            write(last_choices())
        elif options.command == "compile":
            _compile(options)
        elif options.command == "run-local":
            _run_local(options)
        else:
            from pipelines.dvc import render

            (ROOT / "dvc.yaml").write_text(render(), encoding="utf-8")
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except (DataError, RuntimeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
