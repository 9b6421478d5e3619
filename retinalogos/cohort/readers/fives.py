"""FIVES, vessels of 800 eyes: Jin et al., Scientific Data 2022, 9:475."""

from collections.abc import Iterator
from typing import Any

from retinalogos.cohort.readers.files import images_by_stem
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.errors import DataError, UsageError

# Last letter of a file's name: age-related macular degeneration, diabetic retinopathy, glaucoma, normal.
DISEASES: dict[str, dict[str, Any]] = {
    "A": {"findings": ("amd",)},
    "D": {"findings": ("diabetic_retinopathy",)},
    "G": {"glaucoma": "glaucoma"},
    "N": {"dr_grade": 0, "glaucoma": "no", "findings": ()},
}


def read(source: Source) -> Iterator[Record]:
    """Reads ``{train,test}/{Original,Ground truth}/12_A.png``: number and disease."""
    assert source.folder is not None
    for split in ("train", "test"):
        originals, truths = (source.folder / split / name for name in ("Original", "Ground truth"))
        if not originals.is_dir() or not truths.is_dir():
            raise UsageError(f"{originals} or {truths} is missing: `source` is the unpacked folder of FIVES")
        for stem, image in images_by_stem(originals).items():
            disease = stem.rpartition("_")[2]
            if disease not in DISEASES:
                raise DataError(f"{image}: a name of FIVES ends with _A, _D, _G or _N")
            yield Record(
                image=image,
                source="fives",
                labels={"split": split, "disease": disease},
                maps={"vessels": (Layer(truths / f"{stem}.png", {255: 3}),)},
                licence="CC BY 4.0",
                **DISEASES[disease],
            )
