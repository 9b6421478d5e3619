"""Several runs on one page: their gates, their parameters where they differ, and their figures beside each other."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.report import layout
from components.report.figures import Figure, number
from components.report.layout import Filled, Line
from components.report.page import SCRIPT, csv_uri, with_bars
from retinalogos import lineage
from retinalogos.errors import DataError, UsageError
from retinalogos.pages import environment, script
from retinalogos.provenance import NOTICE, software


@dataclass(frozen=True)
class Run:
    """What a report's folder says: gates and figures by name, and the parameters of every step before it."""

    name: str
    gates: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, Figure]
    parameters: Mapping[str, str]


def read_run(name: str, folder: Path) -> Run:
    """Reads the folder that the step `report` wrote.

    Raises:
        DataError: gates.json or figures.csv is missing in it.
    """
    try:
        gates = json.loads((folder / "gates.json").read_text(encoding="utf-8"))
        rows = list(csv.DictReader(io.StringIO((folder / "figures.csv").read_text(encoding="utf-8"))))
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} not found: {folder} is not what the step report writes") from None
    figures = {row["name"]: Figure(_number(row["value"]), _number(row["low"]), _number(row["high"])) for row in rows}
    made = lineage.gather({name: folder})
    entries = [*made["stages"].values(), *made["outputs"].values()]
    # A step may stand twice in a run (encode): what it was told then stands in both places.
    parameters: dict[str, list[str]] = {}
    for entry in entries:
        for key, value in lineage.flat(entry["params"]):
            told = parameters.setdefault(f"{entry['step']}.{key}", [])
            text = json.dumps(value, ensure_ascii=False)
            if text not in told:
                told.append(text)
    return Run(
        name,
        {gate["name"]: gate for gate in gates},
        figures,
        {key: ", ".join(sorted(told)) for key, told in parameters.items()},
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def render(runs: Sequence[Run]) -> str:
    """The page.

    Raises:
        UsageError: there are fewer than two runs, or two of one name.
    """
    names = [run.name for run in runs]
    if len(runs) < 2 or len(set(names)) < len(names):
        raise UsageError(f"compare: {', '.join(names)}: give two reports or more, as NAME=FOLDER where names are equal")
    figures = list(dict.fromkeys(name for run in runs for name in run.figures))
    parameters = sorted({key for run in runs for key in run.parameters})
    told = [(key, [run.parameters.get(key, "–") for run in runs]) for key in parameters]
    gates = list(dict.fromkeys(name for run in runs for name in run.gates))
    page = {
        "notice": NOTICE,
        "software": software(),
        "names": names,
        "gates": [(_title(name, runs), [run.gates.get(name) for run in runs]) for name in gates],
        "tables": [with_bars(table) for table in _first(runs)],
        "parameters": [(key, values) for key, values in told if len(set(values)) > 1],
        "figures": [(name, [run.figures.get(name, Figure()) for run in runs], _apart(name, runs)) for name in figures],
        "csv": csv_uri(_table(figures, runs)),
        "script": script(SCRIPT),
    }
    page["size"] = 128  # pixels of a picture, of which this page has none
    templates = environment(Path(__file__).parent)
    templates.filters["number"] = number
    return templates.get_template("compare.html.j2").render(page)


def _title(gate: str, runs: Sequence[Run]) -> str:
    return next(run.gates[gate]["title"] for run in runs if gate in run.gates)


# A verdict of `classify`, and the difference that it is about.
_VERDICT = re.compile(r"classification\.(test|external\.\w+)\.verdicts\.(\w+)\.(\w+)\.difference")


def _first(runs: Sequence[Run]) -> list[Filled]:
    """The tables of the report's assessment, and the differences that its verdicts are about, a column for each run."""
    tables = {
        table.title: [(line, f"assessment.{line.figures[0]}") for line in table.lines] for table in layout.ASSESSMENT
    }
    names = dict.fromkeys(name for run in runs for name in run.figures)
    verdicts = [(match[0], *match.groups()) for match in map(_VERDICT.fullmatch, names) if match]
    tables["Do they help a classifier? Differences to what each mix is compared with"] = [
        (Line(f"{layout.task_words(task)}: {layout.arm_words(arm)}", layout.place_words(of_set), ()), name)
        for name, of_set, task, arm in verdicts
    ]
    filled = []
    for title, lines in tables.items():
        rows = [(line, [run.figures.get(name, Figure()) for run in runs]) for line, name in lines]
        rows = [(line, cells) for line, cells in rows if any(cell.value is not None for cell in cells)]
        if rows:
            filled.append(Filled(title, tuple(run.name for run in runs), rows))
    return filled


def _apart(name: str, runs: Sequence[Run]) -> bool:
    """Whether the intervals of a figure have no point in common: then the runs differ beyond doubt."""
    found = [run.figures.get(name, Figure()) for run in runs]
    lows = [figure.low for figure in found if figure.low is not None]
    highs = [figure.high for figure in found if figure.high is not None]
    return len(lows) == len(highs) == len(runs) and max(lows) > min(highs)


def _table(names: Sequence[str], runs: Sequence[Run]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", *(f"{run.name} {part}".strip() for run in runs for part in ("", "low", "high"))])
    for name in names:
        cells = [run.figures.get(name, Figure()) for run in runs]
        parts = (part for figure in cells for part in (figure.value, figure.low, figure.high))
        table.writerow([name, *("" if part is None else part for part in parts)])
    return text.getvalue()
