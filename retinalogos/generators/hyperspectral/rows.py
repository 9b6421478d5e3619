"""A drawn cube as a row of a cohort, with its provenance."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from retinalogos.cohort.cubes import CUBE, FULL_SCALE, Cube, encode_cube, render_rgb
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.shards import encode_jpeg


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
