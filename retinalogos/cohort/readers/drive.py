"""DRIVE, vessels: Staal et al., IEEE TMI 2004, 23(4):501."""

from collections.abc import Iterator

from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import read_rows

# The set's documentation names what is seen in 7 of the 40; of the others it says nothing.
NOTES = {
    "background diabetic retinopathy": ("diabetic_retinopathy",),
    "pigment epithelium changes": ("rpe_changes",),
    "background diabetic retinopathy, pigmentary epithelial atrophy": ("diabetic_retinopathy", "rpe_changes"),
}


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``: image, vessels of the first observer, field of view."""
    assert source.folder is not None
    for row in read_rows(source.folder / "manifest.csv", ("image", "vessel_mask", "fov_mask")):
        yield Record(
            image=source.folder / row.given("image"),
            source="drive",
            findings=row.choice("pathology_note", NOTES),
            labels=row.labels("split", "pathology_note"),
            maps={
                "vessels": (Layer(source.folder / row.given("vessel_mask"), {255: 3}),),
                "fov": (Layer(source.folder / row.given("fov_mask"), {255: 255}),),
            },
            licence="research use only",
        )
