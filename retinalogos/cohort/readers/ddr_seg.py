"""DDR, lesion segmentation: Li et al., Information Sciences 2019, 501:511."""

from collections.abc import Iterator
from pathlib import Path

from retinalogos.cohort.readers.files import images_by_stem
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import Row
from retinalogos.cohort.schema import LESION_CLASSES
from retinalogos.errors import DataError, UsageError

SPLITS = ("train", "valid", "test")
# Folder of masks → lesion class, the rarer painted over the more frequent.
MASKS = {"HE": "haemorrhage", "EX": "hard_exudate", "SE": "soft_exudate", "MA": "microaneurysm"}
_MARKED = range(128, 256)
_UNGRADABLE = "5"


def read(source: Source) -> Iterator[Record]:
    """Reads ``lesion_segmentation/<split>/image`` with ``label/<lesion>``, and grades where ``DR_grading`` is there.

    The validation split's masks lie in ``segmentation label`` as published. No patient numbers are published; the disc
    is not marked. Of the grading lists, ``<split>.txt`` with a name and a grade a line, 5 is ungradable: no grade.
    """
    assert source.folder is not None
    folder = source.folder / "lesion_segmentation"
    if not folder.is_dir():
        raise UsageError(f"{folder} not found: `source` is the folder DDR-dataset, which holds it")
    grades = _grades(source.folder / "DR_grading")
    for split in SPLITS:
        images = images_by_stem(folder / split / "image")
        named = folder / split / "segmentation label"
        masks = named if named.is_dir() else folder / split / "label"
        for stem, image in images.items():
            row = grades.get(stem)
            yield Record(
                image=image,
                source="ddr_seg",
                dr_grade=None if row is None or row.text("grade") == _UNGRADABLE else row.grade("grade"),
                labels={"split": split} | ({} if row is None else row.labels("grade")),
                maps={
                    "lesions": tuple(
                        Layer(masks / name / f"{stem}.tif", dict.fromkeys(_MARKED, LESION_CLASSES.index(lesion)))
                        for name, lesion in MASKS.items()
                    )
                },
                licence="non-commercial research only",
            )


def _grades(folder: Path) -> dict[str, Row]:
    """Name of a picture → the line of a grading list that is about it."""
    found = {}
    for split in SPLITS:
        table = folder / f"{split}.txt"
        lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
        for number, line in enumerate(lines, start=1):
            name, space, grade = line.strip().rpartition(" ")
            if not space:
                raise DataError(f"{table}, row {number}: {line!r} should be a name and a grade")
            found[Path(name).stem] = Row(table, number, {"image": name, "grade": grade})
    return found
