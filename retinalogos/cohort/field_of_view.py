"""The field of view: the lit disc of a fundus photograph, and the square cut around it."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

# Side to which a picture is reduced before its field of view is sought: the edge is found to about 1/150 of the width.
_SEARCH_SIDE = 160
# The frame around the field is black up to sensor noise and JPEG ringing; of the field even a dark part is brighter.
_LEAST_LIGHT = 10
# Pixels of the search between an edge of the field and of the frame that count as none.
_SNAP = 2
# Paper white, less JPEG ringing; no retina is as bright in blue.
_WHITE = 250
# A lit part smaller than this share of the frame is no field of view (a reflex, a label): the whole frame is kept.
_LEAST_SHARE = 0.04


@dataclass(frozen=True)
class Frame:
    """Where the field of view lies in a picture, in shares of its width and height (0-1).

    Attributes:
        left, top, right, bottom: the box around the field.
        hull: int32 n × 1 × 2, convex outline of the field in a picture of ``extent`` pixels; None
            where the whole frame is lit or no field was found.
        extent: width and height of the picture of the outline, pixels.
        coverage: share of the box's ellipse that is lit, 0-1.
    """

    left: float
    top: float
    right: float
    bottom: float
    hull: np.ndarray | None
    extent: tuple[float, float]
    coverage: float

    def side(self, image: np.ndarray) -> float:
        """Longer side of the box in pixels of ``image``."""
        return max((self.right - self.left) * image.shape[1], (self.bottom - self.top) * image.shape[0])


def find_field(image: np.ndarray) -> Frame:
    """Finds the field of view: the convex hull of the largest lit part.

    A field of view is a disc, cut off at top and bottom by some cameras, so it is convex: its hull closes dark
    vessels, shadows and lesions at its edge.

    Args:
        image: uint8, height × width × 3.
    """
    height, width = image.shape[:2]
    # By a whole number: averaging over whole pixels is several times as fast.
    by = max(1, round(max(height, width) / _SEARCH_SIDE))
    side = (max(1, width // by), max(1, height // by))
    small = image if by == 1 else cv2.resize(image[: side[1] * by, : side[0] * by], side, interpolation=cv2.INTER_AREA)
    # The search pixels of the whole frame: the last of them may be a part of one.
    extent = (width / by, height / by)
    # Not the frame: neither black in all channels, nor white in all, as some exports pad it. A reflex inside the field
    # is white too, and the hull takes it back in.
    black = cv2.inRange(small, (0, 0, 0), (_LEAST_LIGHT,) * 3)
    white = cv2.inRange(small, (_WHITE,) * 3, (255, 255, 255))
    lit = cv2.bitwise_not(cv2.bitwise_or(black, white))
    whole = Frame(0.0, 0.0, 1.0, 1.0, None, extent, float(cv2.countNonZero(lit)) / lit.size)
    outlines, _ = cv2.findContours(lit, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea, default=None)
    if outline is None or cv2.contourArea(outline) < _LEAST_SHARE * lit.size:
        return whole
    x, y, w, h = cv2.boundingRect(outline)
    # The outline runs through the middles of pixels, hence the box without its last row and column.
    coverage = min(1.0, cv2.contourArea(outline) / (np.pi / 4 * (w - 1) * (h - 1)))
    hull = cv2.convexHull(outline)
    # An edge this near to the frame's is the frame's, within the finder's precision: nothing is resampled for it.
    left, top = (0.0 if edge <= _SNAP else edge / end for edge, end in zip((x, y), extent, strict=True))
    right, bottom = (
        1.0 if edge >= end - _SNAP else edge / end for edge, end in zip((x + w, y + h), extent, strict=True)
    )
    return Frame(left, top, right, bottom, hull, extent, coverage)


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
    """Cuts the field out, resizes it without aliasing and pads with black; all outside the field becomes black.

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
        cut = resample(cut, at.width, at.height)
    if frame.hull is not None:
        cut = cv2.bitwise_and(cut, cut, mask=_inside(frame, at))
    if (at.height, at.width) == (at.size, at.size):
        return np.ascontiguousarray(cut)
    square = np.zeros((at.size, at.size, 3), np.uint8)
    square[at.y : at.y + at.height, at.x : at.x + at.width] = cut
    return square


def resample(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resizes without aliasing: Lanczos filter whose support is scaled to the source.

    A source of more than four times the size is first averaged over whole pixels, which leaves the filter at least
    twice the pixels that it writes.

    Args:
        image: uint8, height × width × 3.
        width, height: pixels.
    """
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.asarray(resized)


def _inside(frame: Frame, at: Placement) -> np.ndarray:
    across, down = frame.extent
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
    square = np.zeros((at.size, at.size), np.uint8)
    square[at.y : at.y + at.height, at.x : at.x + at.width] = resize_map(
        _cut(classes, frame), at.width, at.height, least
    )
    return square


def resize_map(classes: np.ndarray, width: int, height: int, least: float) -> np.ndarray:
    """Resizes a map of classes: the class that covers most of a new pixel, if it covers at least the share ``least``.

    Args:
        classes: uint8, height × width; 0 is none.
        width, height: pixels.
        least: least share of a pixel, 0-1; not asked where the map is enlarged.
    """
    if classes.shape[0] <= height or classes.shape[1] <= width:
        return np.asarray(cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
    resized = np.zeros((height, width), np.uint8)
    best = np.full(resized.shape, least, np.float32)
    for value in np.unique(classes):
        if value == 0:
            continue
        share = cv2.resize((classes == value).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        won = share >= best
        resized[won] = value
        best = np.maximum(best, share)
    return resized
