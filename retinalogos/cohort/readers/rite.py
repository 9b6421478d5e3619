"""RITE, arteries and veins of DRIVE: Hu et al., MICCAI 2013 (training and test, 20 eyes each)."""

from collections.abc import Iterator
from pathlib import Path

from retinalogos.cohort.readers.files import images_by_stem
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.errors import UsageError

# The maps are red (artery), blue (vein), green (overlap) and white (uncertain); as grey, which is how layers are read,
# these are 76, 29, 150 and 255.
ARTERY_VEIN_COLOURS = {76: 1, 29: 2, 150: 3, 255: 3}


def read(source: Source) -> Iterator[Record]:
    """Reads ``AV_groundTruth/{training,test}/{images,vessel,av}``: 21_training.tif with 21_training.png and so on."""
    assert source.folder is not None
    top = source.folder / "AV_groundTruth"
    folder = top if top.is_dir() else source.folder
    for split in ("training", "test"):
        images = images_by_stem(_folder(folder / split / "images"))
        for stem, image in images.items():
            yield Record(
                image=image,
                source="rite",
                labels={"split": split},
                maps={
                    "vessels": (
                        Layer(folder / split / "vessel" / f"{stem}.png", {255: 3}),
                        Layer(folder / split / "av" / f"{stem}.png", ARTERY_VEIN_COLOURS),
                    )
                },
                licence="research use only",
            )


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UsageError(f"{path} is missing: `source` is the unpacked AV_groundTruth.zip of RITE")
    return path
