"""LES-AV, arteries and veins of 22 eyes: Orlando et al., MICCAI 2018."""

from collections.abc import Iterator

from retinalogos.cohort.readers.files import images_by_stem
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rite import ARTERY_VEIN_COLOURS
from retinalogos.errors import UsageError


def read(source: Source) -> Iterator[Record]:
    """Reads ``images``, ``masks`` (field of view), ``vessel-segmentations`` and ``arteries-and-veins``, one name each.

    Its colours are those of RITE.
    """
    assert source.folder is not None
    top = source.folder / "LES-AV"
    folder = top if top.is_dir() else source.folder
    kinds = ("images", "masks", "vessel-segmentations", "arteries-and-veins")
    for kind in kinds:
        if not (folder / kind).is_dir():
            raise UsageError(f"{folder / kind} is missing: `source` is the unpacked LES-AV.zip")
    images, fields, vessels, both = (images_by_stem(folder / kind) for kind in kinds)
    for stem, image in images.items():
        yield Record(
            image=image,
            source="les_av",
            maps={
                "vessels": (
                    Layer(vessels.get(stem, folder / kinds[2] / f"{stem}.png"), {255: 3}),
                    Layer(both.get(stem, folder / kinds[3] / f"{stem}.png"), ARTERY_VEIN_COLOURS),
                ),
                "fov": (Layer(fields.get(stem, folder / kinds[1] / f"{stem}.png"), {255: 255}),),
            },
            licence="scientific use only, no commercial use",
        )
