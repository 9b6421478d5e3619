"""Messidor-2 with the adjudicated grades of Krause et al., Ophthalmology 2018, 125(8):1264."""

from collections.abc import Iterator
from pathlib import Path

from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import Row, read_rows

YES = {"0": 0, "1": 1}
# The grades were published twice, with other column names.
GRADES = ("messidor_data.csv", "messidor-2_grades.csv")
COLUMNS = (("image_id", "adjudicated_dr_grade"), ("id_code", "diagnosis"))


def read(source: Source) -> Iterator[Record]:
    """Reads the grades (image_id, adjudicated_dr_grade, adjudicated_dme, adjudicated_gradable) and ``IMAGES``.

    With ``messidor-2.csv`` (left;right: the two pictures of a patient) the patients and eyes are known. Pictures that
    the graders called ungradable have no grade.
    """
    assert source.folder is not None
    table = next((source.folder / name for name in GRADES if (source.folder / name).is_file()), None)
    table = table or source.folder / GRADES[0]
    files = images_by_stem(source.folder)
    pairs = _pairs(source.folder / "messidor-2.csv")
    for row in read_rows(table, ("adjudicated_dme", "adjudicated_gradable")):
        name_column, grade_column = _columns(row)
        name = row.given(name_column)
        patient, eye = pairs.get(Path(name).stem.lower(), (None, None))
        yield Record(
            image=image_of(files, source.folder / "IMAGES", name),
            source="messidor2",
            patient=patient,
            eye=eye,
            dr_grade=row.grade(grade_column),
            dme=row.choice("adjudicated_dme", YES),
            labels=row.labels(grade_column, "adjudicated_dme", "adjudicated_gradable"),
            licence="research use, on request",
        )


def _columns(row: Row) -> tuple[str, str]:
    for columns in COLUMNS:
        if all(column in row.cells for column in columns):
            return columns
    raise row.error(COLUMNS[0][0], f"is missing; expected {' or '.join(map(str, COLUMNS))}")


def _pairs(file: Path) -> dict[str, tuple[str, str]]:
    if not file.is_file():
        return {}
    eyes: dict[str, tuple[str, str]] = {}
    for row in read_rows(file, ("left", "right"), delimiter=";"):
        for eye in ("left", "right"):
            name = row.text(eye)
            if name is not None:
                eyes[Path(name).stem.lower()] = (f"pair {row.line}", eye)
    return eyes
