"""Lesion maps of seven classes: their colours, their conversion from and to other maps, and what a drawn one must be.

Classes and colours are those of RetinaGAN (Hou et al., Biomedical Optics Express 2023, 14(2):533): every pixel belongs
to exactly one of background, four lesions, optic disc and retina. Where a data set does not mark a class, a pixel may
be one of several; a map of candidates holds, for each pixel, one bit for each class that it may be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from retinalogos.cohort.field_of_view import find_field
from retinalogos.cohort.schema import LESION_CLASSES
from retinalogos.cohort.shards import decode_map
from retinalogos.errors import UsageError

# Short names as published; VB, the "vitreous body", is the retina.
CLASSES = ("BG", "EX", "HE", "SE", "MA", "OD", "VB")
NAMES = ("background", "hard exudate", "haemorrhage", "soft exudate", "microaneurysm", "optic disc", "retina")
BG, EX, HE, SE, MA, OD, VB = range(len(CLASSES))
LESIONS = (EX, HE, SE, MA)
COLOURS = np.array(
    [[0, 0, 0], [239, 164, 0], [0, 186, 127], [0, 185, 255], [34, 80, 242], [73, 73, 73], [255, 255, 255]], np.uint8
)
UNKNOWN = 255
GRADES = 5

# Lesion of the cohort's vocabulary → the classes that it may be. Blood before the retina is blood; new vessels and
# drusen have no class of their own and stay retina, as in the data that the published classes were made for.
_CANDIDATES: dict[str, tuple[int, ...]] = {
    "microaneurysm": (MA,),
    "haemorrhage": (HE,),
    "preretinal_haemorrhage": (HE,),
    "hard_exudate": (EX,),
    "soft_exudate": (SE,),
    "exudate": (EX, SE),
}
# Sources whose `lesions` map marks some lesions only; all others mark the four.
_MARKED: dict[str, tuple[int, ...]] = {"hei_med": (EX, SE)}
# Lesion class of the cohort for each class here, for the way back.
_TO_COHORT = {EX: "hard_exudate", HE: "haemorrhage", SE: "soft_exudate", MA: "microaneurysm"}
# Least share of a pixel that a class must cover to be kept when a map is made smaller. From a half on, areas stay what
# they were; of microaneurysms, which are all smaller than a pixel then, none would be left.
_LEAST_SHARE = {c: 0.25 if c == MA else 0.5 for c in range(len(CLASSES))}

# Candidate bits → class where there is just one.
_SINGLE = np.full(256, UNKNOWN, np.uint8)
_SINGLE[1 << np.arange(len(CLASSES))] = np.arange(len(CLASSES))


def bits(classes: tuple[int, ...]) -> int:
    """The candidate bits of these classes."""
    return sum(1 << c for c in classes)


def from_row(row: Mapping[str, Any], image: np.ndarray, size: int) -> np.ndarray:
    """Candidates of a cohort row.

    Args:
        row: with ``source`` and the encoded maps ``lesions``, ``disc_cup`` and ``fov``, each of which may be null: a
            field of view is then found in the picture, lesions and disc are unknown.
        image: the photograph, uint8, height × width × 3.
        size: side of the map, pixels.

    Returns:
        uint8, size × size: one bit for each class that a pixel may be.
    """
    lesions, disc, fov = (
        None if row[m] is None else decode_map(row[m]["bytes"]) for m in ("lesions", "disc_cup", "fov")
    )
    field = _reduced(_found_field(image) if fov is None else fov > 0, size, VB)
    marked = () if lesions is None else _MARKED.get(row["source"], LESIONS)
    unmarked = bits(tuple(c for c in LESIONS if c not in marked))
    retina = bits((VB,)) | unmarked | (bits((OD,)) if disc is None else 0)
    candidates = np.where(field, np.uint8(retina), np.uint8(bits((BG,))))
    if disc is not None:
        candidates[_reduced(disc > 0, size, OD) & field] = bits((OD,)) | unmarked
    if lesions is not None:
        present = [c for c in np.unique(lesions) if LESION_CLASSES[c] in _CANDIDATES]
        # The rarest class last: where two share a pixel of a smaller map, the smaller lesion would be lost.
        for value in sorted(present, key=lambda c: -int((lesions == c).sum())):
            found = _CANDIDATES[LESION_CLASSES[value]]
            candidates[_reduced(lesions == value, size, found[0]) & field] = bits(found)
    return candidates


def _found_field(image: np.ndarray) -> np.ndarray:
    frame = find_field(image)
    if frame.hull is None:
        return np.ones(image.shape[:2], bool)
    scale = np.array(image.shape[1::-1]) / np.array(frame.extent)
    drawn = np.zeros(image.shape[:2], np.uint8)
    return cv2.fillConvexPoly(drawn, np.rint(frame.hull * scale).astype(np.int32), 1) > 0


def _reduced(mask: np.ndarray, size: int, c: int) -> np.ndarray:
    if mask.shape == (size, size):
        return mask
    how = cv2.INTER_AREA if size < mask.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(mask.astype(np.float32), (size, size), interpolation=how) >= _LEAST_SHARE[c]


def classes_of(candidates: np.ndarray) -> np.ndarray:
    """Class of every pixel where it is known, else :data:`UNKNOWN`; uint8, of the shape of ``candidates``."""
    return _SINGLE[candidates]


def told_apart(candidates: np.ndarray) -> np.ndarray:
    """Candidates in which classes that no pixel tells apart are one class.

    Of two classes that are candidates of the same pixels nothing can be learnt but that it is one of them. A cohort
    whose eyes all lack the same marks thus has fewer classes, each of them known: what is not marked is retina, and
    exudates of either kind are hard ones.

    Args:
        candidates: uint8, all those of the eyes that are learnt from.

    Returns:
        uint8, 256: for each value of a candidate map the value in its place.
    """
    codes = np.arange(len(CLASSES))
    met = np.flatnonzero(np.bincount(candidates.ravel(), minlength=256))
    where = (met[:, None] >> codes) & 1
    order = (VB, *LESIONS, OD, BG)
    stands = np.array([next(d for d in order if (where[:, c] == where[:, d]).all()) for c in codes])
    of_value = (np.arange(256)[:, None] >> codes) & 1
    return np.bitwise_or.reduce(of_value << stands, axis=1).astype(np.uint8)


def one_hot(classes: np.ndarray) -> np.ndarray:
    """Classes n × h × w to float32 n × 7 × h × w; all zero where unknown."""
    return np.stack([classes == c for c in range(len(CLASSES))], 1).astype(np.float32)


def from_masks(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Classes from one mask a class, as data sets publish them.

    Args:
        masks: class of :data:`CLASSES` → bool, h × w. ``VB`` is the whole field of view, and needed. Where masks
            overlap the smaller one lies on top.

    Returns:
        uint8 classes, h × w.

    Raises:
        UsageError: a name is no class, ``VB`` is missing, or the masks differ in size.
    """
    unknown = masks.keys() - set(CLASSES)
    if unknown:
        raise UsageError(f"mask {sorted(unknown)[0]!r} is no class; the classes are {', '.join(CLASSES)}")
    if CLASSES[VB] not in masks:
        raise UsageError("the masks lack 'VB', the field of view: without it retina and background are not told apart")
    if len({mask.shape for mask in masks.values()}) > 1:
        raise UsageError(f"the masks differ in size: { {name: mask.shape for name, mask in masks.items()} }")
    field = masks[CLASSES[VB]] > 0
    classes = np.where(field, np.uint8(VB), np.uint8(BG))
    marked = [c for c in (*LESIONS, OD) if CLASSES[c] in masks]
    for c in sorted(marked, key=lambda c: -int((masks[CLASSES[c]] > 0).sum())):
        classes[(masks[CLASSES[c]] > 0) & field] = c
    return classes


