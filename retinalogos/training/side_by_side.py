"""Several trainings at a time, each on one thread of the CPU."""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from retinalogos.progress import track

T = TypeVar("T")


def side_by_side(jobs: Sequence[Callable[[Callable[[], None]], T]], steps: int, workers: int, what: str) -> list[T]:
    """What the trainings give, in their order; it depends neither on the number of cores nor on ``workers``.

    The first error ends them all. torch's number of threads is left as it was.

    Args:
        jobs: trainings; each is given a function that it calls after every optimiser step.
        steps: optimiser steps of each.
        workers: trainings at a time; 1 with an accelerator.
        what: they are, for the line that shows their progress.
    """
    ticks: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run(job: Callable[[Callable[[], None]], T]) -> T:
        torch.set_num_threads(1)
        try:
            return job(lambda: ticks.put(None))
        except BaseException as error:
            ticks.put(error)
            raise

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(run, job) for job in jobs]
            total = len(jobs) * steps
            for error in track((ticks.get() for _ in range(total)), what, total, "step"):
                if error is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise error
            return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)
