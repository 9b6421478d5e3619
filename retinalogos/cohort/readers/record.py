"""What a reader yields: one eye image as its source describes it, in the vocabulary of the cohort."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Source:
    """Where a reader reads from.

    Attributes:
        folder: folder of the data set; None for readers that need none (`phantom`).
        mapping: column mapping of the `table` reader.
        n: number of eyes to draw (`phantom`); other readers ignore it.
        seed: seed of what is drawn (`phantom`).
        size: side in pixels at which pictures are drawn (`phantom`).
    """

    folder: Path | None = None
    mapping: Path | None = None
    n: int | None = None
    seed: int = 0
    size: int = 256


@dataclass(frozen=True)
class Layer:
    """One layer of a truth map: a label image and what its values mean.

    Attributes:
        image: single-channel label image of the frame of the photograph (any resolution).
        values: value in the file → class of the cohort's map; values left out paint nothing. Later
            layers paint over earlier ones.
        spread: what is labelled are centre lines: each pixel that earlier layers painted takes the class of the nearest
            one, and nothing else is painted.
    """

    image: Path
    values: Mapping[int, int]
    spread: bool = False


@dataclass(frozen=True)
class Drawing:
    """A picture that is drawn and not photographed: pixels and truth maps of their final form.

    Attributes:
        image: uint8, size × size × 3.
        maps: name of a cohort map → uint8, size × size.
        cube: what is stored in the column ``cube``, or None for a photograph.
    """

    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    cube: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Record:
    """One eye image with what its source says about it; None means that the source does not say.

    Attributes:
        image: file, encoded bytes, or a picklable function that draws the picture.
        source: name of the reader.
        patient: the source's identifier of the person, never stored; None where the source has none: every
            image is then taken for another person.
        eye: left or right.
        age: years.
        sex: female or male.
        dr_grade: ICDR 0-4.
        dme: diabetic macular oedema, 0 or 1.
        glaucoma: no, suspect or glaucoma.
        vcdr: vertical cup-to-disc ratio, 0-1.
        findings: codes of the vocabulary; () is examined and nothing found.
        report: free text of the source.
        labels: the source's own labels, as written there (no identifiers).
        maps: name of a cohort map → its layers, painted in this order.
        licence: licence of the source.
        truth: exact attributes of a phantom eye.
    """

    image: Path | bytes | Callable[[], Drawing]
    source: str
    patient: str | None = None
    eye: str | None = None
    age: float | None = None
    sex: str | None = None
    dr_grade: int | None = None
    dme: int | None = None
    glaucoma: str | None = None
    vcdr: float | None = None
    findings: tuple[str, ...] | None = None
    report: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    maps: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    licence: str | None = None
    truth: str | None = None

    @property
    def name(self) -> str:
        """Name of the file, or of what stands in its place."""
        # A cube is read by a function that knows its file.
        path = getattr(self.image, "path", self.image)
        return path.name if isinstance(path, Path) else f"{self.source} picture"
