"""What the models learn from: photographs and vessel maps of a cohort, at one size, on disk and not in memory."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from retinalogos.cohort.schema import EYES
from retinalogos.cohort.shards import Cohort, decode_image, decode_map
from retinalogos.errors import DataError
from retinalogos.generators.vessel_map.maps import resize_map, tells_kinds

# Label of an eye: 0 is not known, then the order of EYES.
SIDES = (None, *EYES)
NAMES = ("ids", "patients", "sources")
ARRAYS = ("images", "maps", "fields", "sides", "marks", "diameters", "known")
_COLUMNS = ("image_id", "patient_id", "eye", "truth", "labels", "image", "vessels", "disc_cup", "fov", "source")
# Where disc and fovea lie, in shares of the side: names in the truth of phantom eyes and in the labels of drawn ones.
LANDMARKS = ("disc_x", "disc_y", "fovea_x", "fovea_y", "disc_height")


@dataclass(frozen=True)
class Examples:
    """Eyes of one split.

    Attributes:
        ids: image_id of each.
        patients: patient_id of each: the two eyes of one are not independent.
        sources: reader of each.
        images: uint8, n×size×size×3; a file that is mapped into memory.
        maps: classes, uint8 n×map size×map size, likewise; 0 throughout where the eye has no map.
        fields: bool, n×size×size, likewise: the field of view.
        sides: index into SIDES, n.
        marks: disc and fovea of each, n×2×2: column and row in shares of the side; nan where not known.
        diameters: of the disc, n, in shares of the side; nan where not known.
        known: whether the map tells arteries from veins, n.
    """

    ids: list[str]
    patients: list[str]
    sources: list[str]
    images: np.ndarray
    maps: np.ndarray
    fields: np.ndarray
    sides: np.ndarray
    marks: np.ndarray
    diameters: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: np.ndarray) -> "Examples":
        """Some of the eyes, by index."""
        taken: dict[str, Any] = {name: getattr(self, name)[chosen] for name in ARRAYS}
        taken |= {name: [getattr(self, name)[i] for i in chosen] for name in NAMES}
        return Examples(**taken)


def tells(classes: np.ndarray | None) -> bool:
    """Whether there is a map that tells arteries from veins."""
    return classes is not None and tells_kinds(classes)


def has_vessels(classes: np.ndarray | None) -> bool:
    """Whether there is a map with any vessel, its kind told or not."""
    return classes is not None and bool(classes.any())


def read_examples(
    cohort: Cohort,
    split: str | None,
    size: int,
    folder: Path,
    wanted: Callable[[np.ndarray | None], bool] = tells,
    map_size: int | None = None,
) -> Examples:
    """Reads a split; memory is bounded by a row group of the cohort.

    Args:
        cohort: with photographs and, where there are, vessel maps.
        split: its name; None for all.
        size: pixels.
        folder: for the arrays, removed by the caller when they are done with.
        wanted: whether an eye with this map of classes (None: no map) is taken; by default those whose map tells
            arteries from veins.
        map_size: pixels of the maps; by default those of the photographs.

    Raises:
        DataError: a picture is damaged.
    """
    total, map_size = cohort.table(("image_id",), split).num_rows, map_size or size
    folder.mkdir(parents=True, exist_ok=True)
    images = _on_disk(folder / "images.npy", (total, size, size, 3), np.uint8)
    maps = _on_disk(folder / "maps.npy", (total, map_size, map_size), np.uint8)
    fields = _on_disk(folder / "fields.npy", (total, size, size), bool)
    ids: list[str] = []
    patients, sources, sides, marks, diameters, known = [], [], [], [], [], []
    for row in cohort.rows(_COLUMNS, split):
        try:
            classes = decode_map(row["vessels"]["bytes"]) if row["vessels"] else None
            if not wanted(classes):
                continue
            n = len(ids)
            images[n] = decode_image(row["image"]["bytes"], size)
            field = decode_map(row["fov"]["bytes"]) if row["fov"] else None
        except UnidentifiedImageError:
            raise DataError(f"{cohort.folder}: a picture of {row['image_id']} is damaged; run `ingest` again") from None
        maps[n] = 0 if classes is None else resize_map(classes, map_size)
        # Where the source draws no field, it is what the camera lit.
        lit = images[n].max(2) > 10 if field is None else cv2.resize(field, (size, size)) > 127
        fields[n] = lit
        ids.append(row["image_id"])
        patients.append(row["patient_id"])
        sources.append(row["source"])
        sides.append(SIDES.index(row["eye"]))
        where, diameter = landmarks(row)
        marks.append(where)
        diameters.append(diameter)
        known.append(tells(classes))
    return Examples(
        ids,
        patients,
        sources,
        images[: len(ids)],
        maps[: len(ids)],
        fields[: len(ids)],
        np.array(sides, int),
        np.array(marks, np.float32).reshape(-1, 2, 2),
        np.array(diameters, np.float32),
        np.array(known, bool),
    )


def _on_disk(file: Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if not shape[0]:
        return np.zeros(shape, dtype)
    return np.lib.format.open_memmap(file, "w+", dtype, shape)


def landmarks(row: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Disc and fovea (2×2, column and row) and the disc's height, in shares of the side.

    From truth, of drawn eyes what was asked for, else from the map of the disc; nan where not known.
    """
    marks, diameter = np.full((2, 2), np.nan), float("nan")
    if told := row["truth"] or (row["labels"] if row["source"] == "synthetic" else None):
        known = json.loads(told)
        values = np.array([known.get(name) for name in LANDMARKS], float)
        return values[:4].reshape(2, 2), float(values[4])
    if row["disc_cup"]:
        disc = decode_map(row["disc_cup"]["bytes"]) > 0
        if disc.any():
            rows, columns = np.nonzero(disc)
            marks[0] = (columns.mean() + 0.5) / disc.shape[1], (rows.mean() + 0.5) / disc.shape[0]
            diameter = (rows.max() + 1 - rows.min()) / disc.shape[0]
    return marks, diameter


def joined(parts: Sequence[Examples]) -> Examples:
    """Several sets of eyes as one."""
    if len(parts) == 1:
        return parts[0]
    whole: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    whole |= {name: [one for part in parts for one in getattr(part, name)] for name in NAMES}
    return Examples(**whole)
