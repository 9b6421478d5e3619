"""Reads the attributes of phantom pictures back from their pixels: the judge of control on synthetic eyes.

Nothing but pixels goes in. The estimators are calibrated on phantom eyes drawn for the purpose (a seed of their own),
half of them blurred and half of those also halved in resolution, because generated pictures are softer than drawn ones:

* the disc is found by a multi-channel correlation filter, the least-squares filter whose response to every
  calibration eye is a peak at its disc (Bolme et al., CVPR 2010; several channels: Kiani Galoogahi et al., ICCV 2013);
* the vertical cup-to-disc ratio is support vector regression on the principal components of the patch around the disc;
* lesion loads are regressions on how much of the field is darker (brighter) than its surroundings by several margins,
  after openings that keep blots and specks apart from vessels.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from retinalogos.errors import UsageError
from retinalogos.phantom.draw import draw
from retinalogos.phantom.geometry import FIELD_MM
from retinalogos.phantom.lesions import LESION_CLASSES, lesion_loads
from retinalogos.phantom.records import sample_records

# Pictures are brought to this size: what the generators' first stage makes, and enough to see a cup.
_SIZE = 128
_COARSE = 64  # at which the disc is sought
_CALIBRATION_EYES = 300
_CALIBRATION_SEED = 20_260_607  # no cohort's: its eyes are not those that are judged
# Peak over standard deviation of the filter's response; measured: docs/phantom.md, "Reading the attributes back".
_FOUND = 9.0

_DARK = ("microaneurysm", "haemorrhage", "preretinal_haemorrhage")
_BRIGHT = ("hard_exudate", "soft_exudate")


def measure(images: np.ndarray) -> list[dict[str, Any]]:
    """Disc, cup and lesion load of phantom pictures, from pixels alone.

    The first call in a process calibrates (about ten to twenty seconds on one core); the result is the same in every
    process.

    Args:
        images: (n, h, w, 3) uint8 RGB, h = w, drawn phantoms or pictures of a generator trained on them.

    Returns:
        One dictionary a picture: ``disc_x``, ``disc_y`` (fractions of the picture from the top left), ``disc_side``
        ("left" or "right" half of the picture, which is the eye's side), ``vcdr`` (vertical cup-to-disc ratio),
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
    return [judge.read(_to_size(image, _SIZE)) for image in images]


@dataclass(frozen=True)
class _Judge:
    filters: np.ndarray  # (rows, columns, channels) complex, of the correlation
    cup: Pipeline
    dark: Pipeline
    bright: Pipeline

    def read(self, image: np.ndarray) -> dict[str, Any]:
        x, y, strength = _locate(image, self.filters)
        if strength < _FOUND:
            numbers = ("disc_x", "disc_y", "vcdr", "dark_load", "bright_load")
            return {"disc_side": None, **dict.fromkeys(numbers, math.nan)}
        features = _lesion_features(image, x, y)[None]
        vcdr = float(self.cup.predict(_disc_patch(image, x, y)[None])[0])
        # The regressions are of the square roots, which spread small loads.
        dark, bright = (max(float(model.predict(features)[0]), 0.0) ** 2 for model in (self.dark, self.bright))
        return {
            "disc_side": "left" if x < 0.5 else "right",
            "disc_x": round(x, 5),
            "disc_y": round(y, 5),
            "vcdr": round(min(max(vcdr, 0.0), 1.0), 5),
            "dark_load": round(dark, 7),
            "bright_load": round(bright, 7),
        }


def true_loads(areas: dict[str, float]) -> tuple[float, float]:
    """Dark and bright load, as ``measure`` estimates them, from the ``lesion_areas`` of a phantom's ``truth``."""
    return sum(areas[name] for name in _DARK), sum(areas[name] for name in _BRIGHT)


@lru_cache(maxsize=1)
def _calibrated() -> _Judge:
    # Flatter than the cohort's mix, so that every grade and cup size weighs in the fits.
    records = sample_records(_CALIBRATION_EYES, _CALIBRATION_SEED, (0.30, 0.14, 0.20, 0.18, 0.18), (0.5, 0.2, 0.3))
    rng = np.random.default_rng(_CALIBRATION_SEED)
    drawn = [eye.image for eye in draw(records, _SIZE)]
    pictures = drawn + [_soften(image, rng) for image in drawn]
    mirror = np.array([-1.0 if record.eye == "right" else 1.0 for record in records])
    disc = 0.5 + np.array([record.disc for record in records]) * np.stack([mirror, np.ones_like(mirror)], 1) / FIELD_MM
    disc = np.concatenate([disc, disc])
    filters = _fit_filters(pictures, disc)

    found = [_locate(image, filters)[:2] for image in pictures]
    vcdr = np.tile([record.vcdr for record in records], 2)
    # Each disc twice, the second time off its place by the error of the search.
    patches = [_disc_patch(image, x, y) for image, (x, y) in zip(pictures, found, strict=True)]
    shaken = np.array(found) + rng.normal(0, 0.006, (len(found), 2))
    patches += [_disc_patch(image, x, y) for image, (x, y) in zip(pictures, shaken, strict=True)]
    # Hyperparameters: chosen on eyes of another seed.
    cup = make_pipeline(StandardScaler(), PCA(80, random_state=0), SVR(C=1.0, epsilon=0.02))
    cup.fit(np.stack(patches), np.tile(vcdr, 2))

    features = np.stack([_lesion_features(image, x, y) for image, (x, y) in zip(pictures, found, strict=True)])
    loads = np.array(
        [true_loads(dict(zip(LESION_CLASSES[1:], lesion_loads(record)[1], strict=True))) for record in records]
    )
    models = []
    for target in np.sqrt(np.concatenate([loads, loads])).T:
        model = make_pipeline(StandardScaler(), SVR(C=0.3, epsilon=0.005, gamma=0.004))
        models.append(model.fit(features, target))
    return _Judge(filters, cup, *models)


def _to_size(image: np.ndarray, size: int) -> np.ndarray:
    if image.shape[0] == size:
        return image
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(image, (size, size), interpolation=how)


def _soften(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A generator's softness: blur up to 1.6 px, and for some a detour over half the resolution."""
    sigma = rng.uniform(0.3, 1.6)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    return _to_size(_to_size(image, _SIZE // 2), _SIZE) if rng.random() < 0.3 else image


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
    """(4, _COARSE, _COARSE): red, green and blue less their surroundings, and thin dark structures (vessels)."""
    small = _to_size(image, _COARSE).astype(np.float32)
    inside = _inside(small.astype(np.uint8), 3)
    contrast = (small - _local_mean(small, inside, 9.0)) * inside[..., None]
    area = max(float(inside.sum()), 1.0)
    contrast = contrast / (np.sqrt((contrast**2).sum((0, 1)) / area) + 2)
    green = cv2.GaussianBlur(small[..., 1], (0, 0), 0.5)
    vessels = (cv2.morphologyEx(green, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) - green) * inside
    vessels = vessels / (vessels.std() + 0.5)
    return np.clip(np.concatenate([contrast.transpose(2, 0, 1), vessels[None]]), -4, 4)


_HANNING = np.hanning(_COARSE + 2)[1:-1]
_WINDOW = np.outer(_HANNING, _HANNING) ** 0.25
_ROW, _COLUMN = np.mgrid[:_COARSE, :_COARSE]
# The disc lies near the horizontal midline and never in the middle of a picture of the posterior pole.
_PRIOR = np.exp(-(((_ROW - _COARSE / 2 + 0.5) / (0.16 * _COARSE)) ** 2) / 2)
_PRIOR = _PRIOR * (np.abs(_COLUMN - _COARSE / 2 + 0.5) > 0.08 * _COARSE)


def _spectrum(image: np.ndarray) -> np.ndarray:
    return np.fft.rfft2(_search_channels(image) * _WINDOW)


def _fit_filters(pictures: list[np.ndarray], disc: np.ndarray) -> np.ndarray:
    """Solves, frequency by frequency, for the channels' filters; each picture also serves mirrored."""
    rows, columns = _COARSE, _COARSE // 2 + 1
    gram = np.zeros((rows, columns, 4, 4), complex)
    cross = np.zeros((rows, columns, 4), complex)
    for image, (x, y) in zip(pictures, disc, strict=True):
        for picture, at in ((image, x), (image[:, ::-1], 1 - x)):
            spectrum = _spectrum(picture)
            distance = (_COLUMN + 0.5 - at * _COARSE) ** 2 + (_ROW + 0.5 - y * _COARSE) ** 2
            peak = np.fft.rfft2(np.exp(-distance / (2 * 1.5**2)))
            gram += np.einsum("chw,dhw->hwcd", spectrum.conj(), spectrum)
            cross += np.einsum("chw,hw->hwc", spectrum.conj(), peak)
    ridge = 0.02 * np.trace(gram, axis1=2, axis2=3).real.mean() / 4
    return np.linalg.solve(gram + ridge * np.eye(4), cross[..., None])[..., 0]


def _locate(image: np.ndarray, filters: np.ndarray) -> tuple[float, float, float]:
    """x, y (fractions) of the disc and the strength of the response: its peak over its standard deviation."""
    response = np.fft.irfft2(np.einsum("chw,hwc->hw", _spectrum(image), filters), s=(_COARSE, _COARSE)) * _PRIOR
    row, column = np.unravel_index(int(response.argmax()), response.shape)
    strength = float(response.max() / (response.std() + 1e-9))
    if not _inside(image, 1).any():
        strength = 0.0
    return (float(column) + 0.5) / _COARSE, (float(row) + 0.5) / _COARSE, strength


def _disc_patch(image: np.ndarray, x: float, y: float, half: float = 0.09, points: int = 24) -> np.ndarray:
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


def _lesion_features(image: np.ndarray, x: float, y: float) -> np.ndarray:
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
