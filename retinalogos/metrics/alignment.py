"""Copies that were moved, cropped or mirrored: how alike two eyes are once one is laid over the other.

What makes an eye one person's is the course of its vessels. So pictures are reduced to their fine structure (what is
darker or brighter than its surroundings, inside the field of view), and a query is compared with a reference mirrored
and not, at several magnifications, and at every shift up to a limit. Two eyes of different people correlate little at
any of them, an eye and its altered copy strongly at one. Turned copies are not searched for.

All references are compared coarsely by matrix products; only the best few of each query finely, by Fourier transforms.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from retinalogos.errors import DataError
from retinalogos.metrics.memorisation import Neighbours

FINE, COARSE = 64, 16  # pixels a side of the two maps
# A copy that was cropped shows less of the eye; shrunk by one of these it covers what it shows.
MAGNIFICATIONS = (1.0, 0.95, 0.9, 0.85)
REACH = 0.125  # shift at most, share of the side
CANDIDATES = 8  # compared finely; measured on ODIR-5K: the original of an altered copy is always among them
CHUNK, REFERENCES = 256, 4096  # queries and references at a time: bounds memory
# Standard deviations in pixels of FINE: between them lie vessels and the disc's border, not the light's fall-off.
# Measured on ODIR-5K with an outer one of 2, 2.5, 3 and 5: at 3 the relative distances of copies and of strangers lie
# farthest apart.
_INNER, _OUTER = 0.6, 3.0


def structure(images: np.ndarray) -> np.ndarray:
    """Fine structure of uint8 images, n × h × w × 3: int8, n × FINE × FINE, zero outside the field of view."""
    return np.stack([_structure(image) for image in images])


def _structure(image: np.ndarray) -> np.ndarray:
    green = cv2.resize(np.ascontiguousarray(image[..., 1]), (FINE, FINE), interpolation=cv2.INTER_AREA)
    # Dark surroundings are no part of the eye, and their border is everybody's. A copy may be brighter all over.
    dark, bright = np.percentile(green, [1, 95])
    lit = (green > dark + 0.12 * (bright - dark)).astype(np.uint8)
    seen = cv2.erode(lit, np.ones((7, 7), np.uint8), borderValue=0).astype(np.float32)
    light = np.log(green.astype(np.float32) + 8)
    weight = np.maximum(cv2.GaussianBlur(seen, (0, 0), _OUTER), 1e-3)
    contrast = cv2.GaussianBlur(light, (0, 0), _INNER) - cv2.GaussianBlur(light * seen, (0, 0), _OUTER) / weight
    spread = np.sqrt(cv2.GaussianBlur(contrast**2 * seen, (0, 0), _OUTER) / weight)
    return (np.clip(contrast * seen / (spread + 0.01), -4, 4) * 31).astype(np.int8)


def align(queries: np.ndarray, references: np.ndarray) -> Neighbours:
    """The reference that each query is most alike, laid over it as well as can be.

    Args:
        queries: of :func:`structure`, n × FINE × FINE.
        references: likewise, m × FINE × FINE.

    Returns:
        Of each query: 1 − correlation, which reference, and that distance over the mean of the other candidates'.

    Raises:
        DataError: there are fewer than two references.
    """
    best = min(CANDIDATES, len(references))
    if best < 2:
        raise DataError(f"copies are sought among two training images or more, there are {len(references)}")
    parts = [_align(queries[i : i + CHUNK], references, best) for i in range(0, len(queries), CHUNK)]
    alike = np.concatenate([correlation for correlation, _ in parts]) if parts else np.empty((0, best))
    candidates = np.concatenate([index for _, index in parts]) if parts else np.empty((0, best), int)
    rows, chosen = np.arange(len(queries)), alike.argmax(1)
    distance = 1 - alike[rows, chosen]
    others = (best - alike.sum(1) - distance) / (best - 1)
    relative = np.divide(distance, others, out=np.zeros(len(queries)), where=others > 1e-6)
    return Neighbours(np.maximum(distance, 0), candidates[rows, chosen], np.maximum(relative, 0))


def likeness(a: np.ndarray, b: np.ndarray, mirrored: bool) -> np.ndarray:
    """Correlation of each pair of maps (:func:`structure`) at the best shift, n; 1 for the same picture.

    Args:
        a: n × FINE × FINE.
        b: n × FINE × FINE.
        mirrored: also lay the mirror image of ``a`` over ``b``, and take the better.
    """
    spectrum = np.fft.rfft2(_unit_maps(b))
    best = [
        _near_zero(np.fft.irfft2(np.conj(np.fft.rfft2(_unit_maps(one))) * spectrum, s=(FINE, FINE))).max((1, 2))
        for one in ([a, a[:, :, ::-1]] if mirrored else [a])
    ]
    return np.max(best, axis=0)


def _align(queries: np.ndarray, references: np.ndarray, best: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlations with the ``best`` candidates of each query, and which references those are: n × best each."""
    variants = list(_variants(queries))
    moved = [_unit(rows) for variant in variants for rows in _moved(_coarse(variant))]
    found, candidates = np.full((len(queries), best), -np.inf, np.float32), np.zeros((len(queries), best), int)
    for start in range(0, len(references), REFERENCES):
        maps = _coarse(references[start : start + REFERENCES])
        coarse = _unit(maps.reshape(len(maps), -1))
        most = np.full((len(queries), len(maps)), -1.0, np.float32)
        for rows in moved:
            np.maximum(most, rows @ coarse.T, out=most)
        numbers = np.broadcast_to(np.arange(start, start + len(maps)), most.shape)
        both = np.concatenate([found, most], 1), np.concatenate([candidates, numbers], 1)
        kept = np.argpartition(-both[0], best - 1, axis=1)[:, :best]
        found, candidates = (np.take_along_axis(values, kept, 1) for values in both)
    used, place = np.unique(candidates, return_inverse=True)
    spectra = np.fft.rfft2(_unit_maps(references[used]))
    place = place.reshape(candidates.shape)
    alike = np.full(candidates.shape, -1.0)
    for variant in variants:
        own = np.conj(np.fft.rfft2(_unit_maps(variant)))
        for rank in range(best):
            lags = np.fft.irfft2(own * spectra[place[:, rank]], s=(FINE, FINE))
            alike[:, rank] = np.maximum(alike[:, rank], _near_zero(lags).max((1, 2)))
    return alike, candidates


