"""Attention forward and backward at the lengths of latents: matrix products against PyTorch's fused kernel.

python benchmarks/attention.py
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Two matrix products and a softmax."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def milliseconds(way: Callable[[Tensor, Tensor, Tensor], Tensor], parts: list[Tensor], repeats: int) -> float:
    """Processor time of a forward and backward pass, the least of all repeats."""
    times = []
    for _ in range(repeats + 1):
        began = time.process_time()
        way(*parts).square().mean().backward()
        times.append(time.process_time() - began)
    return 1000 * min(times[1:])


def main() -> None:
    """Prints a line for each length and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--width", type=int, default=64, help="channels of a head")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads; processor time counts each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("tokens  precision  plain ms  fused ms  ratio")
    for tokens in (64, 256):
        for precision in (torch.float32, torch.bfloat16):
            shape = (options.batch, options.heads, tokens, options.width)
            parts = [torch.randn(shape, dtype=precision, requires_grad=True) for _ in range(3)]
            ours = milliseconds(plain, parts, options.repeats)
            fused = milliseconds(F.scaled_dot_product_attention, parts, options.repeats)
            name = str(precision).removeprefix("torch.")
            print(f"{tokens:6}  {name:9}  {ours:8.1f}  {fused:8.1f}  {fused / ours:5.2f}")


if __name__ == "__main__":
    main()
