"""Several processes that train one model, each on its rows of every batch; `torchrun` starts them."""

import atexit
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

# The first process writes for all.
FIRST = 0


def join(where: torch.device) -> None:
    """Joins the processes that `torchrun` started; does nothing in a process of its own, or one that has joined."""
    if "RANK" not in os.environ or dist.is_initialized():
        return
    if where.type == "cuda":
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    atexit.register(dist.destroy_process_group)


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else FIRST


def count() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if count() > 1:
        dist.barrier()


def average(tensors: Sequence[Tensor]) -> None:
    """Puts the mean over all processes in the place of each tensor; the same bits in all of them."""
    if count() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= count()
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
