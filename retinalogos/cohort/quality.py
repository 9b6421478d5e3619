"""Quality of a fundus photograph, 0 (unusable) to 1, from four simple measures."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

# Quality is measured at one size, so that it does not depend on the size of the stored image.
MEASURED_SIDE = 128
# The light varies slowly: so many pixels across show it.
_LIGHT_SIDE = 16
# Windows of the two blurs: three standard deviations to each side.
_FINE, _COARSE = (5, 5), (13, 13)

# Grey levels at which a measure is full (1): the medians of ODIR-5K at 128 pixels.
FULL_SHARPNESS = 2.7
FULL_CONTRAST = 32.0


@dataclass(frozen=True)
class Quality:
    """The four measures, each 0-1, and their geometric mean."""

    sharpness: float
    contrast: float
    illumination: float
    coverage: float

    @property
    def score(self) -> float:
        """Geometric mean: one bad measure makes a bad picture."""
        product = self.sharpness * self.contrast * self.illumination * self.coverage
        return float(product**0.25)


def assess_quality(image: np.ndarray, coverage: float) -> Quality:
    """Sharpness, contrast and evenness of light of the green channel, where vessels and lesions stand out best.

    - sharpness: standard deviation of the band between Gaussian blurs of 0.7 and 2 pixels at 128 pixels across
      (structures the width of a vessel), over ``FULL_SHARPNESS`` grey levels, at most 1;
    - contrast: 5th to 95th percentile of what is left when the light (a Gaussian blur of an eighth of the width, within
      the field) is taken away, over ``FULL_CONTRAST`` grey levels, at most 1;
    - illumination: 1 - (standard deviation of that light) / (its mean), at least 0;
    - coverage: share of the field's ellipse that is lit.

    Args:
        image: uint8, side × side × 3, cropped to the field of view.
        coverage: as of :func:`retinalogos.cohort.field_of_view.find_field`.
    """
    green = cv2.extractChannel(image, 1)
    if green.shape[0] > MEASURED_SIDE:
        green = cv2.resize(green, (MEASURED_SIDE, MEASURED_SIDE), interpolation=cv2.INTER_AREA)
    level = green.astype(np.float32)  # OpenCV blurs floats three times as fast as bytes
    fine = cv2.GaussianBlur(level, _FINE, 0.7) - cv2.GaussianBlur(level, _COARSE, 2.0)
    # Of pairs of pixels: noise of single pixels is no contrast.
    half = cv2.resize(green, (green.shape[1] // 2, green.shape[0] // 2), interpolation=cv2.INTER_AREA)
    light = _light(half)
    wide = cv2.resize(light, half.shape[::-1], interpolation=cv2.INTER_LINEAR)
    ranked = np.sort(cv2.subtract(half, wide, dtype=cv2.CV_32F)[_disc(half.shape[0]) > 0])
    low, high = ranked[len(ranked) // 20], ranked[-(len(ranked) // 20) - 1]
    mean, deviation = _moments(light)
    return Quality(
        sharpness=min(1.0, _moments(fine)[1] / FULL_SHARPNESS),
        contrast=min(1.0, float(high - low) / FULL_CONTRAST),
        illumination=max(0.0, 1.0 - deviation / max(1.0, mean)),
        coverage=coverage,
    )


def _moments(plane: np.ndarray) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(plane, mask=_disc(plane.shape[0]))
    return float(mean[0, 0]), float(deviation[0, 0])


def _light(plane: np.ndarray) -> np.ndarray:
    # Blur within the disc alone: divided by the blur of the disc, the black around it does not leak in.
    coarse = cv2.resize(plane, (_LIGHT_SIDE, _LIGHT_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    disc = _disc(_LIGHT_SIDE).astype(np.float32)
    return cv2.GaussianBlur(coarse * disc, (0, 0), _LIGHT_SIDE / 8) / _blurred_disc()


@lru_cache
def _blurred_disc() -> np.ndarray:
    return np.maximum(cv2.GaussianBlur(_disc(_LIGHT_SIDE).astype(np.float32), (0, 0), _LIGHT_SIDE / 8), 1e-3)


@lru_cache
def _disc(side: int) -> np.ndarray:
    # Inner disc of 0.9 of the radius: the edge of the field is sharp in every picture.
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    return (axis[:, None] ** 2 + axis[None, :] ** 2 < 0.81).astype(np.uint8)
