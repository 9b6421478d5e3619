"""APTOS 2019 blindness detection (Kaggle): ICDR grade per image."""

from collections.abc import Iterator

from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import read_rows


def read(source: Source) -> Iterator[Record]:
    """Reads ``train.csv`` (id_code, diagnosis) and ``train_images/<id_code>.png``; no patient numbers are published."""
    assert source.folder is not None
    folder = source.folder / "train_images"
    files = images_by_stem(folder)
    for row in read_rows(source.folder / "train.csv", ("id_code", "diagnosis")):
        yield Record(
            image=image_of(files, folder, f"{row.given('id_code')}.png"),
            source="aptos2019",
            dr_grade=row.grade("diagnosis"),
            labels=row.labels("diagnosis"),
            licence="Kaggle competition rules",
        )
