"""Cubes of a cohort as one file of plain values that is read by place: memory does not grow with the cohort."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinalogos.cohort.cubes import FULL_SCALE
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.progress import track

# Pixels of a cube that are looked at for the range of its bands.
_LOOKED_AT = 4096
# Reflectance of a band that all but this share of the pixels lie below becomes 1 for the networks.
_QUANTILE = 0.999


class CubeFile:
    """The cubes of a split, uint16, n × bands × size × size, on disk in ``folder`` while the object is used.

    The file is named after the content of the cohort, so that a run that goes on finds it.

    Args:
        cohort: of cubes.
        split: one of the splits.
        folder: for the file; made where missing.

    Raises:
        DataError: the split is empty, or its cubes differ in size.
    """

    def __init__(self, cohort: Cohort, split: str, folder: Path):
        count = cohort.meta["splits"].get(split, 0)
        if not count:
            raise DataError(f"{cohort.folder}: the split {split!r} is empty; ingest more cubes")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{cohort.meta['content_sha256'][:16]}-{split}.npy"
        self.wavelengths = cohort.wavelengths
        if not self.path.exists():
            self._write(cohort, split, count)
        self.values: np.ndarray = np.load(self.path, mmap_mode="r")

    def _write(self, cohort: Cohort, split: str, count: int) -> None:
        partial = self.path.with_suffix(f".{os.getpid()}.npy")
        target: np.memmap | None = None
        cubes = track(cohort.cubes(split=split), f"unpack {split}", count, "cube")
        for number, (row, cube) in enumerate(cubes):
            if target is None:
                target = np.lib.format.open_memmap(partial, "w+", np.uint16, (count, *cube.values.shape))
            if cube.values.shape != target.shape[1:]:
                raise DataError(f"{cohort.folder}: cube {row['image_id']} is of {cube.values.shape}, others differ")
            target[number] = cube.values
        assert target is not None
        target.flush()
        os.replace(partial, self.path)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        """The cubes at these places, uint16, n × bands × size × size."""
        return np.stack([self.values[row] for row in rows])

    def scale(self, seed: int) -> list[float]:
        """Reflectance of each band below which nearly all of the fundus lies, 0-1."""
        rng = np.random.default_rng(seed)
        stride = max(1, len(self) // 256)
        seen = []
        for cube in self.values[::stride]:
            flat = cube.reshape(len(cube), -1)
            seen.append(flat[:, rng.integers(0, flat.shape[1], min(_LOOKED_AT, flat.shape[1]))])
        return [float(q) / FULL_SCALE for q in np.quantile(np.concatenate(seen, 1), _QUANTILE, axis=1)]

    def remove(self) -> None:
        """Takes the file away."""
        self.path.unlink(missing_ok=True)
