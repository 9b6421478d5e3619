"""What the matrix products and convolutions of a step would take by themselves: no way that does them can be faster."""

import statistics
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.paired import Way, in_turn, seconds

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SIDE, _TURNS = 1024, 20


def tell_products(step: Way) -> None:
    """Prints the seconds that a step's products and convolutions need at the rate of one large product.

    Args:
        step: a step in float32; it is run once.
    """
    with FlopCounterMode(display=False) as counted:
        step()
    operands = {name: torch.randn(_SIDE, _SIDE, dtype=dtype) for name, dtype in PRECISIONS.items()}
    times = in_turn({name: partial(seconds, partial(torch.matmul, one, one)) for name, one in operands.items()}, _TURNS)
    share = counted.get_total_flops() / (2 * _SIDE**3)
    needed = {name: share * statistics.median(run.processor for run in own) for name, own in times.items()}
    told = ", ".join(f"{taken:.3f} s in {precision}" for precision, taken in needed.items())
    print(f"the matrix products and convolutions of a step alone: {told}", flush=True)
