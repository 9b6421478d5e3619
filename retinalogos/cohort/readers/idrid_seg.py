"""IDRiD, lesion and disc segmentation: Porwal et al., Data 2018, 3(3):25."""

from collections.abc import Iterator

from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import read_rows
from retinalogos.cohort.schema import LESION_CLASSES

# Class map of the set → lesion class; 5 is the optic disc.
LESIONS = {1: "microaneurysm", 2: "haemorrhage", 3: "hard_exudate", 4: "soft_exudate"}
AREAS = {
    "MA_px_orig": "microaneurysm",
    "HE_px_orig": "haemorrhage",
    "EX_px_orig": "hard_exudate",
    "SE_px_orig": "soft_exudate",
}
DISC = 5


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``: image, class map and the area of each lesion (0: absent)."""
    assert source.folder is not None
    for row in read_rows(source.folder / "manifest.csv", ("image", "class_map", *AREAS)):
        classes = source.folder / row.given("class_map")
        yield Record(
            image=source.folder / row.given("image"),
            source="idrid_seg",
            findings=tuple(code for column, code in AREAS.items() if row.number(column)) or None,
            labels=row.labels("split", *AREAS),
            maps={
                "lesions": (Layer(classes, {value: LESION_CLASSES.index(name) for value, name in LESIONS.items()}),),
                "disc_cup": (Layer(classes, {DISC: 1}),),
            },
            licence="CC BY 4.0",
        )
