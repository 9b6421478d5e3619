"""Centre lines of vessels, and the stretches between their junctions."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), int)
# Bits of the eight neighbours as papers on thinning number them, clockwise from north: P2 to P9.
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _removable() -> np.ndarray:
    """Bool 2×256: whether a pixel with these neighbours goes in the first and in the second half of a pass."""
    p = (np.arange(256)[:, None] >> np.arange(8)) & 1
    count = p.sum(1)
    turns = ((p == 0) & (np.roll(p, -1, 1) == 1)).sum(1)
    north, east, south, west = p[:, 0], p[:, 2], p[:, 4], p[:, 6]
    shared = (count >= 2) & (count <= 6) & (turns == 1)
    return np.stack(
        [
            shared & (north * east * south == 0) & (east * south * west == 0),
            shared & (north * east * west == 0) & (north * south * west == 0),
        ]
    )


_REMOVABLE = _removable()
_BITS = np.zeros((3, 3), np.float32)
for _bit, (_row, _column) in enumerate(_AROUND):
    _BITS[1 + _row, 1 + _column] = 1 << _bit


def thin(mask_hw: np.ndarray) -> np.ndarray:
    """Centre lines of a mask, bool h×w, one pixel wide (Zhang and Suen, Communications of the ACM 1984, 27(3):236).

    Their method removes some blots altogether, a square of two pixels for one: of these a pixel is kept.
    """
    mask = np.pad(np.asarray(mask_hw, bool), 1)
    found = mask.astype(np.uint8)
    before = -1
    while int(found.sum()) != before:
        before = int(found.sum())
        for half in _REMOVABLE:
            neighbours = cv2.filter2D(found, cv2.CV_32F, _BITS, borderType=cv2.BORDER_CONSTANT).astype(np.uint8)
            found[half[neighbours] & (found > 0)] = 0
    labels, count = ndimage.label(mask, EIGHT)
    lost = np.setdiff1d(np.arange(1, count + 1), labels[found > 0])
    if len(lost):
        deepest = ndimage.maximum_position(ndimage.distance_transform_edt(mask), labels, lost)
        found[tuple(np.array(deepest).T)] = 1
    return found[1:-1, 1:-1] > 0


def _branches(line_hw: np.ndarray) -> np.ndarray:
    """How many lines leave each pixel: changes from background to line on the way around it."""
    padded = np.pad(line_hw, 1).astype(np.int8)
    rows, columns = line_hw.shape
    ring = np.stack([padded[1 + r : 1 + r + rows, 1 + c : 1 + c + columns] for r, c in _AROUND])
    return ((ring == 0) & (np.roll(ring, -1, 0) == 1)).sum(0)


@dataclass(frozen=True)
class Stretch:
    """A vessel between two junctions or ends.

    Attributes:
        path: pixels (n, 2) of its centre line in order, row and column.
        length: pixels along the smoothed centre line.
        calibre: mean width in pixels: the vessel's pixels nearest to this centre line, over its length.
    """

    path: np.ndarray
    length: float
    calibre: float


@dataclass(frozen=True)
class Tree:
    """The stretches of a mask, and which of them meet.

    Attributes:
        stretches: all, in the order of their first pixel.
        junctions: for each junction its centre (row, column) and the indices of the stretches that end there.
    """

    stretches: list[Stretch]
    junctions: list[tuple[np.ndarray, list[int]]]


def trace(mask_hw: np.ndarray) -> Tree:
    """Centre lines of a mask, cut at their junctions."""
    mask = np.asarray(mask_hw, bool)
    line = thin(mask)
    if not line.any():
        return Tree([], [])
    # A pixel from which three lines leave, and those around it, which may touch each other past it.
    turns = _branches(line)
    joints, joint_count = ndimage.label(line & ndimage.binary_dilation(line & (turns >= 3), EIGHT), EIGHT)
    parts, _ = ndimage.label(line & (joints == 0), EIGHT)
    # Every pixel of the mask belongs to the nearest pixel of the centre line.
    rows, columns = ndimage.distance_transform_edt(~line, return_distances=False, return_indices=True)
    areas = np.bincount((rows * mask.shape[1] + columns)[mask], minlength=mask.size).reshape(mask.shape)
    stretches, joined = [], ndimage.maximum_filter(joints, size=3)
    meeting: list[list[int]] = [[] for _ in range(joint_count)]
    for index, box in enumerate(ndimage.find_objects(parts), start=1):
        path = _ordered(np.argwhere(parts[box] == index) + [part.start for part in box])
        stretches.append(Stretch(path, *_length_and_calibre(path, areas)))
        for joint in {int(joined[tuple(end)]) for end in (path[0], path[-1])} - {0}:
            meeting[joint - 1].append(index - 1)
    centres = ndimage.center_of_mass(joints > 0, joints, range(1, joint_count + 1)) if joint_count else []
    return Tree(stretches, [(np.array(c), m) for c, m in zip(centres, meeting, strict=True)])


def _ordered(pixels: np.ndarray) -> np.ndarray:
    """Pixels (n, 2) of an unbranched line from one end to the other."""
    if len(pixels) < 3:
        return pixels
    left = {(int(r), int(c)) for r, c in pixels}

    def around(pixel: tuple[int, int]) -> list[tuple[int, int]]:
        # Straight neighbours first, so that a corner is walked and not cut.
        steps = (*_AROUND[::2], *_AROUND[1::2])
        return [(pixel[0] + r, pixel[1] + c) for r, c in steps if (pixel[0] + r, pixel[1] + c) in left]

    here = min(left, key=lambda pixel: (len(around(pixel)), pixel))
    path = [here]
    left.remove(here)
    while following := around(here):
        here = following[0]
        path.append(here)
        left.remove(here)
    return np.array(path)


def smooth(path: np.ndarray) -> np.ndarray:
    """The path as a curve (n, 2): a mean over five pixels, ends kept, takes off the stairs of the pixel grid."""
    if len(path) < 5:
        return path.astype(float)
    return ndimage.uniform_filter1d(path.astype(float), 5, axis=0, mode="nearest") + _end_shift(path)


def _end_shift(path: np.ndarray) -> np.ndarray:
    # What the mean pulls inwards at both ends is given back, fading over its width.
    pulled = path.astype(float) - ndimage.uniform_filter1d(path.astype(float), 5, axis=0, mode="nearest")
    index = np.arange(len(path))
    fade = np.clip(1 - np.minimum(index, index[::-1]) / 2, 0, 1)[:, None]
    return pulled * fade


def _length_and_calibre(path: np.ndarray, areas_hw: np.ndarray) -> tuple[float, float]:
    steps = np.linalg.norm(np.diff(smooth(path), axis=0), axis=1)
    # Half a pixel beyond the middle of the first and of the last.
    length = float(steps.sum()) + 1.0
    owned = areas_hw[path[:, 0], path[:, 1]]
    if len(path) < 3:
        return length, float(owned.sum()) / length
    # Both ends are left out, as far as the vessel is wide: they own the rounded tip, or share the flank of a junction.
    left_out = max(1, min(int(np.ceil(owned.sum() / length)), len(path) // 4))
    between = steps[left_out - 1 : len(steps) - (left_out - 1)]
    return length, float(owned[left_out:-left_out].sum()) / float(between.sum() - (between[0] + between[-1]) / 2)
