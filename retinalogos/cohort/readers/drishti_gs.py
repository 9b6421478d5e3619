"""Drishti-GS1, glaucoma with disc and cup: Sivaswamy et al., ISBI 2014."""

from collections.abc import Iterator

from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import read_rows

GLAUCOMA = {"0": "no", "1": "glaucoma"}
NOTCHING = {"absent": None, "i": ("rim_notch",), "s": ("rim_notch",), "i and s": ("rim_notch",)}
EXPERTS = tuple(f"vcdr_expert{number}" for number in range(1, 5))


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``: image, disc and cup (majority of four experts), mean vertical cup-to-disc ratio.

    The set publishes no patient numbers, so two eyes of one person cannot be kept together.
    """
    assert source.folder is not None
    columns = ("image", "disc_mask", "cup_mask", "vcdr", "glaucoma", "notching")
    for row in read_rows(source.folder / "manifest.csv", columns):
        yield Record(
            image=source.folder / row.given("image"),
            source="drishti_gs",
            glaucoma=row.choice("glaucoma", GLAUCOMA),
            vcdr=row.number("vcdr"),
            findings=row.choice("notching", NOTCHING),
            labels=row.labels("split", "glaucoma", "notching", "tilt", "vcdr_from_masks", *EXPERTS),
            maps={
                "disc_cup": (
                    Layer(source.folder / row.given("disc_mask"), {255: 1}),
                    Layer(source.folder / row.given("cup_mask"), {255: 2}),
                )
            },
            licence="research use only",
        )
