"""Two-channel artery and vein maps: from the cohort's column `vessels`, from drawn pictures, and back.

A map of classes (0 none, 1 artery, 2 vein, 3 crossing) is what is stored; two boolean channels, in which both vessels
of a crossing go on, are what is drawn and measured.
"""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from retinalogos.errors import UsageError
from retinalogos.metrics.vessels.anatomy import mean_calibre

ARTERY, VEIN, CROSSING = 1, 2, 3
KINDS = ("artery", "vein")
# Colours of the public artery and vein sets (RITE, HRF): artery red, vein blue, crossing green; uncertain is white.
_COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 255, 0]], np.uint8)
_ALSO_CROSSING = ((255, 0, 255), (255, 255, 255))
# A vessel that covers at least this share of a pixel fills it: what the phantom's own maps take.
_COVERED = 0.3
# Levels by which a drawn colour may miss: what painting programs round.
_TOLERANCE = 8
# Retinal arteries measure 2/3 to 3/4 of the veins beside them; a map in which they are wider than the veins by this
# factor is hardly anything but swapped.
_SWAPPED = 1.1
# Vessels cover a tenth to a fifth of the field of view; more than this is another picture.
_MOST_COVERED = 0.5


def to_channels(classes_hw: np.ndarray) -> np.ndarray:
    """Classes, h×w, to bool 2×h×w (artery, vein)."""
    return np.stack([(classes_hw == kind) | (classes_hw == CROSSING) for kind in (ARTERY, VEIN)])


def to_classes(channels_2hw: np.ndarray) -> np.ndarray:
    """Bool 2×h×w (artery, vein) to classes, uint8 h×w."""
    artery, vein = np.asarray(channels_2hw, bool)
    return ARTERY * artery.astype(np.uint8) + VEIN * vein.astype(np.uint8)


def to_colour(classes_hw: np.ndarray) -> np.ndarray:
    """Classes, h×w, to uint8 RGB h×w×3 for the eye."""
    return _COLOURS[classes_hw]


def tells_kinds(classes_hw: np.ndarray) -> bool:
    """Whether a map tells arteries from veins: both occur, and no more of it is class 3 than crossings make up.

    Sets without kinds (DRIVE, STARE) paint every vessel with class 3.
    """
    count = np.bincount(classes_hw.ravel(), minlength=4)
    return bool(count[ARTERY] and count[VEIN] and count[CROSSING] <= count[ARTERY] + count[VEIN])


def resize_map(classes_hw: np.ndarray, size: int) -> np.ndarray:
    """A map at size×size: a pixel belongs to a kind that covers at least 0.3 of it (enlarged: half of it)."""
    if classes_hw.shape == (size, size):
        return classes_hw
    smaller = size < max(classes_hw.shape)
    how, least = (cv2.INTER_AREA, _COVERED) if smaller else (cv2.INTER_LINEAR, 0.5)
    shares = [
        cv2.resize(channel.astype(np.float32), (size, size), interpolation=how) for channel in to_channels(classes_hw)
    ]
    return to_classes(np.stack(shares) >= least)


def read_drawn(file: Path, size: int) -> np.ndarray:
    """A drawn map as classes, uint8 size×size.

    Args:
        file: a square picture: red arteries, blue veins, green (or magenta, or white) crossings on black; or a
            single-channel picture of the classes 0 to 3, as cohorts hold them.
        size: pixels to which it is brought.

    Raises:
        UsageError: no picture, other channels, colours between those, not square, no vessel at all, or hardly
            anything else.

    Warns:
        UserWarning: the arteries are wider than the veins, so the two were probably swapped; or one of them is missing.
    """
    try:
        picture = Image.open(io.BytesIO(file.read_bytes()))
        picture.load()
    except UnidentifiedImageError:
        raise UsageError(f"{file}: no picture that can be read (no known format); give a PNG") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{file}: no picture that can be read ({error}); give a PNG") from None
    return check_drawn(picture, str(file), size)


