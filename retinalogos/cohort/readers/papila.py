"""PAPILA, both eyes of the patients of a glaucoma clinic: Kovalyk et al., Scientific Data 2022, 9:291."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import Row
from retinalogos.errors import DataError, UsageError

GLAUCOMA = {"0": "no", "1": "glaucoma", "2": "suspect"}
SEX = {"0": "male", "1": "female"}
EYES = {"od": "right", "os": "left"}

# Headings stand in two rows, the second under merged cells; the columns have always been in this order.
COLUMNS = (
    "ID",
    "Age",
    "Gender",
    "Diagnosis",
    "dioptre_1",
    "dioptre_2",
    "astigmatism",
    "Phakic/Pseudophakic",
    "Pneumatic",
    "Perkins",
    "Pachymetry",
    "Axial_Length",
    "VF_MD",
)
_SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read(source: Source) -> Iterator[Record]:
    """Reads ``ClinicalData/patient_data_od.xlsx`` and ``_os.xlsx`` and ``FundusImages/RET<number><OD|OS>.jpg``.

    Raises:
        UsageError: a workbook is missing.
        DataError: a workbook is broken; the message names the file, row and column.
    """
    assert source.folder is not None
    for side, eye in EYES.items():
        for row in _workbook(source.folder / "ClinicalData" / f"patient_data_{side}.xlsx"):
            number = row.given("ID").lstrip("#")
            yield Record(
                image=source.folder / "FundusImages" / f"RET{number}{side.upper()}.jpg",
                source="papila",
                patient=number,
                eye=eye,
                age=row.number("Age"),
                sex=row.choice("Gender", SEX),
                glaucoma=row.choice("Diagnosis", GLAUCOMA),
                labels=row.labels(*COLUMNS[3:]),
                licence="CC BY 4.0",
            )


def _workbook(file: Path) -> Iterator[Row]:
    """Rows of the first sheet whose first cell is a patient's number (``#002``)."""
    if not file.is_file():
        raise UsageError(f"{file} not found: is this the folder of PAPILA?")
    try:
        with ZipFile(file) as archive:
            words = _shared_words(archive)
            sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    except (BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise DataError(f"{file}: not a readable Excel workbook ({error})") from None
    for row in sheet.iter(f"{_SHEET}row"):
        cells: dict[str, Any] = {}
        for cell in row.iter(f"{_SHEET}c"):
            letters = cell.get("r", "A").rstrip("0123456789")
            place = ord(letters) - ord("A") if len(letters) == 1 else len(COLUMNS)
            if place < len(COLUMNS):
                cells[COLUMNS[place]] = _text(cell, words)
        if (cells.get("ID") or "").startswith("#"):
            yield Row(file, int(row.get("r", 0)), cells)


def _shared_words(archive: ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    table = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
    return ["".join(part.text or "" for part in item.iter(f"{_SHEET}t")) for item in table.iter(f"{_SHEET}si")]


def _text(cell: ElementTree.Element, words: list[str]) -> str | None:
    if cell.get("t") == "inlineStr":
        return "".join(part.text or "" for part in cell.iter(f"{_SHEET}t"))
    value = cell.findtext(f"{_SHEET}v")
    return words[int(value)] if value is not None and cell.get("t") == "s" else value
