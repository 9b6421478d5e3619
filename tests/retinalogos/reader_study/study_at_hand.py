"""Cohorts to draw a study from, and readers who answer as a test tells them to."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinalogos.cohort.shards import CohortWriter, encode_png
from retinalogos.reader_study.answers import Answer, Book, Ratings, start_book
from retinalogos.reader_study.design import ASPECTS, Picture, Study

GRADES = (0, 0, 1, 2, 4)


def photograph(pixels: np.ndarray) -> bytes:
    """A JPEG as a camera would leave it, with a name in its metadata."""
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif, comment=b"SecretComment", quality=90)
    return buffer.getvalue()


def write_cohort(folder: Path, kind: str, count: int, side: int, grades=GRADES, per_patient: int = 1) -> Path:
    rng = np.random.default_rng(["real", "synthetic"].index(kind))
    with CohortWriter(folder, kind) as writer:
        for index in range(count):
            pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
            writer.add(
                {
                    "image_id": f"{kind[0]}{index:015d}",
                    "patient_id": f"patient-{kind}-{index // per_patient}",
                    "eye": "left",
                    "dr_grade": grades[index % len(grades)],
                    "glaucoma": "no",
                    "split": "train" if kind == "real" and index % 10 == 9 else "test",
                    "source": "hospital" if kind == "real" else "synthetic",
                    "width": side,
                    "height": side,
                    "sha256": f"{index:064x}",
                    "image": {"bytes": photograph(pixels) if kind == "real" else encode_png(pixels), "path": "x"},
                    "generator": None if kind == "real" else "Net:0123",
                }
            )
    return folder


# (picture, whether it is seen again) → "real" or "synthetic", and scores by aspect.
Judge = Callable[[Picture, bool], tuple[str, dict[str, Any]]]


def scores(value: int | None = 2, **other: int | None) -> dict[str, Any]:
    """The same score for every aspect but those named."""
    return {**dict.fromkeys(ASPECTS, value), **other}


def answer_of(book: Book, judged: str, ratings: dict[str, Any], seconds: float | None = 5.0) -> Answer:
    """An answer to the next picture of a reader."""
    trial = len(book.answers)
    of = book.order[trial]
    return Answer(
        trial=trial, picture=of.picture, repeat=of.repeat, judged=judged, ratings=Ratings(**ratings), seconds=seconds
    )


def read(folder: Path, study: Study, name: str, judge: Judge, role: str = "other", most: int | None = None) -> Book:
    """Lets a reader answer all pictures, or the first ``most``."""
    pictures = {picture.name: picture for picture in study.pictures}
    book = start_book(folder, study, name, role)
    for trial in book.order[:most]:
        book.add(answer_of(book, *judge(pictures[trial.picture], trial.repeat)))
    return book
