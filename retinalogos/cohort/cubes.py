"""Hyperspectral cubes in a cohort: one further column, present only where a cohort holds cubes.

A cube is reflectance at several wavelengths, bands × height × width, kept as uint16 with 65535 for a reflectance of 1.
Its bands are PNGs of 16 bits, one chunk each: lossless, compressed, opened by any program, and read one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from retinalogos.cohort.picture import UnusableImage
from retinalogos.errors import DataError

FULL_SCALE = 65535
CUBE = "cube"
FIELD = pa.field(CUBE, pa.struct([("bands", pa.list_(pa.binary())), ("wavelengths", pa.list_(pa.float32()))]))

# A band in which more than this share of the pixels is at full scale shows no fundus there.
_MOST_SATURATED = 0.05
# Side of the small copies on which the shift between bands is measured: it is found to about a tenth of their pixel.
_REGISTRATION_SIDE = 256

# Linear sRGB from XYZ, and luminance from linear sRGB (IEC 61966-2-1).
_SRGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# A band's share of the rendered light is found by integrating over the visible range in steps of 5 nm.
_VISIBLE = np.arange(380, 781, 5.0)
# Luminance of the brightest part of the fundus in a rendering: below white, so that the disc keeps its colour.
_BRIGHT, _BRIGHT_QUANTILE = 0.75, 0.995


@dataclass(frozen=True)
class Cube:
    """Reflectance at several wavelengths.

    Attributes:
        values: uint16, bands × height × width; 65535 is a reflectance of 1.
        wavelengths: nm, ascending, one for each band.
    """

    values: np.ndarray
    wavelengths: tuple[float, ...]

    @classmethod
    def of(cls, reflectance: np.ndarray, wavelengths: Sequence[float]) -> "Cube":
        """From reflectance 0-1 (clipped), bands × height × width."""
        values = np.clip(np.rint(reflectance * FULL_SCALE), 0, FULL_SCALE).astype(np.uint16)
        return cls(values, tuple(float(nm) for nm in wavelengths))

    @property
    def reflectance(self) -> np.ndarray:
        """float32 0-1, bands × height × width."""
        return self.values.astype(np.float32) / FULL_SCALE


def encode_cube(cube: Cube) -> dict[str, Any]:
    """The cell of the column ``cube``."""
    # Level 1: noise leaves little to compress, and higher levels cost many times as long for a few per cent.
    bands = [cv2.imencode(".png", band, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes() for band in cube.values]
    return {"bands": bands, "wavelengths": list(cube.wavelengths)}


def decode_cube(cell: dict[str, Any], bands: Sequence[int] | None = None) -> Cube:
    """The cube of a cell, or some of its bands by index.

    Raises:
        DataError: a band is damaged.
    """
    chosen = range(len(cell["bands"])) if bands is None else bands
    values = []
    for b in chosen:
        band = cv2.imdecode(np.frombuffer(cell["bands"][b], np.uint8), cv2.IMREAD_UNCHANGED)
        if band is None or band.dtype != np.uint16:
            raise DataError("a band of the cube is damaged; run `ingest_cubes` again")
        values.append(band)
    return Cube(np.stack(values), tuple(cell["wavelengths"][b] for b in chosen))


def check_spectra(reflectance: np.ndarray, wavelengths: Sequence[float] | None) -> None:
    """Refuses a cube that has no spectra; each reason is a short fixed phrase.

    Args:
        reflectance: bands × height × width.
        wavelengths: nm, or None where the source names none.

    Raises:
        UnusableImage: wavelengths missing, not as many as bands, not positive or not ascending, no pixel, or values
            that are not finite.
    """
    if wavelengths is None:
        raise UnusableImage("missing wavelengths", "the file names no wavelength for its bands")
    if len(reflectance) != len(wavelengths):
        raise UnusableImage("wrong band count", f"{len(reflectance)} bands, {len(wavelengths)} wavelengths")
    if not reflectance.size:
        raise UnusableImage("empty", "the cube has no pixel")
    if not np.isfinite(wavelengths).all() or not (np.diff([0, *wavelengths]) > 0).all():
        raise UnusableImage("wavelengths not ascending", ", ".join(f"{nm:g}" for nm in wavelengths))
    for nm, band in zip(wavelengths, reflectance, strict=True):
        if not np.isfinite(band).all():
            raise UnusableImage("not finite", f"band {nm:g} nm holds values that are no numbers")


def check_cube(reflectance: np.ndarray, wavelengths: Sequence[float] | None, expected: int, most_shift: float) -> None:
    """Refuses a cube that cannot be worked with; each reason is a short fixed phrase.

    Args:
        reflectance: bands × height × width.
        wavelengths: nm, or None where the source names none.
        expected: number of bands that the cohort has.
        most_shift: pixels by which a band may lie beside the one before it.

    Raises:
        UnusableImage: see :func:`check_spectra`; another number of bands, a saturated or empty band, or bands that do
            not lie on each other.
    """
    check_spectra(reflectance, wavelengths)
    assert wavelengths is not None
    if len(reflectance) != expected:
        raise UnusableImage("wrong band count", f"{len(reflectance)} bands, {expected} are expected")
    for nm, band in zip(wavelengths, reflectance, strict=True):
        if float((band >= 1).mean()) > _MOST_SATURATED:
            raise UnusableImage("saturated band", f"band {nm:g} nm: {(band >= 1).mean():.0%} of it is at full scale")
        if float(band.std()) <= 1 / FULL_SCALE:
            raise UnusableImage("empty band", f"band {nm:g} nm is of one value")
    shift = band_shifts(reflectance)
    worst = int(shift.argmax()) if len(shift) else 0
    if len(shift) and shift[worst] > most_shift:
        raise UnusableImage(
            "mis-registered bands", f"band {wavelengths[worst + 1]:g} nm lies {shift[worst]:.1f} pixels beside the last"
        )


def band_shifts(reflectance: np.ndarray) -> np.ndarray:
    """Shift in pixels of each band against the one before it (bands − 1), by phase correlation of their edges."""
    side = reflectance.shape[-1]
    small = min(side, _REGISTRATION_SIDE)
    window = cv2.createHanningWindow((small, small), cv2.CV_32F)
    edges = []
    for band in reflectance:
        # Contrast turns over between blue and infrared, so edges are compared and not grey levels.
        image = cv2.resize(
            np.log(np.maximum(band, 1e-4)).astype(np.float32), (small, small), None, 0, 0, cv2.INTER_AREA
        )
        image = cv2.GaussianBlur(image, (0, 0), 1.0)
        gradient = np.hypot(cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1))
        edges.append(gradient - gradient.mean())
    found = [np.linalg.norm(cv2.phaseCorrelate(one, other, window)[0]) for one, other in pairwise(edges)]
    return np.array(found) * side / small


def colour_matching(wavelengths: np.ndarray) -> np.ndarray:
    """CIE 1931 x̄, ȳ, z̄ at wavelengths in nm, 3 × n: fits of Wyman, Sloan & Shirley, J Comput Graph Tech 2013, 2:1."""

    def lobe(centre: float, below: float, above: float) -> np.ndarray:
        width = np.where(wavelengths < centre, below, above)
        return np.exp(-0.5 * ((wavelengths - centre) / width) ** 2)

    x = 1.056 * lobe(599.8, 37.9, 31.0) + 0.362 * lobe(442.0, 16.0, 26.7) - 0.065 * lobe(501.1, 20.4, 26.2)
    y = 0.821 * lobe(568.8, 46.9, 40.5) + 0.286 * lobe(530.9, 16.3, 31.1)
    z = 1.217 * lobe(437.0, 11.8, 36.0) + 0.681 * lobe(459.0, 26.0, 13.8)
    return np.stack([x, y, z])


def rgb_weights(wavelengths: Sequence[float]) -> np.ndarray:
    """Weight of each band in linear red, green and blue, 3 × bands; a white surface is white under any light.

    Between bands reflectance is interpolated, beyond them continued.
    """
    # What a reflectance of 1 in that band alone, interpolated, would give.
    spread = np.stack([np.interp(_VISIBLE, wavelengths, unit) for unit in np.eye(len(wavelengths))])
    weights = colour_matching(_VISIBLE) @ spread.T
    weights /= weights.sum(1, keepdims=True)
    return np.asarray(_SRGB / _SRGB.sum(1, keepdims=True) @ weights)


def render_rgb(reflectance: np.ndarray, wavelengths: Sequence[float]) -> np.ndarray:
    """The cube as the eye would see it under an equal-energy light: sRGB, uint8, height × width × 3.

    The exposure is the image's own.

    Args:
        reflectance: bands × height × width.
        wavelengths: nm.
    """
    linear = np.tensordot(rgb_weights(wavelengths), reflectance, 1)
    bright = float(np.quantile(np.tensordot(_LUMINANCE, linear, 1), _BRIGHT_QUANTILE))
    linear = np.clip(linear * (_BRIGHT / max(bright, 1e-6)), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.moveaxis(np.rint(255 * encoded), 0, -1).astype(np.uint8)
