"""The patch autoencoder of the small presets against diffusers' AutoencoderKL of the same compression.

    python -m benchmarks.autoencoder
    python -m benchmarks.autoencoder --minutes 1 3 9

A run encodes a batch of phantom eyes and decodes it again. Both sides make the same number of latents of a picture. An
AutoencoderKL is taken at the channel widths of Stable Diffusion's and at a quarter of them, with random weights, which
changes nothing of its speed. What each side keeps of eyes that it has not seen is told below the table: of ours, which
is fitted in seconds, and with --minutes of the narrower AutoencoderKL, looked at after each of these in one training
on the same eyes, in the precision that is fastest here.
"""

import argparse
import copy
import time
from collections.abc import Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from benchmarks.paired import Way, compare
from retinalogos.generators.text.autoencoder import (
    Autoencoder,
    PatchAutoencoder,
    VariationalAutoencoder,
    to_model_range,
    to_uint8,
)
from retinalogos.metrics.reconstruction import contrast, contrast_kept, psnr
from retinalogos.phantom import draw, sample_records
from retinalogos.training.averages import share_of_new
from retinalogos.training.device import compute_dtype

OURS = "ours"
# Of stabilityai/sd-vae-ft-mse: the widths of its levels, each two blocks deep, eight pixels a latent.
PUBLISHED_WIDTHS = (128, 256, 512, 512)
# params.yaml, autoencode.
WHITENING = 0.5
# Relative width of the average of weights that is looked at: the wider one that training tracks.
AVERAGED = 0.10


def eyes(count: int, seed: int, options: argparse.Namespace) -> Tensor:
    """Phantom eyes in [−1, 1], B×3×H×W."""
    return to_model_range(np.stack([eye.image for eye in draw(sample_records(count, seed), options.size)]))


def fitted(options: argparse.Namespace) -> PatchAutoencoder:
    """The patch autoencoder of phantom eyes."""
    batches = eyes(options.eyes, 0, options).split(16)
    return PatchAutoencoder.fit(lambda: batches, 8, options.channels, WHITENING)[0]


def make(name: str, options: argparse.Namespace) -> Way:
    """Encoding and decoding of a batch."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = eyes(options.batch, 1, options)
    if name == OURS:
        model: Autoencoder = fitted(options)
    else:
        model = VariationalAutoencoder(untrained(name, options).eval())

    def run() -> None:
        with torch.inference_mode():
            model.decode(model.encode(images))

    return run


def untrained(name: str, options: argparse.Namespace) -> AutoencoderKL:
    """An AutoencoderKL of the widths that its name tells."""
    widths = [int(width) for width in name.split()[1].split("-")]
    return AutoencoderKL(
        block_out_channels=widths, latent_channels=options.channels, layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=min(32, widths[0]),
    )  # fmt: skip


def trained(name: str, options: argparse.Namespace) -> Iterator[tuple[str, VariationalAutoencoder]]:
    """An AutoencoderKL at each of --minutes of processor time: random quarters of the eyes that ours is fitted to.

    The learning rate stays, and a look is at the average of the weights of the last quarter or so of the run up to
    there: none of them is at a disadvantage for not being the last.
    """
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    vae = untrained(name, options).train()
    average = copy.deepcopy(vae).eval()
    images = eyes(options.eyes, 0, options)
    side, batch = options.size // 2, 4
    precision = compute_dtype("auto", torch.device("cpu"))
    optimizer = torch.optim.AdamW(vae.parameters(), lr=options.rate, weight_decay=0.0, fused=True)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=20)
    spent, step = 0.0, 0
    for minutes in sorted(options.minutes):
        while spent < 60 * minutes:
            began = time.process_time()
            step += 1
            top, left = torch.randint(options.size - side + 1, (2,)).tolist()
            seen = images[torch.randint(len(images), (batch,)), :, top : top + side, left : left + side]
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                coded = vae.encode(seen).latent_dist
                error = vae.decode(coded.sample()).sample.float() - seen
            # Stable Diffusion's autoencoders weigh the divergence of a picture by 1e-6 of the sum of its errors.
            loss = error.square().mean() + 1e-6 * coded.kl().float().mean() / seen[0].numel()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            warm_up.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(vae.parameters()), share_of_new(AVERAGED, step))
            spent += time.process_time() - began
        yield f"{name} after {minutes:g} minutes, {step} steps of {batch}", VariationalAutoencoder(average)


def kept(model: Autoencoder, options: argparse.Namespace) -> str:
    """Mean PSNR and the share of the vessels' contrast that an autoencoder keeps of fresh phantom eyes."""
    ratios, pairs = [], []
    for eye in draw(sample_records(options.judged, seed=2), options.size):
        with torch.inference_mode():
            rebuilt = to_uint8(model.decode(model.encode(to_model_range(eye.image[None]))))[0]
        ratios.append(psnr(eye.image, rebuilt))
        vessels = eye.vessels > 0
        pairs.append((contrast(eye.image, vessels), contrast(rebuilt, vessels)))
    return f"PSNR {np.mean(ratios):.1f} dB, {100 * contrast_kept(pairs):.0f} % of the vessels' contrast kept"


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each autoencoder and what ours keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="pixels, a multiple of 8 (default: 128)")
    parser.add_argument("--channels", type=int, default=32, help="of the latents, on both sides (default: 32)")
    parser.add_argument("--batch", type=int, default=4, help="pictures of a run (default: 4)")
    parser.add_argument("--turns", type=int, default=5, help="runs of each that are timed (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operation (default: 1)")
    parser.add_argument("--eyes", type=int, default=200, help="phantom eyes that ours is fitted to (default: 200)")
    parser.add_argument("--judged", type=int, default=60, help="other eyes that it is judged on (default: 60)")
    parser.add_argument(
        "--widths", type=int, nargs=4, default=PUBLISHED_WIDTHS, help="channels of AutoencoderKL's levels"
    )
    parser.add_argument(
        "--minutes", type=float, nargs="*", default=[],
        help="processor minutes of training after which the narrower AutoencoderKL is looked at (default: no training)",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, default=1e-3, help="its learning rate (default: 0.001)")
    options = parser.parse_args(arguments)
    names = [f"AutoencoderKL {'-'.join(str(width // share) for width in options.widths)}" for share in (1, 4)]
    compare(make, [OURS, *names], options, options.turns, options.batch, "images")
    print(f"on {options.judged} other eyes, ours: {kept(fitted(options), options)}")
    for name, model in trained(names[-1], options):
        print(f"{name}: {kept(model, options)}", flush=True)


if __name__ == "__main__":
    main()
