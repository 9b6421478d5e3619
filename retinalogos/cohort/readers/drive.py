"""DRIVE, vessels: Staal et al., IEEE TMI 2004, 23(4):501; arteries and veins of 20 eyes: Qureshi et al., CBMS 2013."""

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
    """Reads ``manifest.csv``: image, vessels of the first observer, field of view, and where there are, centre lines.

    A vessel pixel is of the kind (1 artery, 2 vein, 3 crossing or not known) of the nearest centre line.
    """
    assert source.folder is not None
    for row in read_rows(source.folder / "manifest.csv", ("image", "vessel_mask", "fov_mask")):
        vessels = [Layer(source.folder / row.given("vessel_mask"), {255: 3})]
        if centre_lines := row.text("av_centerline"):
            vessels.append(Layer(source.folder / centre_lines, {1: 1, 2: 2, 3: 3}, spread=True))
        yield Record(
            image=source.folder / row.given("image"),
            source="drive",
            findings=row.choice("pathology_note", NOTES),
            labels=row.labels("split", "pathology_note"),
            maps={
                "vessels": tuple(vessels),
                "fov": (Layer(source.folder / row.given("fov_mask"), {255: 255}),),
            },
            licence="research use only",
        )
