"""The field of view: the lit disc of a fundus photograph, and the square cut around it."""

from dataclasses import dataclass

import cv2
import numpy as np

# Side to which a picture is reduced before its field of view is sought: the edge is found to about 1/200 of the width.
_SEARCH_SIDE = 192
# The frame around the field is black up to sensor noise and JPEG ringing; of the field even a dark part is brighter.
_LEAST_LIGHT = 10
# A lit part smaller than this share of the frame is no field of view (a reflex, a label): the whole frame is kept.
_LEAST_SHARE = 0.2


@dataclass(frozen=True)
class Frame:
    """Where the field of view lies in a picture, in shares of its width and height (0-1).

    Attributes:
        left, top, right, bottom: the box around the field.
        hull: int32 n × 1 × 2, convex outline of the field in a picture of ``hull_side`` (width, height) pixels; None
            where the whole frame is lit or no field was found.
        hull_side: width and height of the picture of the outline.
        coverage: share of the box's ellipse that is lit, 0-1.
    """

    left: float
    top: float
    right: float
    bottom: float
    hull: np.ndarray | None
    hull_side: tuple[int, int]
    coverage: float


def find_field(image: np.ndarray) -> Frame:
    """Finds the field of view: the convex hull of the largest lit part.

    A field of view is a disc, cut off at top and bottom by some cameras, so it is convex: its hull closes dark
    vessels, shadows and lesions at its edge.

    Args:
        image: uint8, height × width × 3.
    """
    height, width = image.shape[:2]
    scale = _SEARCH_SIDE / max(height, width)
    side = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, side, interpolation=cv2.INTER_AREA) if scale < 1 else image
    side = (small.shape[1], small.shape[0])
    lit = (cv2.max(cv2.max(small[..., 0], small[..., 1]), small[..., 2]) > _LEAST_LIGHT).view(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=4)
    whole = Frame(0.0, 0.0, 1.0, 1.0, None, side, float(lit.mean()))
    if count < 2:
        return whole
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    x, y, w, h, area = (int(value) for value in stats[largest])
    if area < _LEAST_SHARE * lit.size:
        return whole
    coverage = min(1.0, area / (np.pi / 4 * w * h))
    outline, _ = cv2.findContours((parts == largest).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(outline[0])
    return Frame(x / side[0], y / side[1], (x + w) / side[0], (y + h) / side[1], hull, side, coverage)


@dataclass(frozen=True)
class Placement:
    """Where the cut lands in the square: ``width`` × ``height`` pixels at (x, y) in a square of ``size``."""

    size: int
    x: int
    y: int
    width: int
    height: int


def place(frame: Frame, width: int, height: int, size: int) -> Placement:
    """Fits the field's box of a ``width`` × ``height`` picture into a square of ``size``, centred, aspect kept."""
    across, down = (frame.right - frame.left) * width, (frame.bottom - frame.top) * height
    scale = size / max(across, down)
    w, h = max(1, round(across * scale)), max(1, round(down * scale))
    return Placement(size, (size - w) // 2, (size - h) // 2, w, h)


def _cut(raster: np.ndarray, frame: Frame) -> np.ndarray:
    height, width = raster.shape[:2]
    left, right = round(frame.left * width), round(frame.right * width)
    top, bottom = round(frame.top * height), round(frame.bottom * height)
    return raster[top : max(bottom, top + 1), left : max(right, left + 1)]


def square_image(image: np.ndarray, frame: Frame, at: Placement) -> np.ndarray:
    """Cuts the field out, resizes by area averaging and pads with black; all outside the field becomes black.

    The camera's text and the patient's name burnt into the margin go with it.

    Args:
        image: uint8, height × width × 3.
        frame: the field of view in it.
        at: where it lands.

    Returns:
        uint8, size × size × 3.
    """
    cut = _cut(image, frame)
    if cut.shape[:2] != (at.height, at.width):
        shrinks = cut.shape[0] >= at.height and cut.shape[1] >= at.width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        cut = cv2.resize(cut, (at.width, at.height), interpolation=how)
    if frame.hull is not None:
        cut = cv2.bitwise_and(cut, cut, mask=_inside(frame, at))
    if (at.height, at.width) == (at.size, at.size):
        return np.ascontiguousarray(cut)
    square = np.zeros((at.size, at.size, 3), np.uint8)
    square[at.y : at.y + at.height, at.x : at.x + at.width] = cut
    return square


def _inside(frame: Frame, at: Placement) -> np.ndarray:
    across, down = frame.hull_side
    scale = np.array(
        [at.width / ((frame.right - frame.left) * across), at.height / ((frame.bottom - frame.top) * down)]
    )
    # Outline pixels lie inside the field: their outer edges, half a pixel on and half a pixel of doubt, bound it.
    middle = np.array([(frame.left + frame.right) / 2 * across, (frame.top + frame.bottom) / 2 * down])
    assert frame.hull is not None
    points = frame.hull[:, 0].astype(np.float64) + 0.5 - middle
    reach = np.linalg.norm(points, axis=1, keepdims=True)
    points = points * (1 + 1.0 / np.maximum(reach, 1)) * scale + np.array([at.width, at.height]) / 2
    mask = np.zeros((at.height, at.width), np.uint8)
    cv2.fillConvexPoly(mask, np.round(points - 0.5).astype(np.int32), 1)
    return mask


def square_map(classes: np.ndarray, frame: Frame, at: Placement, least: float) -> np.ndarray:
    """Cuts and resizes a map of classes as :func:`square_image` does the picture.

    A pixel gets the class that covers most of it, if that class covers at least the share ``least``; so thin
    structures, which never fill a pixel, are kept with a small share.

    Args:
        classes: uint8, height × width; 0 is none.
        frame: the field of view in the photograph.
        at: where it lands.
        least: least share of a pixel, 0-1.

    Returns:
        uint8, size × size.
    """
    cut = _cut(classes, frame)
    square = np.zeros((at.size, at.size), np.uint8)
    target = square[at.y : at.y + at.height, at.x : at.x + at.width]
    if cut.shape[0] <= at.height or cut.shape[1] <= at.width:
        target[:] = cv2.resize(cut, (at.width, at.height), interpolation=cv2.INTER_NEAREST_EXACT)
        return square
    best = np.full(target.shape, least, np.float32)
    for value in np.unique(cut):
        if value == 0:
            continue
        share = cv2.resize((cut == value).astype(np.float32), (at.width, at.height), interpolation=cv2.INTER_AREA)
        won = share >= best
        target[won] = value
        best = np.maximum(best, share)
    return square
