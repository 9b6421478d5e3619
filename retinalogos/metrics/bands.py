"""Features of many images, read a band at a time: they may lie on disk, and only a band of them is in memory."""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from retinalogos.errors import UsageError

ROWS = 1024  # of a band: 8 MB for each 1,000 features


class Banded(Protocol):
    """n rows of d values, of which slices can be had: an array, in memory or on disk, or :class:`Rows` of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """n, d."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True)
class Rows:
    """Some rows of others, in their order, a row as often as it is named; nothing is copied before it is read.

    Attributes:
        whole: n × d.
        rows: indices into it.
    """

    whole: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """How many rows, and of how many values."""
        return len(self.rows), *self.whole.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return np.asarray(self.whole[self.rows[rows]])


def taken(features: Banded, rows: np.ndarray) -> Rows:
    """Rows of features that may be some rows of others themselves."""
    if isinstance(features, Rows):
        return Rows(features.whole, features.rows[rows])
    assert isinstance(features, np.ndarray)
    return Rows(features, rows)


def bands(features: Banded) -> Iterator[tuple[slice, np.ndarray]]:
    """Places of each band, and its rows as float64."""
    for start in range(0, len(features), ROWS):
        places = slice(start, min(start + ROWS, len(features)))
        yield places, np.asarray(features[places], np.float64)


def on_disk(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array of zeros in a temporary file, gone with the last that holds it; of it only what is touched is in memory.

    Raises:
        UsageError: the folder for temporary files has no room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    # The array keeps a handle of its own: the file needs no name.
    with tempfile.TemporaryFile() as file:
        try:
            # Room is taken now: of a disk that fills up later the process would die without a word.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise UsageError(
                f"{size / 1e9:.1f} GB do not fit into {tempfile.gettempdir()} ({error.strerror}): "
                "name a folder with more room in TMPDIR"
            ) from None
        return np.asarray(np.memmap(file, dtype, "r+", shape=tuple(shape)))


@dataclass(frozen=True)
class Weighted:
    """Rows of features, those of a patient beside each other, and how often each stands in each bootstrap resample.

    Attributes:
        features: n × d.
        member: number of each row's patient, ascending, n.
        times: resamples × patients, uint8, on disk; the first is the sample as it is.
        images: in each resample, (resamples,).
    """

    features: Rows
    member: np.ndarray
    times: np.ndarray
    images: np.ndarray

    @classmethod
    def draw(
        cls, features: Banded, patients: np.ndarray | None, resamples: int, rng: np.random.Generator
    ) -> "Weighted":
        """Draws resamples of whole patients.

        Args:
            features: n × d.
            patients: of each row, n; None: each row stands for itself.
            resamples: how many.
            rng: of the draws.
        """
        names = np.arange(len(features)) if patients is None else patients
        member = np.unique(names, return_inverse=True)[1]
        count = int(member.max()) + 1
        # Nobody is drawn 256 times: with so few patients there are fewer places, else the chance is nil.
        times = on_disk((resamples + 1, count), np.uint8)
        times[0] = 1
        for row in range(resamples):
            times[row + 1] = rng.multinomial(count, np.full(count, 1 / count))
        order = np.argsort(member, kind="stable")
        of_patient = np.bincount(member).astype(np.float64)
        return cls(taken(features, order), member[order], times, np.array([row @ of_patient for row in times]))

    def bands(self) -> Iterator[tuple[slice, np.ndarray]]:
        """As :func:`bands`."""
        return bands(self.features)

    def weights(self, places: slice) -> np.ndarray:
        """Of these rows, rows × (1 + resamples), float64."""
        return self.times[:, self.member[places]].T.astype(np.float64)
