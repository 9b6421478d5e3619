"""What a segmenter sees in pictures without maps: how much there is of a structure, and how disc and cup lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retinalogos.segmenters.segmenter import Segmenter


@dataclass(frozen=True)
class Seen:
    """Of n pictures.

    Attributes:
        areas: structure → share of the picture, the mean probability of its pixels, 0-1 (n,).
        disc_x: centre of the disc from the left, share of the picture, nan where there is none.
        vcdr: vertical cup-to-disc ratio, nan where there is no disc; 0 without a cup.
    """

    areas: dict[str, np.ndarray]
    disc_x: np.ndarray
    vcdr: np.ndarray


def read_structures(segmenter: Segmenter, images: np.ndarray) -> Seen:
    """Reads pictures, uint8 n×h×w×3; disc and cup are the largest parts above a probability of one half."""
    places = {structure: at for at, structure in enumerate(segmenter.structures)}
    areas: list[np.ndarray] = []
    heights: dict[str, list[float]] = {"disc": [], "cup": []}
    centres: list[float] = []
    for batch in segmenter.predict(images):
        areas.append(batch.mean((2, 3)))
        for structure, found in heights.items():
            if structure in places:
                parts = [_largest(probability > 0.5) for probability in batch[:, places[structure]]]
                found += [height for height, _ in parts]
                if structure == "disc":
                    centres += [centre for _, centre in parts]
    unknown = np.full(len(images), np.nan)
    disc, cup = (np.array(found) if found else unknown for found in heights.values())
    share = np.concatenate(areas) if areas else np.zeros((0, len(places)), np.float32)
    return Seen(
        {structure: share[:, at].astype(float) for structure, at in places.items()},
        np.array(centres) if centres else unknown,
        np.divide(cup, disc, out=unknown.copy(), where=disc > 0),
    )


def _largest(mask: np.ndarray) -> tuple[float, float]:
    """Height in pixels, and centre from the left as a share, of the largest connected part; 0 and nan without one."""
    count, _, boxes, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count < 2:
        return 0.0, float("nan")
    largest = 1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())
    return float(boxes[largest, cv2.CC_STAT_HEIGHT]), float((centres[largest, 0] + 0.5) / mask.shape[1])


def joined(parts: Sequence[Seen]) -> Seen:
    """Several batches as one."""
    return Seen(
        {name: np.concatenate([part.areas[name] for part in parts]) for name in parts[0].areas},
        np.concatenate([part.disc_x for part in parts]),
        np.concatenate([part.vcdr for part in parts]),
    )
