"""Command line of the steps: ``python -m components list | schema STEP | run STEP … | compare REPORT REPORT …``."""

import argparse
import gc
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components import ROOT
from components.runner import load_step, run_step, summaries
from components.step import METRICS
from retinalogos.arguments import Parser
from retinalogos.errors import DataError, UsageError

EXAMPLES = textwrap.dedent(
    """\
    examples:
      python -m components list
      python -m components schema caption
      python -m components run ingest --out cohort=data/cohort --set reader=phantom
      python -m components run caption --in cohort=data/cohort --in validation=metrics/validation \\
          --out captions=data/captions --out page=metrics/captions --set wordings.fine=2
      python -m components run encode --stage encode_curated --in cohort=data/cohort \\
          --in captions=data/curated_captions --in autoencoder=models/autoencoder --out latents=data/curated_latents

      python -m components compare before=old/reports now=reports --out comparison.html

    exit code: 0 done, 1 the step failed, 2 wrong use (the reason stands in one line), 130 stopped by Ctrl-C
    """
)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    return name, value


def _parser() -> Parser:
    parser = Parser(
        prog="python -m components",
        description="Runs one step of the workflow, or tells what steps there are.",
        epilog=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the steps, a line each: name and what it does")
    schema = commands.add_parser("schema", help="parameters (JSON schema), inputs and outputs of a step, as JSON")
    schema.add_argument("step", help="name of the step, see `list`")
    run = commands.add_parser(
        "run",
        help="run a step",
        description="Runs a step. Its parameters are its section of params.yaml, then what --set says.",
        epilog=EXAMPLES,
    )
    run.add_argument("step", help="name of the step, see `list`")
    run.add_argument(
        "--in", dest="inputs", metavar="NAME=PATH", type=_pair, action="append", default=[], help="an input, by port"
    )
    run.add_argument(
        "--out",
        dest="outputs",
        metavar="NAME=PATH",
        type=_pair,
        action="append",
        default=[],
        help="an output, by port; `metrics` may be left out: metrics/<stage>.json",
    )
    run.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        type=_pair,
        action="append",
        default=[],
        help="a parameter, its value as YAML; dots lead into nested ones",
    )
    run.add_argument("--params", type=Path, default=ROOT / "params.yaml", help="parameter file (default: params.yaml)")
    run.add_argument("--stage", help="section of the parameter file and name of the run (default: the step's name)")
    compare = commands.add_parser("compare", help="a page with several runs beside each other, from their reports")
    compare.add_argument("reports", metavar="REPORT", nargs="+", help="folder that `report` wrote, or NAME=FOLDER")
    compare.add_argument("--out", type=Path, required=True, metavar="HTML", help="page to write")
    return parser


def section(path: Path, name: str) -> dict[str, Any]:
    """Section ``name`` of a parameter file; empty where it has none.

    Raises:
        UsageError: the file is missing or no mapping of sections.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UsageError(f"no parameter file at {path}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    values = content.get(name) or {} if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: {name} should be a section with a parameter a line")
    return values


def overlay(values: dict[str, Any], key: str, text: str) -> None:
    """Sets ``values["a"]["b"]`` for key ``a.b``, the text read as YAML."""
    *outer, last = key.split(".")
    for name in outer:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{key}: {name} holds a value, not a section")
        values = inner
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"{key}: {text!r} is no YAML value") from None


def _paths(pairs: Sequence[tuple[str, str]], kind: str) -> dict[str, Path]:
    paths = {name: Path(path) for name, path in pairs}
    if len(paths) < len(pairs):
        raise UsageError(f"an {kind} is given twice among {', '.join(name for name, _ in pairs)}")
    return paths


def _schema(name: str) -> dict[str, Any]:
    step = load_step(name)
    ports = {
        kind: {
            port: {"description": value.description, "artifact": value.artifact, "optional": value.optional}
            for port, value in given.items()
        }
        for kind, given in (("inputs", step.inputs), ("outputs", step.outputs))
    }
    ports["outputs"][METRICS] = {"description": "metrics of the step (JSON)", "artifact": "Metrics", "optional": True}
    return {"name": step.name, "summary": step.summary, "params": step.params.model_json_schema(), **ports}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    again = "can be started again"
    try:
        options = _parser().parse_args(arguments)
        if options.command == "list":
            steps = summaries()
            width = max(map(len, steps), default=0)
            for name, summary in steps.items():
                print(f"{name:<{width}}  {summary}")
        elif options.command == "schema":
            print(json.dumps(_schema(options.step), indent=2))
        elif options.command == "compare":
            from components.report import compare

            named = [(text.partition("=") if "=" in text else (text, "=", text)) for text in options.reports]
            html = compare.render([compare.read_run(name, Path(folder)) for name, _, folder in named])
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(html, encoding="utf-8")
            print(options.out)
        else:
            step = load_step(options.step)
            values = section(options.params, options.stage or step.name)
            for key, text in options.settings:
                overlay(values, key, text)
            kept = values.get("checkpoints") or values.get("work")
            again = f"goes on from what is kept in {kept}" if kept else again
            run_step(step, values, _paths(options.inputs, "input"), _paths(options.outputs, "output"), options.stage)
    except UsageError as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return 2
    except (DataError, OSError) as error:
        print(f"error: {_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command {again}", file=sys.stderr)
        return 130
    return 0


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    code = main()
    # At its end Python looks for cycles among the million objects of the libraries: measured, 2 s for each stage.
    gc.freeze()
    sys.exit(code)
