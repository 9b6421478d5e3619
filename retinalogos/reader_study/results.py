"""Results of a reader study on disk: a page, its numbers, and every answer as a table."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retinalogos.errors import UsageError
from retinalogos.reader_study.analysis import analyse, headline
from retinalogos.reader_study.answers import read_books
from retinalogos.reader_study.design import ASPECTS, KINDS, ROLES, open_study
from retinalogos.reader_study.page import render

_TITLES = {
    "accuracy": ("Accuracy", "mean of the two below; 50 %: guessing"),
    "sensitivity": ("Sensitivity", "synthetic pictures judged synthetic"),
    "specificity": ("Specificity", "real pictures judged real"),
    "synthetic_judged_real": ("Synthetic judged real", "what the paper reports as 62.07 %"),
    "gap": ("Gap", "judged real: real less synthetic pictures; 0: guessing"),
}


def write_results(folder: Path, out: Path, resamples: int, seed: int) -> dict[str, Any]:
    """Analyses a study and writes ``results.json`` and ``index.html`` into ``out``.

    Raises:
        UsageError: no study is there, or ``out`` is a file.
        DataError: see :func:`analyse`.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    found = analyse(folder, resamples, seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = render(
        "results.html.j2", found=found, titles=_TITLES, aspects=ASPECTS, kinds=KINDS, roles=ROLES, headline=headline
    )
    (out / "index.html").write_text(page, encoding="utf-8")
    return found


def write_answers(folder: Path, out: Path) -> int:
    """Writes every answer with what the picture really is, as CSV or JSON by the ending of ``out``; their number.

    Raises:
        UsageError: no study is there, or the ending is neither ``.csv`` nor ``.json``.
        DataError: a file is damaged.
    """
    if out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out}: the file must end in .csv or .json")
    rows = list(_rows(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        if out.suffix == ".json":
            json.dump(rows, file, indent=1, ensure_ascii=False)
            file.write("\n")
        else:
            table = csv.DictWriter(file, _COLUMNS)
            table.writeheader()
            table.writerows(rows)
    return len(rows)


_COLUMNS = (
    *("reader", "role", "trial", "picture", "repeat", "kind", "judged", *ASPECTS, "seconds"),
    *("image_id", "source", "generator", "dr_grade", "glaucoma"),
)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    study = open_study(folder)
    pictures = {picture.name: picture.model_dump(exclude={"name"}) for picture in study.pictures}
    for book in read_books(folder, study):
        for answer in book.answers:
            row = {
                "reader": book.reader.name,
                "role": book.reader.role,
                **answer.model_dump(exclude={"ratings"}),
                **answer.ratings.model_dump(),
                **pictures[answer.picture],
            }
            yield {name: row[name] for name in _COLUMNS}
