"""HRF, high-resolution fundus images: Odstrcilik et al., IET Image Processing 2013, 7(4):373."""

from collections.abc import Iterator
from typing import Any

from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import read_rows

LABELS: dict[str, dict[str, Any]] = {
    "healthy": {"dr_grade": 0, "glaucoma": "no", "findings": ()},
    "diabetic retinopathy": {"findings": ("diabetic_retinopathy",)},
    "glaucoma": {"glaucoma": "glaucoma"},
}


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``: image, vessels, arteries and veins (1 artery, 2 vein, 3 crossing), patient group."""
    assert source.folder is not None
    for row in read_rows(source.folder / "manifest.csv", ("image", "vessel_mask", "av_mask", "label")):
        yield Record(
            image=source.folder / row.given("image"),
            source="hrf",
            labels=row.labels("label"),
            maps={
                "vessels": (
                    Layer(source.folder / row.given("vessel_mask"), {255: 3}),
                    Layer(source.folder / row.given("av_mask"), {1: 1, 2: 2, 3: 3}),
                )
            },
            licence="CC BY 4.0",
            **(row.choice("label", LABELS) or {}),
        )
