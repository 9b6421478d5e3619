"""EyePACS diabetic retinopathy detection (Kaggle 2015): ICDR grade of both eyes of a patient."""

import re
from collections.abc import Iterator

from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import read_rows

_NAME = re.compile(r"(?P<patient>.+)_(?P<eye>left|right)$")


def read(source: Source) -> Iterator[Record]:
    """Reads ``trainLabels.csv`` (image, level) and ``train/<patient>_<eye>.jpeg``.

    Raises:
        DataError: a name is not ``<patient>_left`` or ``<patient>_right``.
    """
    assert source.folder is not None
    folder = source.folder / "train"
    files = images_by_stem(folder)
    for row in read_rows(source.folder / "trainLabels.csv", ("image", "level")):
        name = _NAME.match(row.given("image"))
        if name is None:
            raise row.error("image", f"holds {row.given('image')!r}, expected <patient>_left or <patient>_right")
        yield Record(
            image=image_of(files, folder, f"{name.string}.jpeg"),
            source="eyepacs",
            patient=name["patient"],
            eye=name["eye"],
            dr_grade=row.grade("level"),
            labels=row.labels("level"),
            licence="Kaggle competition rules",
        )
