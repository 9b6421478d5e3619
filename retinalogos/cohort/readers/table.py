"""Any table with an image folder, described by a column mapping in YAML."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import Row, read_rows
from retinalogos.cohort.schema import EYES, GLAUCOMA, SEXES
from retinalogos.errors import DataError, UsageError

# What a cell means where the mapping does not say: the vocabulary itself and its usual abbreviations.
MEANINGS: dict[str, dict[str, Any]] = {
    "eye": {**{eye: eye for eye in EYES}, "l": "left", "r": "right", "os": "left", "od": "right"},
    "sex": {**{sex: sex for sex in SEXES}, "f": "female", "m": "male"},
    "dr_grade": {str(grade): grade for grade in range(5)},
    "dme": {"0": 0, "1": 1},
    "glaucoma": {name: name for name in GLAUCOMA},
}
NUMBERS = {"age": (0, 130), "vcdr": (0, 1)}
SETTINGS = (
    "table",
    "images",
    "delimiter",
    "image",
    "patient",
    "report",
    "findings",
    "flags",
    "labels",
    "licence",
    "name",
)


@dataclass(frozen=True)
class Column:
    """A column of the table, what its values mean, and what separates several values in a cell."""

    name: str
    values: Mapping[str, Any] | None = None
    separator: str | None = None


def read(source: Source) -> Iterator[Record]:
    """Reads the table that ``source.mapping`` describes; see docs/cohorts.md for the mapping.

    Raises:
        UsageError: the mapping is missing, is no YAML mapping, or names what the schema does not have.
        DataError: a cell of the table does not fit; the message names file, row and column.
    """
    assert source.folder is not None
    if source.mapping is None:
        raise UsageError("reader 'table' needs a column mapping: set `mapping` to a YAML file (see docs/cohorts.md)")
    settings = _settings(source.mapping)
    fields = {
        field: _column(source.mapping, field, settings[field]) for field in (*MEANINGS, *NUMBERS) if field in settings
    }
    findings = _column(source.mapping, "findings", settings["findings"]) if "findings" in settings else None
    flags = settings.get("flags") or {}
    _check_codes(source.mapping, [*flags.values(), *_flat((findings.values or {}).values() if findings else ())])
    labels = tuple(settings.get("labels") or ())
    plain = [settings[key] for key in ("image", "patient", "report") if key in settings]
    columns = [
        *plain,
        *(column.name for column in fields.values()),
        *flags,
        *labels,
        *([findings.name] if findings else []),
    ]
    images = source.folder / settings.get("images", ".")
    files = images_by_stem(images)
    for row in read_rows(source.folder / settings["table"], tuple(columns), settings.get("delimiter", ",")):
        # A row without a file becomes a line of quarantine.csv, as one whose file is missing does.
        name = row.text(settings["image"]) or f"row {row.line} names no file"
        exact = images / name
        yield Record(
            image=exact if exact.is_file() else image_of(files, images, name),
            source=settings.get("name", "table"),
            patient=row.given(settings["patient"]) if "patient" in settings else None,
            findings=_findings(row, findings, flags),
            report=row.text(settings["report"]) if "report" in settings else None,
            labels=row.labels(*labels),
            licence=settings.get("licence"),
            **{field: _value(row, field, column) for field, column in fields.items()},
        )


def _settings(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; set `mapping` to a YAML file") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{file} holds no mapping of fields to columns")
    unknown = settings.keys() - {*SETTINGS, *MEANINGS, *NUMBERS}
    if unknown:
        known = ", ".join((*SETTINGS, *MEANINGS, *NUMBERS))
        raise UsageError(f"{file}: unknown entries {sorted(map(str, unknown))}; known are {known}")
    for needed in ("table", "image"):
        if needed not in settings:
            raise UsageError(f"{file}: the entry {needed!r} is missing")
    return settings


def _column(file: Path, field: str, entry: Any) -> Column:
    if isinstance(entry, str):
        return Column(entry)
    if (
        isinstance(entry, dict)
        and isinstance(entry.get("column"), str)
        and entry.keys() <= {"column", "values", "separator"}
    ):
        values = entry.get("values")
        return Column(
            entry["column"],
            None if values is None else {str(key).lower(): meaning for key, meaning in values.items()},
            entry.get("separator"),
        )
    raise UsageError(f"{file}, {field}: expected a column name, or `column` with `values` and `separator`")


def _check_codes(file: Path, codes: list[Any]) -> None:
    for code in codes:
        if code is not None and code not in FINDINGS:
            raise UsageError(f"{file}: {code!r} is not a finding; the codes are those of retinalogos.cohort.findings")


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        yield from value if isinstance(value, list) else [value]


def _value(row: Row, field: str, column: Column) -> Any:
    if field in NUMBERS:
        low, high = NUMBERS[field]
        number = row.number(column.name)
        if number is not None and not low <= number <= high:
            raise row.error(column.name, f"holds {number:g}, which is no {field} (it lies in {low} to {high})")
        return number
    value = row.choice(column.name, MEANINGS[field] if column.values is None else column.values)
    if value is not None and value not in MEANINGS[field].values():
        allowed = sorted({str(meaning) for meaning in MEANINGS[field].values()})
        raise DataError(f"mapping of {field}: {value!r} is not of the schema; allowed are {', '.join(allowed)}")
    return value


def _findings(row: Row, column: Column | None, flags: Mapping[str, str]) -> tuple[str, ...] | None:
    if column is None and not flags:
        return None
    codes: list[str] = []
    known = bool(flags)
    if column is not None:
        cell = row.text(column.name)
        known = known or cell is not None
        words = [] if cell is None else cell.split(column.separator) if column.separator else [cell]
        meanings = column.values if column.values is not None else {code: code for code in FINDINGS}
        for word in (word.strip() for word in words):
            if word.lower() not in meanings:
                raise row.error(column.name, f"holds {word!r}; known are {', '.join(sorted(meanings))}")
            codes.extend(code for code in _flat([meanings[word.lower()]]) if code is not None)
    codes.extend(code for name, code in flags.items() if row.flag(name))
    return tuple(dict.fromkeys(codes)) if known else None