def read_masks(paths: Mapping[str, Path], size: int | None) -> np.ndarray:
    """A map from one mask file a class, as data sets publish them.

    Args:
        paths: class of :data:`CLASSES` → picture; what is not black in it has the class. ``VB`` is the field of view.
        size: side of the map in pixels; None for that of the masks. Background is put around to make it square.

    Returns:
        uint8 classes, size × size.

    Raises:
        UsageError: as :func:`from_masks`, or a file is no picture, or a JPEG, or pictures differ in size and
            ``size`` is None.
    """
    masks, sizes = {}, {}
    for name, path in paths.items():
        pixels = _open(path, "mask")
        mask = pixels.reshape(*pixels.shape[:2], -1).any(2)
        sizes[path] = mask.shape
        above, left = ((max(mask.shape) - side) // 2 for side in mask.shape)
        square = np.zeros((max(mask.shape),) * 2, bool)
        square[above : above + mask.shape[0], left : left + mask.shape[1]] = mask
        masks[name] = square if size is None or name not in CLASSES else _reduced(square, size, CLASSES.index(name))
    if size is None and len(set(sizes.values())) > 1:
        said = ", ".join(f"{path} is {width} × {height}" for path, (height, width) in sizes.items())
        raise UsageError(f"the masks differ in size: {said}; masks of the same cut can be brought to one with --size")
    return from_masks(masks)


def to_masks(classes: np.ndarray) -> dict[str, np.ndarray]:
    """One bool mask a class from classes h × w; ``VB`` is the whole field, as :func:`from_masks` takes it."""
    masks = {CLASSES[c]: classes == c for c in range(len(CLASSES))}
    return masks | {CLASSES[VB]: classes != BG}


def to_cohort(classes: np.ndarray) -> dict[str, np.ndarray]:
    """The cohort's maps ``lesions``, ``disc_cup`` and ``fov``, uint8 h × w, of classes h × w."""
    lesions = np.zeros_like(classes)
    for c, name in _TO_COHORT.items():
        lesions[classes == c] = LESION_CLASSES.index(name)
    field = np.where(classes == BG, np.uint8(0), np.uint8(255))
    return {"lesions": lesions, "disc_cup": (classes == OD).astype(np.uint8), "fov": field}


def to_rgb(classes: np.ndarray) -> np.ndarray:
    """Classes … × h × w to their colours, uint8 … × h × w × 3."""
    return COLOURS[classes]


def _open(path: Path, what: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            picture.load()
            kind, mode = picture.format, picture.mode
            # Numbers of a palette are no colours.
            pixels = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    except FileNotFoundError:
        raise UsageError(f"{what} {path} is not there") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{what} {path} cannot be read as a picture ({error}); save it as PNG, mode RGB") from None
    if kind == "JPEG":
        raise UsageError(f"{what} {path} is a JPEG, which blurs the colours at every border; save it as PNG, mode RGB")
    if mode in ("RGBA", "LA", "PA") or "A" in mode:
        raise UsageError(f"{what} {path} has an alpha channel (mode {mode}); flatten it and save it as PNG, mode RGB")
    if what == "map" and mode != "RGB":
        found = "a palette" if mode == "P" else f"mode {mode}"
        raise UsageError(f"map {path} has {found}, and colours are read from RGB alone; save it as PNG, mode RGB")
    return pixels


def read_drawn(path: Path, size: int | None) -> np.ndarray:
    """A map that a person drew, checked.

    Args:
        path: PNG of mode RGB in the colours of :data:`COLOURS`.
        size: side that the renderer works at, pixels; None for a square of any size.

    Returns:
        uint8 classes, size × size.

    Raises:
        UsageError: the file is no such map; the message says what is wrong, where, and what to do.
    """
    pixels = _open(path, "map")
    extent = pixels.shape[1::-1]
    size = extent[0] if size is None else size
    if extent != (size, size):
        wide = f"{extent[0]} × {extent[1]}"
        raise UsageError(f"map {path} is {wide} pixels and must be {size} × {size}; scale it without smoothing")
    classes = np.full((size, size), UNKNOWN, np.uint8)
    for c, colour in enumerate(COLOURS):
        classes[(pixels == colour).all(-1)] = c
    if (classes == UNKNOWN).any():
        raise UsageError(f"map {path} {_unknown_colours(pixels, classes == UNKNOWN)}")
    if (classes == BG).all():
        raise UsageError(f"map {path} is all background; draw the retina in {_hex(COLOURS[VB])}")
    return classes


# Distinct unknown colours named in an error, and how many make blurred borders likelier than a wrong colour.
_NAMED, _MANY = 4, 16


def _unknown_colours(pixels: np.ndarray, unknown: np.ndarray) -> str:
    rows, columns = np.nonzero(unknown)
    found, first, counts = np.unique(pixels[unknown], axis=0, return_index=True, return_counts=True)
    said = []
    for i in np.argsort(-counts, kind="stable")[:_NAMED]:
        near = int(np.abs(COLOURS.astype(int) - found[i].astype(int)).sum(1).argmin())
        place = f"x {columns[first[i]]}, y {rows[first[i]]}"
        said.append(
            f"{_hex(found[i])} ({counts[i]} pixels, first at {place}; nearest is {CLASSES[near]} {_hex(COLOURS[near])})"
        )
    more = f" and {len(found) - _NAMED} more colours" if len(found) > _NAMED else ""
    hint = ""
    if len(found) >= _MANY:
        hint = "; so many look like JPEG artefacts or smoothed borders: draw without smoothing and save as PNG"
    return f"has colours that are no class: {', '.join(said)}{more}{hint}"


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def circle(size: int, radius: float | None = None) -> np.ndarray:
    """A circle in the middle of a square, bool size × size; of ``radius`` pixels, or the inscribed one."""
    axis = np.arange(size) + 0.5 - size / 2
    return np.hypot(axis[:, None], axis[None, :]) <= (size / 2 if radius is None else radius)


def template(size: int) -> np.ndarray:
    """An empty map to draw on: retina in a circle, background around it; uint8 classes, size × size."""
    return np.where(circle(size), np.uint8(VB), np.uint8(BG))


def repair(classes: np.ndarray) -> np.ndarray:
    """A generated map with a field as cameras have it and one disc at most.

    The field becomes a circle in the middle, as wide as the map is at its widest, without the rows that the map leaves
    to the background at the top and at the bottom, as many cameras do; outside it all is background, inside it
    background becomes retina. Of several discs the largest stays.

    Args:
        classes: uint8, size × size.

    Returns:
        uint8 classes, size × size.
    """
    field = circle(len(classes), (classes != BG).sum(1).max() / 2)
    empty = ((classes == BG) & field).sum(1) >= 0.5 * field.sum(1)
    kept = np.flatnonzero(~empty)
    if len(kept):
        field[: kept[0]] = False
        field[kept[-1] + 1 :] = False
    whole = np.where(classes == BG, np.uint8(VB), classes)
    count, parts, stats, _ = cv2.connectedComponentsWithStats((whole == OD).astype(np.uint8))
    if count > 2:
        largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        whole[(parts > 0) & (parts != largest)] = VB
    return np.where(field, whole, np.uint8(BG))
