"""The eyes of a cohort as lesion maps: what the networks are trained on and judged by."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import maps

NO_GRADE = -1


@dataclass(frozen=True)
class Examples:
    """Eyes with their maps, n of them.

    Attributes:
        candidates: uint8, n × size × size: a bit for each class that a pixel may be.
        images: uint8, n × size × size × 3.
        grades: ICDR 0-4, :data:`NO_GRADE` where unknown, n.
        patients: pseudonym of each eye's patient, n.
        ids: image ids, n.
    """

    candidates: np.ndarray
    images: np.ndarray
    grades: np.ndarray
    patients: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> np.ndarray:
        """Class of every pixel, unknown ones as :data:`maps.UNKNOWN`."""
        return maps.classes_of(self.candidates)

    @property
    def filled(self) -> np.ndarray:
        """Class of every pixel, unknown ones as retina."""
        return np.where(self.classes == maps.UNKNOWN, np.uint8(maps.VB), self.classes)

    def take(self, rows: np.ndarray | Sequence[int]) -> "Examples":
        """These rows: indices or a bool mask."""
        at = np.asarray(rows)
        return Examples(*(getattr(self, name)[at] for name in ("candidates", "images", "grades", "patients", "ids")))

    @property
    def by_grade(self) -> bool:
        """Whether at least half of the eyes have a grade: with fewer, nothing is learnt or judged by grade."""
        return bool((self.grades != NO_GRADE).mean() >= 0.5)

    def whole(self) -> "Examples":
        """Eyes of which every pixel's class is known."""
        return self.take((self.classes != maps.UNKNOWN).all((1, 2)))

    def fully_marked(self) -> "Examples":
        """Eyes with a grade of which every pixel's class is known: those that whole maps are compared by."""
        return self.take(self.grades != NO_GRADE).whole()


def read(cohort: Cohort, split: str | None, size: int) -> Examples:
    """Eyes of a split, or of all, that have a `lesions` map.

    Args:
        cohort: real or synthetic.
        split: one of the splits, or None.
        size: side of pictures and maps in pixels.

    Raises:
        DataError: there is none.
    """
    columns = ("image_id", "patient_id", "dr_grade", "source", "image", "lesions", "disc_cup", "fov")
    candidates, images, grades, patients, ids = [], [], [], [], []
    for row in cohort.rows(columns, split):
        if row["lesions"] is None:
            continue
        image = decode_image(row["image"]["bytes"])
        candidates.append(maps.from_row(row, image, size))
        images.append(image if image.shape[0] == size else decode_image(row["image"]["bytes"], size))
        grades.append(NO_GRADE if row["dr_grade"] is None else row["dr_grade"])
        patients.append(row["patient_id"])
        ids.append(row["image_id"])
    if not ids:
        where = f"split {split!r}" if split else "cohort"
        raise DataError(f"{cohort.folder}: no eye of the {where} has a `lesions` map; take a data set with one")
    return Examples(
        np.stack(candidates), np.stack(images), np.array(grades), np.array(patients, object), np.array(ids, object)
    )


def read_real(cohort: Cohort, size: int, *splits: str) -> tuple[Examples, ...]:
    """Eyes of the training split and of others, with the classes that training eyes tell apart.

    Args:
        cohort: real.
        size: side of pictures and maps in pixels.
        splits: those beside the training split.

    Raises:
        DataError: a split has no eye with a map.
    """
    found = [read(cohort, split, size) for split in ("train", *splits)]
    table = maps.told_apart(found[0].candidates)
    return tuple(replace(each, candidates=table[each.candidates]) for each in found)