def check_drawn(picture: Image.Image, name: str, size: int) -> np.ndarray:
    """See :func:`read_drawn`."""
    if picture.width != picture.height:
        raise UsageError(f"{name} is {picture.width}×{picture.height} pixels; a vessel map is square")
    if picture.mode == "P" and (np.asarray(picture).max(initial=0) > CROSSING or _shows_vessels(picture)):
        picture = picture.convert("RGB")
    if picture.mode == "1":
        raise UsageError(
            f"{name} is black and white: it does not say what is artery and what is vein; give red arteries and blue "
            "veins"
        )
    if picture.mode in ("L", "P"):
        classes = np.asarray(picture).astype(np.uint8)
        if classes.max(initial=0) > CROSSING:
            at = tuple(int(i) for i in np.argwhere(classes > CROSSING)[0])
            raise UsageError(
                f"{name} has one channel and the value {classes[at]} at row {at[0]}, column {at[1]}: it does not say "
                "what is artery and what is vein; give the classes 0 to 3, or red arteries and blue veins"
            )
    elif picture.mode == "RGB":
        classes = _of_colours(np.asarray(picture), name)
    else:
        raise UsageError(
            f"{name} has the channels {'+'.join(picture.getbands())} (mode {picture.mode}); give red, green and blue "
            "of 8 bits, without transparency, or one channel of the classes 0 to 3"
        )
    if not classes.any():
        raise UsageError(f"{name} is empty: it shows no vessel; draw arteries in red and veins in blue on black")
    if (share := (classes > 0).mean()) > _MOST_COVERED:
        raise UsageError(f"{name}: {share:.0%} of it is vessel; a vessel map is mostly black")
    for kind, number in zip(KINDS, (ARTERY, VEIN), strict=True):
        if not np.isin(classes, (number, CROSSING)).any():
            warnings.warn(f"{name} shows no {kind}, which no eye lacks; was it left out?", stacklevel=2)
    artery, vein = (mean_calibre(channel) for channel in to_channels(classes))
    if artery > _SWAPPED * vein:
        warnings.warn(
            f"{name}: arteries are {artery / vein:.2f} times as wide as veins, which no healthy eye shows; were artery "
            "(red) and vein (blue) swapped?",
            stacklevel=2,
        )
    resized = resize_map(classes, size)
    if not resized.any():
        raise UsageError(
            f"{name}: none of its vessels is left at {size}×{size} pixels; draw wider ones, or at that size"
        )
    return resized


def _shows_vessels(picture: Image.Image) -> bool:
    """Whether a palette paints a map: painting programs number its colours as they like, label tools by the classes."""
    classes = _nearest_classes(np.asarray(picture.convert("RGB")))
    return bool(classes.any() and (classes <= CROSSING).all())


def _nearest_classes(colours_hw3: np.ndarray) -> np.ndarray:
    """Class of each pixel, 255 where its colour is none of a map's."""
    classes = np.full(colours_hw3.shape[:2], 255, np.uint8)
    known = [*((colour, kind) for kind, colour in enumerate(_COLOURS)), *((c, CROSSING) for c in _ALSO_CROSSING)]
    for colour, kind in known:
        classes[(np.abs(colours_hw3.astype(int) - colour) <= _TOLERANCE).all(2)] = kind
    return classes


def _of_colours(colours_hw3: np.ndarray, name: str) -> np.ndarray:
    classes = _nearest_classes(colours_hw3)
    wrong = np.argwhere(classes == 255)
    if len(wrong):
        row, column = wrong[0]
        raise UsageError(
            f"{name} is not binary: {len(wrong)} pixels are neither black nor pure red (artery), blue (vein) or green "
            f"(crossing), the first {tuple(colours_hw3[row, column].tolist())} at row {row}, column {column}; draw "
            "without smoothing and save as PNG"
        )
    return classes
