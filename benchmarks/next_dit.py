"""A training step of our Next-DiT against diffusers' LuminaNextDiT2DModel: same weights, batch and threads, in turn.

python benchmarks/next_dit.py --threads 1
"""

import argparse
import time
from collections.abc import Callable

import torch
from diffusers import LuminaNextDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from torch import Tensor

from retinalogos.generators.text.next_dit import NextDiT

CHANNELS, TEXT, TOKENS = 32, 384, 48


def seconds(predict: Callable[[], Tensor], precision: torch.dtype) -> float:
    """Processor time of a forward and a backward pass."""
    began = time.process_time()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = predict().float().square().mean()
    loss.backward()
    return time.process_time() - began


def main() -> None:
    """Prints a line for each precision: the median of the ratios, and the rates of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384, help="channels of a token")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--size", type=int, default=16, help="width of the latents, a token each")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="pairs of steps that are timed")
    parser.add_argument("--threads", type=int, default=1, help="threads; processor time counts each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    heads = options.width // 64
    theirs = LuminaNextDiT2DModel(
        sample_size=options.size, patch_size=1, in_channels=CHANNELS, hidden_size=options.width, learn_sigma=False,
        num_layers=options.layers, num_attention_heads=heads, num_kv_heads=heads // 2, multiple_of=32,
        cross_attention_dim=TEXT,
    )  # fmt: skip
    with torch.no_grad():
        theirs.pad_token.zero_()
    ours = NextDiT(**{name: value for name, value in theirs.config.items() if not name.startswith("_")})
    ours.load_state_dict(theirs.state_dict())
    x, t = torch.randn(options.batch, CHANNELS, options.size, options.size), torch.rand(options.batch)
    text, mask = torch.randn(options.batch, TOKENS, TEXT), torch.ones(options.batch, TOKENS, dtype=torch.long)
    rotary = get_2d_rotary_pos_embed_lumina(theirs.head_dim, options.size, options.size)
    ways: list[Callable[[], Tensor]] = [
        lambda: ours(x, t, text, mask),
        lambda: theirs(x, t, text, mask, rotary, cross_attention_kwargs={}, return_dict=False)[0],
    ]
    for precision in (torch.float32, torch.bfloat16):
        pairs = [[seconds(way, precision) for way in ways] for _ in range(options.repeats + 1)][1:]
        ratio = sorted(published / own for own, published in pairs)[len(pairs) // 2]
        own, published = (options.batch / min(column) for column in zip(*pairs, strict=True))
        name = str(precision).removeprefix("torch.")
        print(f"{name:9} ours {own:6.1f} images/s, diffusers {published:6.1f} images/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
