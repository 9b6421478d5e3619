"""The structures that are segmented, and the eyes whose maps show where they lie."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retinalogos.classifiers import experiment
from retinalogos.classifiers.configuration import Suspects
from retinalogos.classifiers.experiment import Sample
from retinalogos.cohort.field_of_view import resize_map
from retinalogos.cohort.schema import LEAST_SHARE, LESION_CLASSES
from retinalogos.cohort.shards import Cohort, decode_image, decode_map
from retinalogos.progress import track

# Structure → the map of the cohort that shows it, and the classes there that are part of it.
STRUCTURES: dict[str, tuple[str, tuple[int, ...]]] = {
    "vessel": ("vessels", (1, 2, 3)),
    "disc": ("disc_cup", (1, 2)),
    "cup": ("disc_cup", (2,)),
    **{code: ("lesions", (index,)) for index, code in enumerate(LESION_CLASSES) if index},
}
MAPS = tuple(dict.fromkeys(name for name, _ in STRUCTURES.values()))
FIELD = "fov"


def structures_of(map_name: str) -> list[str]:
    """The structures that a map of the cohort shows."""
    return [name for name, (of_map, _) in STRUCTURES.items() if of_map == map_name]


@dataclass(frozen=True)
class Targets:
    """Maps of n eyes.

    Attributes:
        maps: name of a map → classes, uint8 n×h×h; zero where unknown.
        known: structure → whether it was looked for in each eye, bool (n,).
        inside: the field of view, bool n×h×h; the whole picture where unknown.
    """

    maps: Mapping[str, np.ndarray]
    known: Mapping[str, np.ndarray]
    inside: np.ndarray

    def __len__(self) -> int:
        return len(self.inside)

    def mask(self, structure: str) -> np.ndarray:
        """Where a structure lies, bool n×h×h."""
        of_map, classes = STRUCTURES[structure]
        return np.isin(self.maps[of_map], classes)

    def shown(self, structure: str) -> np.ndarray:
        """Which eyes show it, bool (n,)."""
        return np.asarray(self.known[structure] & self.mask(structure).any((1, 2)))

    def take(self, rows: np.ndarray) -> "Targets":
        """Those of some eyes."""
        return Targets(
            {name: values[rows] for name, values in self.maps.items()},
            {name: values[rows] for name, values in self.known.items()},
            self.inside[rows],
        )

    def beside(self, other: "Targets") -> "Targets":
        """These eyes and then others."""
        return Targets(
            {name: np.concatenate([values, other.maps[name]]) for name, values in self.maps.items()},
            {name: np.concatenate([values, other.known[name]]) for name, values in self.known.items()},
            np.concatenate([self.inside, other.inside]),
        )


@dataclass(frozen=True)
class Annotated:
    """Eyes of which a map is known, and their maps."""

    eyes: Sample
    targets: Targets

    def __len__(self) -> int:
        return len(self.eyes)


def read_annotated(cohort: Cohort, split: str | None, size: int, suspects: Suspects = "exclude") -> Annotated:
    """Reads the eyes of a split (None: of all) that have a map of vessels, of lesions, or of disc and cup.

    What no map of a source shows was not looked for there: of one that marks haemorrhages alone, exudates are unknown
    rather than absent.

    Args:
        cohort: real or synthetic.
        split: name of the split.
        size: side in pixels.
        suspects: what a glaucoma suspect counts as.
    """
    rows, images, inside = [], [], []
    maps: dict[str, list[np.ndarray]] = {name: [] for name in MAPS}
    has: dict[str, list[bool]] = {name: [] for name in MAPS}
    what = f"read maps of {cohort.meta['name']} {split or ''}".strip()
    for row in track(cohort.rows((*experiment.COLUMNS, "image", *MAPS, FIELD), split), what, unit="eye"):
        if not any(row[name] for name in MAPS):
            continue
        images.append(decode_image(row["image"]["bytes"], size))
        inside.append(_classes(row[FIELD], FIELD, size) > 0 if row[FIELD] else np.ones((size, size), bool))
        for name in MAPS:
            has[name].append(row[name] is not None)
            maps[name].append(_classes(row[name], name, size))
        rows.append({name: row[name] for name in experiment.COLUMNS})
    eyes = experiment.sample_of(rows, np.array(images, np.uint8).reshape(-1, size, size, 3), suspects)
    stacked = {name: np.array(values, np.uint8).reshape(-1, size, size) for name, values in maps.items()}
    sources, known = eyes.subgroups["source"], {}
    for structure, (name, classes) in STRUCTURES.items():
        marked = sources[np.isin(stacked[name], classes).any((1, 2))]
        known[structure] = np.array(has[name], bool) & np.isin(sources, marked)
    return Annotated(eyes, Targets(stacked, known, np.array(inside, bool).reshape(-1, size, size)))


def _classes(stored: Mapping[str, bytes] | None, name: str, size: int) -> np.ndarray:
    if stored is None:
        return np.zeros((size, size), np.uint8)
    return resize_map(decode_map(stored["bytes"]), size, size, LEAST_SHARE[name])
