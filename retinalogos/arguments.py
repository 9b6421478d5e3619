"""Arguments of command lines: their parser, and the kinds of numbers that they take."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from retinalogos.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser that answers wrong use with one line, and keeps the lines of a description."""

    def __init__(self, **options: Any):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


# What `Parser.add_subparsers` gives: commands are added to it.
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
# Finds the folder of the generator that --model names; None: it was not given.
Find = Callable[[str | None], Path]


# Above any count or seed that is meant; a few times as much is still a seed that torch takes (63 bits).
_MOST = 2**60 - 1


def at_least(low: int, at_most: int = _MOST) -> Callable[[str], int]:
    """Type of an argument: a whole number from ``low`` to ``at_most``, both included."""

    def whole_number(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if int(text) < low:
            raise argparse.ArgumentTypeError(f"{text} is less than {low}")
        if int(text) > at_most:
            most = f"; the largest is {at_most}" if at_most < _MOST else ""
            raise argparse.ArgumentTypeError(f"{text} is too large a number{most}")
        return int(text)

    return whole_number


def output_folder(text: str) -> Path:
    """Type of an argument: a folder to write to, which need not be there yet."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file; name a folder")
    return path


def number_from(low: float, high: float = math.inf) -> Callable[[str], float]:
    """Type of an argument: a finite number from ``low`` to ``high``, both included."""

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
