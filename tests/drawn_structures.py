"""Pictures whose structures can be seen, with their maps."""

import hashlib
from pathlib import Path

import numpy as np

from retinalogos.classifiers.experiment import Sample
from retinalogos.cohort.shards import CohortWriter, encode_png
from retinalogos.segmenters.structures import MAPS, STRUCTURES, Annotated, Targets

SIZE = 32


def draw_annotated(name: str, n: int, seed: int) -> Annotated:
    """Noisy pictures of many tints with a dark bar (a vessel), a bright disc with a cup, and dark haemorrhages."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    images = np.array([140, 100, 80]) + rng.uniform(-45, 45, (n, 1, 1, 3)) + rng.normal(0, 8, (n, SIZE, SIZE, 3))
    maps = {of_map: np.zeros((n, SIZE, SIZE), np.uint8) for of_map in MAPS}
    for at in range(n):
        row, (cx, cy) = rng.integers(6, SIZE - 6), rng.uniform(8, SIZE - 8, 2)
        maps["vessels"][at, row : row + 2] = 1 + at % 2
        away = np.hypot(x - cx, y - cy)
        maps["disc_cup"][at] = (away < 5).astype(int) + (away < 2.5)
        if at % 2:
            maps["lesions"][at][np.hypot(x - rng.uniform(4, 28), y - rng.uniform(4, 28)) < 3] = 2
        images[at][maps["disc_cup"][at] > 0] += 60
        images[at][maps["disc_cup"][at] > 1] += 40
        images[at][maps["lesions"][at] > 0] -= 70
        images[at][maps["vessels"][at] > 0] -= 45
    ids = np.array([f"{name}{row:04d}" for row in range(n)])
    patients = np.array([f"{name}-patient{row // 2}" for row in range(n)])
    unknown = {"dr_grade": np.full(n, -1), "glaucoma": np.full(n, -1)}
    synthetic, sex = np.full(n, name == "synthetic"), np.where(np.arange(n) // 2 % 2, "male", "female")
    eyes = Sample(ids, patients, ids, synthetic, images.clip(0, 255).astype(np.uint8), unknown, {"sex": sex})
    drawn = ("vessel", "disc", "cup", "haemorrhage")
    known = {structure: np.full(n, structure in drawn) for structure in STRUCTURES}
    return Annotated(eyes, Targets(maps, known, np.ones((n, SIZE, SIZE), bool)))


def write_annotated(folder: Path, parts: dict[str, Annotated], maps: tuple[str, ...] = MAPS) -> Path:
    """A cohort of these eyes by split, with these of their maps; DR grades go round, for a classifier to learn."""
    with CohortWriter(folder, folder.name) as writer:
        for split, part in parts.items():
            for at in range(len(part)):
                data = encode_png(part.eyes.images[at])
                row = {
                    "image_id": str(part.eyes.image_id[at]),
                    "patient_id": str(part.eyes.patient_id[at]),
                    "sex": str(part.eyes.subgroups["sex"][at]),
                    "dr_grade": at // 2 % 3,
                    "split": split,
                    "source": "drawn",
                    "width": SIZE,
                    "height": SIZE,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "image": {"bytes": data, "path": f"{at}.png"},
                    "generator": "drawn" if part.eyes.synthetic[at] else None,
                }
                row |= {
                    name: {"bytes": encode_png(part.targets.maps[name][at]), "path": f"{name}.png"} for name in maps
                }
                writer.add(row)
    return folder
