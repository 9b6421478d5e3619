"""The figures of ``results.json``: found by name, written as a reader expects them, judged by gates.

A figure is a mapping with ``value``, ``low``, ``high`` and ``n`` (:mod:`retinalogos.metrics.intervals`) or a bare
number.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, model_validator

from retinalogos.errors import DataError, UsageError

Results = Mapping[str, Any]
_PARTS = {"value", "low", "high", "n"}


@dataclass(frozen=True)
class Figure:
    """A number with its 95 % interval; ``None`` where it is not defined or not measured."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def __str__(self) -> str:
        return number(self.value)

    def interval(self, percent: bool = False) -> str:
        """The interval in words, empty where there is none."""
        return (
            ""
            if self.low is None or self.high is None
            else f"{number(self.low, percent)} to {number(self.high, percent)}"
        )

    def attributes(self) -> Markup:
        """Of the cell that shows it: all digits, for the script that sorts and saves tables, and n for the reader."""
        parts = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        known = {name: part for name, part in parts.items() if part is not None} if self.value is not None else {}
        told = Markup("").join(Markup(' data-{}="{}"').format(name, part) for name, part in known.items())
        return told + Markup(' title="n = {}"').format(self.n) if "n" in known else told


class Gate(BaseModel):
    """A limit that a figure must keep before the generator may become champion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, description="what is asked, in words that a clinician knows")
    figure: str = Field(
        description="dotted name, from `assessment`, `classification` or `metrics` on; `.low` and `.high` after it are "
        "the ends of its interval"
    )
    otherwise: str | None = Field(default=None, description="figure taken where this cohort has none of that name")
    min: float | None = Field(default=None, description="least value that passes")
    max: float | None = Field(default=None, description="greatest value that passes")
    times: str | None = Field(default=None, description="figure that the limit is a multiple of")
    times_title: str | None = Field(default=None, min_length=1, description="that figure in words")
    percent: bool = Field(default=False, description="a share, shown in per cent")

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.min is None) == (self.max is None):
            raise ValueError("a gate has either min or max")
        if (self.times is None) != (self.times_title is None):
            raise ValueError("a gate has times and times_title, which says in words what it is, or neither")
        return self


@dataclass(frozen=True)
class Verdict:
    """How a gate went. ``limit`` is the number that ``value`` was held against, None if it is not defined."""

    name: str
    title: str
    figure: str
    value: float | None
    shown: str
    interval: str
    rule: str
    limit: float | None
    lower_is_better: bool
    passed: bool

    @property
    def says(self) -> str:
        """One line with the numbers, for logs and tags."""
        word = "passed" if self.passed else "failed"
        interval = f" (95 % interval {self.interval})" if self.interval else ""
        return f"report.gates.{self.name} {word}: {self.figure} is {self.shown}, asked for {self.rule}{interval}"


def read_results(folder: Path) -> dict[str, Any]:
    """``results.json`` of a step's output folder.

    Raises:
        DataError: there is none, or it is not JSON.
    """
    path = folder / "results.json"
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} not found; run the step that writes this folder again") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON ({error}); run the step that writes this folder again") from None
    return results


def as_figure(entry: object) -> Figure | None:
    """The figure that an entry of the results is, or None where it is something else."""
    if isinstance(entry, Mapping) and "value" in entry and entry.keys() <= _PARTS:
        return Figure(**entry)
    if isinstance(entry, int | float) and not isinstance(entry, bool):
        return Figure(float(entry))
    return None


def find(results: Results, name: str) -> Figure:
    """The figure of a dotted name; one without a value where this cohort has none of that name."""
    entry: Any = results
    for key in name.split("."):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return as_figure(entry) or Figure()


def every(results: Results, name: str = "") -> Iterator[tuple[str, Figure]]:
    """All figures with their dotted names, in the order of the results."""
    for key, entry in results.items():
        path = f"{name}.{key}" if name else key
        figure = as_figure(entry)
        if figure is not None:
            yield path, figure
        elif isinstance(entry, Mapping):
            yield from every(entry, path)


def as_csv(figures: Iterable[tuple[str, Figure]]) -> str:
    """Figures as a table for other programs: name, value, ends of the 95 % interval, n; empty where not defined."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("name", "value", "low", "high", "n"))
    for name, figure in figures:
        cells = (figure.value, figure.low, figure.high, figure.n)
        table.writerow((name, *("" if cell is None else cell for cell in cells)))
    return text.getvalue()


def judge(name: str, gate: Gate, results: Results) -> Verdict:
    """Holds a figure against its limit; one that is not defined does not pass.

    A multiple of nothing is no limit: where the figure that it is a multiple of is 0, the gate does not pass either.

    Raises:
        UsageError: the gate's figure, or the one its limit is a multiple of, is from none of the results.
    """
    for figure_name in filter(None, (gate.figure, gate.otherwise, gate.times)):
        if figure_name.split(".")[0] not in results:
            raise UsageError(f"report.gates.{name}: {figure_name} must begin with one of {', '.join(results)}")
    name_of_figure = gate.figure
    figure = find(results, gate.figure)
    if figure.value is None and gate.otherwise is not None:
        name_of_figure, figure = gate.otherwise, find(results, gate.otherwise)
    bound = gate.min if gate.min is not None else gate.max
    word = "at least" if gate.min is not None else "at most"
    limit = bound
    rule = f"{word} {number(bound, gate.percent)}"
    if gate.times is not None:
        base = find(results, gate.times).value
        limit = bound * base if base and bound is not None else None
        rule = (
            f"{word} {number(limit, gate.percent)}, which is {number(bound)} × {number(base)} ({gate.times_title})"
            if limit is not None
            else f"{word} {number(bound)} × the {gate.times_title}, "
            f"which is {'not measured' if base is None else number(base)}, so that there is no limit"
        )
    passed = False
    if figure.value is not None and limit is not None:
        passed = figure.value >= limit if gate.min is not None else figure.value <= limit
    return Verdict(
        name=name,
        title=gate.title,
        figure=name_of_figure,
        value=figure.value,
        shown=number(figure.value, gate.percent) if figure.value is not None else "not measured",
        interval=figure.interval(gate.percent),
        rule=rule,
        limit=limit,
        lower_is_better=gate.max is not None,
        passed=passed,
    )


def number(value: float | None, percent: bool = False) -> str:
    """A number as one reads it: about three significant digits; a dash where it is not defined.

    Args:
        value: the number; None or nan for none.
        percent: show a share in per cent.
    """
    if value is None or value != value:
        return "–"
    if percent:
        text = f"{100 * value:.1f} %".replace(".0 %", " %")
    elif value == int(value) and abs(value) < 1e6:
        text = str(int(value))
    elif abs(value) < 1e-4:
        text = "> -0.0001" if value < 0 else "< 0.0001"
    elif abs(value) < 0.01:
        text = f"{value:.2g}"
    else:
        text = f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3}f}"
    return text.replace("-", "−")
