"""Several processes that train one model, each on its rows of every batch; `torchrun` starts them.

Each holds the whole model, or, sharded (FSDP2), its share of every weight, gradient and state of the optimiser.
What only sharding needs is imported where it is used: it takes seconds.
"""

import atexit
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from retinalogos.errors import UsageError

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


def blocks(model: nn.Module) -> list[nn.Module]:
    """The parts that are computed one after another: the members of the model's own lists of modules."""
    return [block for part in model.children() if isinstance(part, nn.ModuleList) for block in part]


def shard(model: nn.Module, where: torch.device) -> None:
    """Leaves each process its share of the model; a block's weights are put together while it computes.

    Raises:
        UsageError: there is one process only.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized():
        raise UsageError("sharded: true needs the processes of torchrun: start it so, or set sharded: false")
    mesh = init_device_mesh(where.type, (count(),))
    for part in (*blocks(model), model):
        fully_shard(part, mesh=mesh)


def whole(tensor: Any) -> Tensor:
    """A tensor that lies in shares, put together in every process (all must call); any other as it is."""
    full: Tensor = tensor.full_tensor() if _in_shares(tensor) else tensor
    return full


def all_whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See :func:`whole`; in the processor's memory, which holds what an accelerator may not."""
    return {name: whole(tensor).cpu() for name, tensor in tensors.items()}


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of a model's optimiser for a checkpoint.

    Sharded it is by name of the weight, so that any number of processes can load it; one that has not stepped yet then
    gets a state to load into.
    """
    if not _in_shares(next(model.parameters())):
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return get_optimizer_state_dict(model, optimizer)


def load_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts back what :func:`optimizer_state` gave."""
    if not _in_shares(next(model.parameters())):
        optimizer.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    set_optimizer_state_dict(model, optimizer, state)


def _in_shares(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
