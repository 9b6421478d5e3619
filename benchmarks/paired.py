"""Ways of doing the same work, each in a process of its own: timed in turn, and their peak memory.

In turn, so that other work on the machine and a changing clock meet all of them alike; ratios are taken within a turn
and their median is told. Beside the time on the wall stands the processor time of all threads: on a machine with other
work on it the latter is the steadier one. A process each, since threads, caches and the allocator are a process's.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

Way = Callable[[], object]
# A module's own function, so that another process can find it: the name of a way and the options to the way itself.
Make = Callable[[str, Any], Way]


@dataclass(frozen=True)
class Seconds:
    """Time that something took."""

    wall: float
    processor: float

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall + other.wall, self.processor + other.processor)


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process in MiB: at its peak, and before it set anything up (imported modules)."""

    peak: float
    start: float


def seconds(way: Way) -> Seconds:
    """Time of one run."""
    wall, processor = time.perf_counter(), time.process_time()
    way()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


class Process:
    """A way in a process of its own.

    Args:
        make: of the way.
        name: of the way.
        options: to the way.
    """

    def __init__(self, make: Make, name: str, options: Any):
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        self._start = self._pool.submit(_begin, make, name, options).result()

    def seconds(self) -> Seconds:
        """Time of one run there."""
        return self._pool.submit(_run).result()

    def memory(self) -> Memory:
        """What it has taken so far."""
        return Memory(self._pool.submit(_resident, "VmHWM").result(), self._start)

    def close(self) -> None:
        """Ends it."""
        self._pool.shutdown()


# Of the process that a Process started.
_own: list[Way] = []


def _begin(make: Make, name: str, options: Any) -> float:
    start = _resident("VmRSS")
    _own.append(make(name, options))
    return start


def _run() -> Seconds:
    return seconds(_own[0])


def _resident(line: str) -> float:
    # Not getrusage, whose peak is never below that of the process that started this one.
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(line):
            return int(text.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {line}: memory can be measured on Linux alone")


def in_turn(runs: Mapping[str, Callable[[], Seconds]], turns: int, warm_up: bool = True) -> dict[str, list[Seconds]]:
    """Times of each way in each turn; every other turn goes through them backwards.

    Args:
        runs: one run of each, by name, which tells its time.
        turns: runs of each that are told.
        warm_up: begin with a run of each that is not told.
    """
    if warm_up:
        for run in runs.values():
            run()
    times: dict[str, list[Seconds]] = {name: [] for name in runs}
    for turn in range(turns):
        names = list(runs)[:: -1 if turn % 2 else 1]
        for name in names:
            times[name].append(runs[name]())
    return times


def table(times: Mapping[str, Sequence[Seconds]], items: int, unit: str) -> None:
    """Prints a line a way: medians, rate, and how many times the first way's time it takes.

    Args:
        times: of each way in each turn; the others are compared with the first.
        items: done by one run, of which the rate is told.
        unit: what is done.
    """
    first = next(iter(times.values()))
    width = max(map(len, times))
    print(f"{'':{width}}  wall s  processor s  {unit + '/s':>10}  ratio wall  ratio processor")
    for name, own in times.items():
        wall, processor = (statistics.median(getattr(run, kind) for run in own) for kind in ("wall", "processor"))
        ratios = [
            statistics.median(getattr(run, kind) / getattr(base, kind) for run, base in zip(own, first, strict=True))
            for kind in ("wall", "processor")
        ]
        line = f"{name:{width}}  {wall:6.3f}  {processor:11.3f}  {items / wall:10.1f}"
        print(f"{line}  {ratios[0]:10.2f}  {ratios[1]:15.2f}", flush=True)


def tell_memory(name: str, taken: Memory) -> None:
    """Prints the peak memory of a way's process."""
    print(f"{name}: {taken.peak:.0f} MiB at the peak, {taken.peak - taken.start:.0f} beside the modules", flush=True)


def memories(make: Make, names: Sequence[str], options: Any) -> None:
    """Prints a line a way: peak memory of a process that runs it once and does nothing else."""
    for name in names:
        with closing(Process(make, name, options)) as way:
            way.seconds()
            tell_memory(name, way.memory())


def compare(make: Make, names: Sequence[str], options: Any, turns: int, items: int, unit: str) -> None:
    """Times all ways in turn, prints the table, then each one's memory."""
    with ExitStack() as ending:
        ways = {name: ending.enter_context(closing(Process(make, name, options))) for name in names}
        table(in_turn({name: way.seconds for name, way in ways.items()}, turns), items, unit)
        for name, way in ways.items():
            tell_memory(name, way.memory())
