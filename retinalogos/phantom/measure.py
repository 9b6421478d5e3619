"""Reads the attributes of phantom pictures back from their pixels: the judge of control on synthetic eyes.

Nothing but pixels goes in. The estimators are calibrated on phantom eyes drawn for the purpose; what was learnt lies
in ``calibration.npz``, which ``python -m retinalogos.phantom.calibrate`` writes, and must write anew whenever the
drawing changes:

* the disc is found by a multi-channel correlation filter, the least-squares filter whose response to every
  calibration eye is a peak at its disc (Bolme et al., CVPR 2010; several channels: Kiani Galoogahi et al., ICCV 2013);
* the vertical cup-to-disc ratio is support vector regression on the principal components of the patch around the disc;
* lesion loads are regressions on how much of the field is darker (brighter) than its surroundings by several margins,
  after openings that keep blots and specks apart from vessels.
"""

import math
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from retinalogos.errors import UsageError
from retinalogos.phantom.geometry import FIELD_MM

CALIBRATION = Path(__file__).with_name("calibration.npz")
# Pictures are brought to this size: what the generators' first stage makes, and enough to see a cup.
SIZE = 128
COARSE = 64  # at which the disc is sought
# Where the fovea lies from the disc, in shares of the picture's side, and how far off it is still sought: 4.76 mm at 7
# degrees below (docs/phantom.md), and about three standard deviations of phantom eyes.
_TO_FOVEA = (4.76 / FIELD_MM * math.cos(math.radians(7)), 4.76 / FIELD_MM * math.sin(math.radians(7)))
_AROUND = 0.08
# Peak over standard deviation of the filter's response; measured: docs/phantom.md, "Reading the attributes back".
_FOUND = 9.0

_DARK = ("microaneurysm", "haemorrhage", "preretinal_haemorrhage")
_BRIGHT = ("hard_exudate", "soft_exudate")


def measure(images: np.ndarray) -> list[dict[str, Any]]:
    """Disc, cup and lesion load of phantom pictures, from pixels alone.

    Args:
        images: (n, h, w, 3) uint8 RGB, h = w, drawn phantoms or pictures of a generator trained on them.

    Returns:
        One dictionary a picture: ``disc_x``, ``disc_y`` (fractions of the picture from the top left), ``disc_side``
        ("left" or "right" half of the picture, which is the eye's side), ``fovea_x``, ``fovea_y`` (the place that looks
        most like a fovea where one is to be expected), ``vcdr`` (vertical cup-to-disc ratio),
        ``dark_load`` and ``bright_load`` (microaneurysms, haemorrhages and preretinal blood; hard and soft exudates:
        share of the field's area). Where the disc cannot be found ``disc_side`` is None and all numbers are nan.

    Raises:
        UsageError: another shape or type.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or images.shape[1] != images.shape[2]:
        raise UsageError(f"images are {images.dtype} {images.shape}: give uint8 of shape (n, size, size, 3)")
    if not len(images):
        return []
    judge = _calibrated()
    return [judge.read(to_size(image, SIZE)) for image in images]


@dataclass(frozen=True)
class Regression:
    """Support vector regression with a Gaussian kernel on projected features, as plain arrays."""

    projection: np.ndarray  # (features, k)
    offset: np.ndarray  # (k,)
    support: np.ndarray  # (vectors, k)
    weights: np.ndarray  # (vectors,)
    constants: np.ndarray  # gamma, intercept

    def __call__(self, features: np.ndarray) -> float:
        gamma, intercept = self.constants
        z = features @ self.projection - self.offset
        return float(np.exp(-gamma * ((self.support - z) ** 2).sum(1)) @ self.weights + intercept)


REGRESSIONS = ("cup", "dark", "bright")


@dataclass(frozen=True)
class _Judge:
    filters: np.ndarray  # (rows, columns, channels) complex, of the correlation with the disc
    fovea_filters: np.ndarray  # as filters, of that with the fovea
    cup: Regression
    dark: Regression
    bright: Regression

    def read(self, image: np.ndarray) -> dict[str, Any]:
        x, y, strength = locate(image, self.filters)
        if strength < _FOUND:
            numbers = ("disc_x", "disc_y", "fovea_x", "fovea_y", "vcdr", "dark_load", "bright_load")
            return {"disc_side": None, **dict.fromkeys(numbers, math.nan)}
        fovea_x, fovea_y = locate_fovea(image, self.fovea_filters, x, y)
        features = lesion_features(image, x, y)
        # The regressions are of the square roots, which spread small loads.
        dark, bright = (max(regression(features), 0.0) ** 2 for regression in (self.dark, self.bright))
        return {
            "disc_side": "left" if x < 0.5 else "right",
            "disc_x": round(x, 5),
            "disc_y": round(y, 5),
            "fovea_x": round(fovea_x, 5),
            "fovea_y": round(fovea_y, 5),
            "vcdr": round(min(max(self.cup(disc_patch(image, x, y)), 0.0), 1.0), 5),
            "dark_load": round(dark, 7),
            "bright_load": round(bright, 7),
        }


def true_loads(areas: dict[str, float]) -> tuple[float, float]:
    """Dark and bright load, as ``measure`` estimates them, from the ``lesion_areas`` of a phantom's ``truth``."""
    return sum(areas[name] for name in _DARK), sum(areas[name] for name in _BRIGHT)


