"""Runs a function in two processes as `torchrun` would, without the seconds that importing torch anew takes."""

import multiprocessing
import os
import socket
from collections.abc import Callable

import torch


def in_two_processes(work: Callable[[int], None]) -> list[int | None]:
    """Calls ``work(rank)`` in two forks of this process; their exit codes, of which 0 is a good end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        # As torchrun sets it; the threads of the process that was forked are not there any more.
        torch.set_num_threads(1)
        work(rank)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=start, args=(rank,)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
