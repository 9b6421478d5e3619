"""Ways of doing the same work: timed in turn in one process, their peak memory each in a process of its own.

In turn, so that other work on the machine and a changing clock meet all of them alike; ratios are taken within a turn
and their median is told. Beside the time on the wall stands the processor time of all threads: on a machine with other
work on it the latter is the steadier one.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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


def in_turn(ways: Mapping[str, Way], turns: int, warm_up: bool = True) -> dict[str, list[Seconds]]:
    """Times of each way in each turn; every other turn goes through them backwards.

    Args:
        ways: what is run, by name.
        turns: timed runs of each.
        warm_up: begin with a run of each that is not timed.
    """
    if warm_up:
        for way in ways.values():
            way()
    times: dict[str, list[Seconds]] = {name: [] for name in ways}
    for turn in range(turns):
        names = list(ways)[:: -1 if turn % 2 else 1]
        for name in names:
            times[name].append(seconds(ways[name]))
    return times


def memory(make: Make, name: str, options: Any, runs: int = 2) -> Memory:
    """Memory of a new process that makes this way and runs it; an optimiser has its state from the second run on."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, make, name, options, runs).result()


def _measured(make: Make, name: str, options: Any, runs: int) -> Memory:
    start = _resident("VmRSS")
    way = make(name, options)
    for _ in range(runs):
        way()
    return Memory(_resident("VmHWM"), start)


def _resident(line: str) -> float:
    # Not getrusage, whose peak is never below that of the process that started this one.
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(line):
            return int(text.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {line}: memory can be measured on Linux alone")


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


def memories(make: Make, names: Sequence[str], options: Any, runs: int = 2) -> None:
    """Prints a line a way: peak memory of a process that does nothing else."""
    for name in names:
        told = memory(make, name, options, runs)
        print(f"{name}: {told.peak:.0f} MiB at the peak, {told.peak - told.start:.0f} beside the modules", flush=True)


def compare(make: Make, names: Sequence[str], options: Any, turns: int, items: int, unit: str) -> None:
    """Times all ways in this process and prints the table, then each one's memory in its own."""
    table(in_turn({name: make(name, options) for name in names}, turns), items, unit)
    memories(make, names, options)
