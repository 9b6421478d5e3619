"""Progress of long work: one line with the step, elapsed time, items per second and time left."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
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
    yield from _bar(items, what, total, unit)


def _bar(items: Iterable[T] | None, what: str, total: int | None, unit: str) -> "tqdm[T]":
    terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=what,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=0.5 if terminal else 10.0,
        dynamic_ncols=terminal,
        ascii=not terminal,
    )


@contextmanager
def transfer(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many bytes have passed, as :func:`track` shows items.

    Args:
        what: name of the work, shown first.
        total: bytes in all.

    Yields:
        A function that is told how many more bytes have passed; any thread may call it.
    """
    lock = Lock()
    with _bar(None, what, total, "B") as bar:

        def passed(count: int) -> None:
            with lock:
                bar.update(count)

        yield passed
