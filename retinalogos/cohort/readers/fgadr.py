"""FGADR, Seg-set: Zhou et al., IEEE Transactions on Medical Imaging 2021, 40(3):818."""

import csv
from collections.abc import Iterator

from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import Row
from retinalogos.cohort.schema import LESION_CLASSES
from retinalogos.errors import DataError, UsageError

# Folder of masks → lesion class, the rarer painted over the more frequent.
MASKS = {
    "Hemohedge_Masks": "haemorrhage",
    "HardExudate_Masks": "hard_exudate",
    "SoftExudate_Masks": "soft_exudate",
    "Microaneurysms_Masks": "microaneurysm",
}
GRADES = "DR_Seg_Grading_Label.csv"
# Masks are black and white, and smoothed at their borders in places.
_MARKED = range(128, 256)


def read(source: Source) -> Iterator[Record]:
    """Reads ``DR_Seg_Grading_Label.csv`` (name, grade; no header), ``Original_Images/`` and a folder of masks a lesion.

    No patient numbers are published: pictures whose names begin with the same number count as one person's. IRMA and
    new vessels are marked too and are not used; the disc is not marked.
    """
    assert source.folder is not None
    table, folder = source.folder / GRADES, source.folder / "Original_Images"
    if not table.is_file():
        raise UsageError(f"{table} not found: is this the folder Seg-set?")
    files = images_by_stem(folder)
    with table.open(newline="", encoding="utf-8-sig") as handle:
        for line, cells in enumerate(csv.reader(handle), start=1):
            if len(cells) < 2:
                raise DataError(f"{table}, row {line}: {cells} should be a name and a grade")
            row = Row(table, line, {"image": cells[0], "grade": cells[1]})
            image = image_of(files, folder, row.given("image"))
            layers = tuple(
                Layer(source.folder / masks / image.name, dict.fromkeys(_MARKED, LESION_CLASSES.index(lesion)))
                for masks, lesion in MASKS.items()
            )
            yield Record(
                image=image,
                source="fgadr",
                patient=image.stem.partition("_")[0],
                dr_grade=row.grade("grade"),
                labels=row.labels("grade"),
                maps={"lesions": layers},
                licence="non-commercial research only",
            )
