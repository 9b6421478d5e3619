"""A training step of our Next-DiT against diffusers' LuminaNextDiT2DModel, eager and compiled, in float32 and bfloat16.

    python -m benchmarks.next_dit

Both have the same weights, batch, threads and optimiser: forward, backward, gradient clipping, fused AdamW; bfloat16
is autocast, as in diffusers' training examples, whose default is float32. With several threads the other side takes
them within each operation, and ours as the training loop does, a piece of the batch each; then the time on the wall
counts, on cores that have nothing else to do. Compiled is each block of ours by itself,
as by `compile_blocks: true`, and the whole of theirs. Ours keeps freed memory, as every step does; `--kept` lets
both. The first line is ours in the precision that it chooses for this machine; a ratio is how many times as long
another takes. Compiling needs a C++ compiler: where torch.compile does not run, that is said and the compiled ways
are left out. The last lines are what the matrix products of a forward and a backward pass would take by themselves, at
the rate of one large product, for no way that does them can be faster; and their share of the first line's step.
"""

import argparse
from dataclasses import dataclass

import torch
from diffusers import LuminaNextDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.paired import Way, compare
from benchmarks.products import PRECISIONS, tell_products
from retinalogos.generators.text.next_dit import NextDiT
from retinalogos.memory import keep_freed_memory
from retinalogos.training.device import compute_dtype, reason_not_to_compile
from retinalogos.training.loop import Gradients

CHANNELS, TEXT, TOKENS = 32, 384, 48
PRODUCTS = ("aten::mm", "aten::bmm", "aten::addmm")


@dataclass(frozen=True)
class Cut:
    """How a batch is cut, see :class:`~retinalogos.training.configuration.TrainingConfig`."""

    batch_size: int
    pieces: int
    sharded: bool = False


def make(name: str, options: argparse.Namespace) -> Way:
    """A training step: ``ours`` or ``diffusers``, a precision, and ``compiled`` or nothing."""
    who, precision, *compiled = name.split()
    torch.set_num_threads(options.threads)
    if who == "ours" or options.kept:
        keep_freed_memory()
    torch.manual_seed(0)
    heads = options.width // 64
    theirs = LuminaNextDiT2DModel(
        sample_size=options.size, patch_size=1, in_channels=CHANNELS, hidden_size=options.width, learn_sigma=False,
        num_layers=options.layers, num_attention_heads=heads, num_kv_heads=heads // 2, multiple_of=32,
        cross_attention_dim=TEXT,
    )  # fmt: skip
    with torch.no_grad():
        theirs.pad_token.zero_()
    x, t = torch.randn(options.batch, CHANNELS, options.size, options.size), torch.rand(options.batch)
    text, mask = torch.randn(options.batch, TOKENS, TEXT), torch.ones(options.batch, TOKENS, dtype=torch.long)
    model: nn.Module
    if who == "ours":
        model = NextDiT(**{key: value for key, value in theirs.config.items() if not key.startswith("_")})
        model.load_state_dict(theirs.state_dict())
        if compiled:
            for block in model.layers:
                block.compile()

        def loss(model: nn.Module, _: int | None, rows: slice) -> Tensor:
            velocity: Tensor = model(x[rows], t[rows], text[rows], mask[rows])
            return velocity.float().square().mean()

        gradients = Gradients(model, loss, Cut(options.batch, options.threads), PRECISIONS[precision])

        def backward() -> None:
            gradients(0)
    else:
        model = torch.compile(theirs) if compiled else theirs
        rotary = get_2d_rotary_pos_embed_lumina(theirs.head_dim, options.size, options.size)

        def backward() -> None:
            with torch.autocast("cpu", PRECISIONS[precision], enabled=precision != "float32"):
                velocity = model(x, t, text, mask, rotary, cross_attention_kwargs={}, return_dict=False)[0]
                loss = velocity.float().square().mean()
            loss.backward()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def share_of_products(name: str, options: argparse.Namespace) -> float:
    """Share (0-1) of a step's time that is spent in matrix products, by PyTorch's profiler."""
    step = make(name, options)
    for _ in range(2):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(3):
            step()
    own = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(own.get(product, 0.0) for product in PRODUCTS) / sum(own.values())


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384, help="channels of a token, a multiple of 128 (default: 384)")
    parser.add_argument("--layers", type=int, default=6, help="blocks (default: 6)")
    parser.add_argument("--size", type=int, default=16, help="width of the latents, a token each (default: 16)")
    parser.add_argument("--batch", type=int, default=4, help="images of a step (default: 4)")
    parser.add_argument("--turns", type=int, default=5, help="steps of each way that are timed (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of either side (default: 1)")
    parser.add_argument("--eager", action="store_true", help="compile nothing: spares minutes")
    parser.add_argument("--kept", action="store_true", help="freed memory is kept by the other side too")
    options = parser.parse_args(arguments)
    chosen = str(compute_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    names = [f"ours {precision}" for precision in sorted(PRECISIONS, key=lambda key: key != chosen)]
    names += [f"diffusers {precision}" for precision in PRECISIONS]
    if chosen == "float32":
        print("This processor has no bfloat16 units: it imitates bfloat16; ratios of it tell nothing of one that has.")
    if not options.eager:
        reason = reason_not_to_compile()
        if reason:
            print(f"Left out, torch.compile does not run here: {reason}")
        else:
            names.insert(0, f"ours {chosen} compiled")
            names += [f"diffusers {precision} compiled" for precision in PRECISIONS]
    compare(make, names, options, options.turns, options.batch, "images")
    tell_products(make("ours float32", options))
    print(f"their share of a step, {names[0]}: {100 * share_of_products(names[0], options):.0f} %")


if __name__ == "__main__":
    main()
