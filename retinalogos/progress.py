"""Progress of long work: one line with the step, elapsed time, items per second and time left."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yields ``items`` and shows how far the work is.

    On a terminal the line is redrawn; in a log file a new line is written every ten seconds, so
    that a log of a night's run stays readable.

    Args:
        items: what is worked on.
        what: name of the step, shown first.
        total: number of items, where ``len(items)`` is not known.
        unit: what one item is called.
    """
    terminal = sys.stderr.isatty()
    bar = tqdm(
        items,
        desc=what,
        total=total,
        unit=unit,
        mininterval=0.5 if terminal else 10.0,
        dynamic_ncols=terminal,
        ascii=not terminal,
    )
    yield from bar
