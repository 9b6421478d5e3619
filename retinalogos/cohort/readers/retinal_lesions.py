"""Retinal-Lesions, version 20191227: Wei et al., ICPR 2020 (arXiv 1912.11619)."""

import re
from collections.abc import Iterator

from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import read_rows
from retinalogos.cohort.schema import LESION_CLASSES

# File of a mask → lesion class, the rarer painted over the more frequent.
MASKS = {
    "preretinal_hemorrhage": "preretinal_haemorrhage",
    "retinal_hemorrhage": "haemorrhage",
    "hard_exudate": "hard_exudate",
    "cotton_wool_spots": "soft_exudate",
    "microaneurysm": "microaneurysm",
}
# 127 marks what does not follow the guidelines for grading; the authors leave it out of their experiments.
MARKED = 255
_NAME = re.compile(r"(?P<patient>.+)_(?P<eye>left|right)(\.\w+)?$")


def read(source: Source) -> Iterator[Record]:
    """Reads ``dr_grades.csv`` (``image id``, ``our label``), ``images_896x896/`` and ``lesion_segs_896x896/<id>/``.

    Pictures are of EyePACS: names hold patient and eye. A lesion without a file is absent. Vitreous haemorrhage, new
    vessels and fibrous proliferation are marked too and are not used; the disc is not marked.

    Raises:
        DataError: a name is not ``<patient>_left`` or ``<patient>_right``.
    """
    assert source.folder is not None
    folder = source.folder / "images_896x896"
    files = images_by_stem(folder)
    for row in read_rows(source.folder / "dr_grades.csv", ("image id", "our label")):
        name = _NAME.match(row.given("image id"))
        if name is None:
            raise row.error("image id", f"holds {row.given('image id')!r}, expected <patient>_left or <patient>_right")
        image = image_of(files, folder, f"{name['patient']}_{name['eye']}.jpg")
        masks = source.folder / "lesion_segs_896x896" / image.stem
        present = [file for file in MASKS if (masks / f"{file}.png").is_file()]
        layers = [Layer(masks / f"{file}.png", {MARKED: LESION_CLASSES.index(MASKS[file])}) for file in present]
        yield Record(
            image=image,
            source="retinal_lesions",
            patient=name["patient"],
            eye=name["eye"],
            dr_grade=row.grade("our label"),
            labels=row.labels("our label", "kaggle label"),
            # The photograph with no meaning of its values: a map of its size without any lesion.
            maps={"lesions": (Layer(image, {}), *layers)},
            licence="on request, for research only",
        )
