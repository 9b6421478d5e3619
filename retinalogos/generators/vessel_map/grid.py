"""Grids of drawn eyes: mask, photograph and enlargement beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from retinalogos.contact_sheet import make_sheet
from retinalogos.generators.vessel_map.cascade import Drawn
from retinalogos.generators.vessel_map.maps import to_colour
from retinalogos.provenance import write_png

_NAMES = ("mask", "photograph", "enlarged")
# Eyes in a row, each with three pictures.
_EYES = 2


def write_grid(path: Path, eyes: Sequence[Drawn], record: Mapping[str, str | int | float | None]) -> None:
    """Writes a PNG with its provenance: of each eye, in the order drawn, mask, photograph and enlargement."""
    pictures = [picture for eye in eyes for picture in (to_colour(eye.classes), eye.image, eye.enlarged)]
    labels = [f"{name}, {picture.shape[0]} px" for _, name, picture in zip(*_named(eyes), pictures, strict=True)]
    write_png(path, make_sheet(pictures, labels, columns=_EYES * len(_NAMES)), record)


def _named(eyes: Sequence[Drawn]) -> tuple[list[int], list[str]]:
    return [i for i in range(len(eyes)) for _ in _NAMES], [name for _ in eyes for name in _NAMES]
