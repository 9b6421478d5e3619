"""Rows of a source's table, read with errors that name the file, the row and the column."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from retinalogos.errors import DataError, UsageError

T = TypeVar("T")

# How tables write "not known".
UNKNOWN = {"", "nan", "na", "n/a", "none", "null"}


@dataclass(frozen=True)
class Row:
    """One row of a table; cells are text, and an empty cell is None."""

    file: Path
    line: int
    cells: Mapping[str, str | None]

    def text(self, column: str) -> str | None:
        """The cell, or None where the source does not say."""
        cell = (self.cells.get(column) or "").strip()
        return None if cell.lower() in UNKNOWN else cell

    def given(self, column: str) -> str:
        """The cell, which may not be empty."""
        cell = self.text(column)
        if cell is None:
            raise self.error(column, "is empty, and every row needs it")
        return cell

    def number(self, column: str) -> float | None:
        """The cell as a number."""
        cell = self.text(column)
        try:
            return None if cell is None else float(cell)
        except ValueError:
            raise self.error(column, f"holds {cell!r}, which is no number") from None

    def choice(self, column: str, meanings: Mapping[str, T]) -> T | None:
        """What the cell means; upper and lower case are one, and 2.0 is 2."""
        cell = self.text(column)
        if cell is None:
            return None
        key = cell.lower().removesuffix(".0")
        if key not in meanings:
            raise self.error(column, f"holds {cell!r}; known are {', '.join(sorted(meanings))}")
        return meanings[key]

    def grade(self, column: str) -> int | None:
        """The cell as ICDR grade 0-4."""
        return self.choice(column, {str(grade): grade for grade in range(5)})

    def flag(self, column: str) -> bool:
        """True where the cell is 1."""
        return bool(self.choice(column, {"0": False, "1": True}))

    def labels(self, *columns: str) -> dict[str, Any]:
        """The cells of ``columns`` as the source wrote them, empty ones left out."""
        return {column: text for column in columns if (text := self.text(column)) is not None}

    def error(self, column: str, what: str) -> DataError:
        """The error to raise: file, row and column, then what is wrong."""
        return DataError(f"{self.file}, row {self.line}, column {column!r}: {what}")


def read_rows(file: Path, columns: tuple[str, ...], delimiter: str = ",") -> Iterator[Row]:
    """Rows of a CSV file with header; line numbers count the header as 1.

    Raises:
        UsageError: the file is not there.
        DataError: it is empty, is no text, or lacks one of ``columns``.
    """
    if not file.is_file():
        raise UsageError(f"{file} not found: is this the folder of the data set?")
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, delimiter=delimiter)
            header = reader.fieldnames or []
            missing = [column for column in columns if column not in header]
            if missing:
                raise DataError(f"{file}, row 1: columns {missing} are missing; it has {list(header)}")
            for cells in reader:
                yield Row(file, reader.line_num, cells)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a UTF-8 text ({error.reason} at byte {error.start})") from None
