"""One record to one row: decode, cut to the field of view, resize, judge, hash, encode. Runs in the workers."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinalogos.cohort.cubes import CUBE
from retinalogos.cohort.deidentify import OLDEST_AGE, deidentify_text
from retinalogos.cohort.duplicates import perceptual_hash
from retinalogos.cohort.field_of_view import find_field, place, square_image, square_map
from retinalogos.cohort.picture import UnusableImage, check_visible, open_photograph, read_classes
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.readers.record import Drawing, Record
from retinalogos.cohort.schema import LEAST_SHARE
from retinalogos.cohort.shards import encode_jpeg, encode_png

# A field that was decoded at this share of the stored size is enlarged; a smaller one is decoded anew with more pixels.
_LEAST_FILL = 0.95


@dataclass(frozen=True)
class Prepared:
    """A row without split and patient, and the perceptual hash of its picture."""

    row: dict[str, Any]
    hash: int


@dataclass(frozen=True)
class Rejected:
    """Why a record cannot become a row."""

    reason: str
    detail: str


def prepare(record: Record, size: int, jpeg_quality: int) -> Prepared | Rejected:
    """Makes the row of one record; a bad file is rejected with its reason, whatever is wrong with it."""
    try:
        image, maps, coverage, cube = _drawn(record) if callable(record.image) else _photographed(record, size)
        check_visible(image)
    except UnusableImage as error:
        return Rejected(error.reason, error.detail)
    encoded = encode_jpeg(image, jpeg_quality)
    image_id = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    row: dict[str, Any] = {
        "image_id": image_id,
        "eye": record.eye,
        "age": None if record.age is None else min(record.age, OLDEST_AGE),
        "sex": record.sex,
        "dr_grade": record.dr_grade,
        "dme": record.dme,
        "glaucoma": record.glaucoma,
        "vcdr": record.vcdr,
        "findings": None if record.findings is None else sorted(set(record.findings)),
        "report": None if record.report is None else deidentify_text(record.report),
        "labels": _labels(record),
        "quality": assess_quality(image, coverage).score,
        "source": record.source,
        "licence": record.licence,
        "width": size,
        "height": size,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "image": {"bytes": encoded, "path": f"{image_id}.jpg"},
        "truth": record.truth,
    }
    for name, classes in maps.items():
        row[name] = {"bytes": encode_png(classes), "path": f"{name}.png"}
    if cube is not None:
        row[CUBE] = dict(cube)
    return Prepared(row, perceptual_hash(image))


# Picture, maps, share of the field that is covered, cell of the column `cube`.
_Parts = tuple[np.ndarray, dict[str, np.ndarray], float, Mapping[str, Any] | None]


def _drawn(record: Record) -> _Parts:
    assert callable(record.image)
    drawing: Drawing = record.image()
    fov = drawing.maps.get("fov")
    coverage = 1.0 if fov is None else min(1.0, float((fov > 0).mean()) / (np.pi / 4))
    return drawing.image, dict(drawing.maps), coverage, drawing.cube


def _photographed(record: Record, size: int) -> _Parts:
    assert not callable(record.image)
    photograph = open_photograph(record.image)
    reduction = photograph.reduction(least=size)
    while True:
        image = photograph.pixels(reduction)
        frame = find_field(image)
        # A field that fills little of the frame needs more of the photograph's resolution.
        if reduction == 1 or frame.side(image) >= _LEAST_FILL * size:
            break
        reduction //= 2
    at = place(frame, image.shape[1], image.shape[0], size)
    maps = {
        name: square_map(read_classes(layers), frame, at, LEAST_SHARE[name]) for name, layers in record.maps.items()
    }
    return square_image(image, frame, at), maps, frame.coverage, None


def _labels(record: Record) -> str | None:
    if not record.labels:
        return None
    clean = {key: deidentify_text(value) if isinstance(value, str) else value for key, value in record.labels.items()}
    return json.dumps(clean, ensure_ascii=False, sort_keys=True)
