"""The command ``retinalogos``: pictures, cohorts, reviews and readers, object stores, and where a model comes from."""

import argparse
import sys
from collections.abc import Sequence

from components.cli import captions, cohorts, pictures, reader_study, registry, storage, workflows
from retinalogos.arguments import Parser
from retinalogos.errors import DataError, UsageError
from retinalogos.provenance import NOTICE, software

# Whose `add_commands` add what, in the order of --help. A generator of another kind brings its own: a module
# retinalogos.generators.NAME.command, named in workflows.py. All are imported at every call, so heavy libraries
# (torch, MLflow) are imported where they run.
SUBJECTS = (pictures, cohorts, captions, reader_study, storage, registry, workflows)


def parser() -> Parser:
    """All commands, each with the function that runs it as the argument ``run``."""
    whole = Parser(prog="retinalogos", description=__doc__, epilog=NOTICE, formatter_class=argparse.HelpFormatter)
    whole.add_argument("--version", action="version", version=software())
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for subject in SUBJECTS:
        subject.add_commands(commands)
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done; else 1 failed, 2 wrong use, 130 stopped, and one line."""
    try:
        arguments = parser().parse_args(argv)
        arguments.run(arguments)
    except UsageError as error:
        print(f"retinalogos: {error}", file=sys.stderr)
        return 2
    except (DataError, OSError, MemoryError) as error:
        print(f"retinalogos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("retinalogos: stopped; the same command can be started again", file=sys.stderr)
        return 130
    return 0