@lru_cache(maxsize=1)
def _calibrated() -> _Judge:
    with np.load(CALIBRATION) as arrays:
        names = [field.name for field in fields(Regression)]
        models = [
            Regression(**{name: arrays[f"{model}_{name}"].astype(float) for name in names}) for model in REGRESSIONS
        ]
        return _Judge(arrays["filters"], arrays["fovea_filters"], *models)


def to_size(image: np.ndarray, size: int) -> np.ndarray:
    """The square picture at ``size`` pixels."""
    if image.shape[0] == size:
        return image
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(image, (size, size), interpolation=how)


# --- the disc -----------------------------------------------------------------------------------------------------


def _inside(image: np.ndarray, erode: int) -> np.ndarray:
    """Field of view as float 0 or 1: not black, shrunk by ``erode`` pixels' structuring element."""
    lit = (cv2.GaussianBlur(image, (0, 0), 1.0).max(-1) > 18).astype(np.uint8)
    return cv2.erode(lit, np.ones((erode, erode), np.uint8), borderValue=0).astype(np.float32)


def _local_mean(values: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over the field alone, so that its border casts no shadow."""
    weight = np.maximum(cv2.GaussianBlur(inside, (0, 0), sigma), 0.05)
    if values.ndim == 3:
        return cv2.GaussianBlur(values * inside[..., None], (0, 0), sigma) / weight[..., None]
    return cv2.GaussianBlur(values * inside, (0, 0), sigma) / weight


def _search_channels(image: np.ndarray) -> np.ndarray:
    """(4, COARSE, COARSE): red, green and blue less their surroundings, and thin dark structures (vessels)."""
    small = to_size(image, COARSE).astype(np.float32)
    inside = _inside(small.astype(np.uint8), 3)
    contrast = (small - _local_mean(small, inside, 9.0)) * inside[..., None]
    area = max(float(inside.sum()), 1.0)
    contrast = contrast / (np.sqrt((contrast**2).sum((0, 1)) / area) + 2)
    green = cv2.GaussianBlur(small[..., 1], (0, 0), 0.5)
    vessels = (cv2.morphologyEx(green, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) - green) * inside
    vessels = vessels / (vessels.std() + 0.5)
    return np.clip(np.concatenate([contrast.transpose(2, 0, 1), vessels[None]]), -4, 4)


_HANNING = np.hanning(COARSE + 2)[1:-1]
_WINDOW = np.outer(_HANNING, _HANNING) ** 0.25
ROW, COLUMN = np.mgrid[:COARSE, :COARSE]
# The disc lies near the horizontal midline and never in the middle of a picture of the posterior pole.
_PRIOR = np.exp(-(((ROW - COARSE / 2 + 0.5) / (0.16 * COARSE)) ** 2) / 2)
_PRIOR = _PRIOR * (np.abs(COLUMN - COARSE / 2 + 0.5) > 0.08 * COARSE)


def spectrum(image: np.ndarray) -> np.ndarray:
    """Real Fourier transform (4, COARSE, COARSE // 2 + 1) of the windowed search channels."""
    return np.fft.rfft2(_search_channels(image) * _WINDOW)


def locate(image: np.ndarray, filters: np.ndarray) -> tuple[float, float, float]:
    """x, y (fractions) of the disc and the strength of the response: its peak over its standard deviation."""
    response = _response(image, filters) * _PRIOR
    row, column = np.unravel_index(int(response.argmax()), response.shape)
    strength = float(response.max() / (response.std() + 1e-9))
    if not _inside(image, 1).any():
        strength = 0.0
    return (float(column) + 0.5) / COARSE, (float(row) + 0.5) / COARSE, strength


def _response(image: np.ndarray, filters: np.ndarray) -> np.ndarray:
    return np.asarray(np.fft.irfft2(np.einsum("chw,hwc->hw", spectrum(image), filters), s=(COARSE, COARSE)))


def locate_fovea(image: np.ndarray, filters: np.ndarray, disc_x: float, disc_y: float) -> tuple[float, float]:
    """x, y (fractions) of the fovea, between coarse pixels, sought temporally of the disc at these fractions."""
    to_right = _TO_FOVEA[0] if disc_x < 0.5 else -_TO_FOVEA[0]
    distance = np.hypot((COLUMN + 0.5) / COARSE - disc_x - to_right, (ROW + 0.5) / COARSE - disc_y - _TO_FOVEA[1])
    near = np.exp(-((distance / _AROUND) ** 2) / 2)
    response = np.maximum(_response(image, filters), 0) * near
    row, column = np.unravel_index(int(response.argmax()), response.shape)
    # The centre of the peak: its place in between.
    peak = response * (np.hypot(ROW - row, COLUMN - column) < 2.5)
    weight = max(float(peak.sum()), 1e-12)
    return (
        (float((peak * COLUMN).sum()) / weight + 0.5) / COARSE,
        (float((peak * ROW).sum()) / weight + 0.5) / COARSE,
    )


def disc_patch(image: np.ndarray, x: float, y: float, half: float = 0.09, points: int = 24) -> np.ndarray:
    """Square of ``2 * half`` of the picture about the disc, nasal side left, contrast stretched; flat."""
    size = image.shape[0]
    step = 2 * half * size / points
    flip = -1.0 if x > 0.5 else 1.0
    middle = step * (points - 1) / 2
    where = np.array([[flip * step, 0, x * size - 0.5 - flip * middle], [0, step, y * size - 0.5 - middle]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(
        image.astype(np.float32), where, (points, points), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    root = np.sqrt(np.maximum(patch, 0))
    low, high = np.percentile(root, [10, 97], axis=(0, 1))
    return np.clip((root - low) / (high - low + 0.5), -1, 2).ravel()


# --- lesions --------------------------------------------------------------------------------------------------------


def _line(length: int, degrees: float) -> np.ndarray:
    element = np.zeros((length, length), np.uint8)
    centre = (length - 1) / 2
    dx, dy = centre * math.cos(math.radians(degrees)), centre * math.sin(math.radians(degrees))
    cv2.line(element, (round(centre - dx), round(centre - dy)), (round(centre + dx), round(centre + dy)), 1)
    return element


_LINES = [_line(9, 22.5 * k) for k in range(8)]
_SQUARE = np.ones((3, 3), np.uint8)
_ROUND = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def lesion_features(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """How much of the field, without the disc at (x, y), is darker or brighter than its surroundings, and how."""
    size = image.shape[0]
    inside = _inside(image, 5)
    row, column = np.mgrid[:size, :size]
    field = (inside > 0) & (np.hypot(column + 0.5 - x * size, row + 0.5 - y * size) > 0.10 * size)
    if not field.any():
        field = np.ones_like(field)
    logarithm = np.log(image.astype(np.float32) + 4)
    contrast = (logarithm - _local_mean(logarithm, inside, 7.0)) * inside[..., None]
    features = []
    for channel in range(3):
        for sign in (-1, 1):
            excess = np.maximum(sign * contrast[..., channel], 0)
            along = np.max([cv2.morphologyEx(excess, cv2.MORPH_OPEN, line) for line in _LINES], axis=0)
            opened = [cv2.morphologyEx(excess, cv2.MORPH_OPEN, element) for element in (_SQUARE, _ROUND)]
            # As it is, without specks, blots alone, and specks without lines.
            for values in (excess, *opened, excess - along):
                seen = values[field]
                features += [math.sqrt((seen > margin).mean()) for margin in (0.04, 0.08, 0.16, 0.30)]
                features.append(math.sqrt(seen.mean()))
    return np.array(features)