def _variants(maps: np.ndarray) -> Iterator[np.ndarray]:
    """The maps at each magnification, mirrored and not, as float32."""
    plain = maps.astype(np.float32)
    for scale in MAGNIFICATIONS:
        shift = (1 - scale) * (FINE - 1) / 2
        matrix = np.array([[scale, 0, shift], [0, scale, shift]])
        scaled = np.stack([cv2.warpAffine(m, matrix, (FINE, FINE), flags=cv2.INTER_LINEAR) for m in plain])
        yield scaled
        yield scaled[:, :, ::-1]


def _coarse(maps: np.ndarray) -> np.ndarray:
    """Means over squares, float32: n × COARSE × COARSE."""
    step = FINE // COARSE
    return maps.reshape(-1, COARSE, step, COARSE, step).mean((2, 4), dtype=np.float32)


def _moved(maps: np.ndarray) -> Iterator[np.ndarray]:
    """Coarse maps at every shift within reach, as rows."""
    reach = round(REACH * COARSE)
    padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach)))
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            yield padded[:, down : down + COARSE, right : right + COARSE].reshape(len(maps), -1)


def _near_zero(lags: np.ndarray) -> np.ndarray:
    reach = round(REACH * FINE)
    near = np.r_[0 : reach + 1, FINE - reach : FINE]
    return lags[:, near][:, :, near]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _unit_maps(maps: np.ndarray) -> np.ndarray:
    flat = maps.reshape(len(maps), -1).astype(np.float32)
    return _unit(flat).reshape(maps.shape)
