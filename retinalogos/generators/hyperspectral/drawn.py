"""A drawn cube with its provenance: as a row of a cohort, and as files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from retinalogos.cohort.cubes import CUBE, FULL_SCALE, Cube, encode_cube, render_rgb
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.shards import encode_jpeg
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.provenance import NOTICE, software, write_png

Provenance = dict[str, str | int | float | None]


def provenance(pipeline: CubePipeline, weights: str, seed: int, steps: int | None, size: int) -> Provenance:
    """What is noted of a drawn cube.

    Args:
        pipeline: that drew it.
        weights: content hash of the generator.
        seed: that it was drawn with.
        steps: network evaluations; None for the generator's own.
        size: pixels of the side.
    """
    return {
        "synthetic": "true",
        "notice": NOTICE,
        "generator": type(pipeline).__name__,
        "generator_sha256": weights,
        "seed": seed,
        "steps": steps or pipeline.config.steps,
        "size": size,
        "software": software(),
    }


def write_cube(
    to: Path | BinaryIO, picture: Path | BinaryIO, cube: np.ndarray, wavelengths: Sequence[float], record: Provenance
) -> None:
    """Writes a drawn cube, and its rendering in colour, each with its provenance.

    Args:
        to: of the NumPy archive: ``cube`` (uint16), ``wavelengths`` in nm, ``provenance`` (JSON).
        picture: of the PNG.
        cube: uint16, bands × size × size.
        wavelengths: nm.
        record: its provenance.
    """
    # The names are the file format's; NumPy takes any.
    parts: dict[str, Any] = {"cube": cube, "wavelengths": np.array(wavelengths), "provenance": json.dumps(record)}
    np.savez_compressed(to, **parts)
    write_png(picture, render_rgb(cube / FULL_SCALE, wavelengths), record)


def synthetic_row(values: np.ndarray, wavelengths: Sequence[float], generator: str, seed: int) -> dict[str, Any]:
    """The row of one synthetic cube.

    Args:
        values: uint16, bands × size × size.
        wavelengths: nm.
        generator: name and content hash.
        seed: that it was drawn with.
    """
    rendered = render_rgb(values / FULL_SCALE, wavelengths)
    picture = encode_jpeg(rendered)
    digest = hashlib.sha256(values.tobytes() + seed.to_bytes(8, "little")).hexdigest()
    return {
        "image_id": digest[:16],
        "patient_id": f"synthetic-{seed:010d}",
        "quality": assess_quality(rendered, coverage=1.0).score,
        "split": "train",
        "source": "synthetic",
        "licence": "synthetic; the terms of the training data apply",
        "width": values.shape[-1],
        "height": values.shape[-2],
        "sha256": hashlib.sha256(picture).hexdigest(),
        "image": {"bytes": picture, "path": f"{digest[:16]}.jpg"},
        "generator": generator,
        "seed": seed,
        CUBE: encode_cube(Cube(values, tuple(wavelengths))),
    }
