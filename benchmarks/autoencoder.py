"""The patch autoencoder of the small presets against diffusers' AutoencoderKL of the same compression.

    python -m benchmarks.autoencoder
    python -m benchmarks.autoencoder --minutes 30

A run encodes a batch of phantom eyes and decodes it again. Both sides make the same number of latents of a picture. An
AutoencoderKL is taken at the channel widths of Stable Diffusion's and at a quarter of them, with random weights, which
changes nothing of its speed. What each side keeps of eyes that it has not seen is told below the table: of ours, which
is fitted in seconds, and with --minutes of the narrower AutoencoderKL after so much training on the same eyes.
"""

import argparse
import math
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

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

OURS = "ours"
# Of stabilityai/sd-vae-ft-mse: the widths of its levels, each two blocks deep, eight pixels a latent.
PUBLISHED_WIDTHS = (128, 256, 512, 512)
# params.yaml, autoencode.
WHITENING = 0.5


def fitted(options: argparse.Namespace) -> PatchAutoencoder:
    """The patch autoencoder of phantom eyes."""
    eyes = draw(sample_records(options.eyes, seed=0), options.size)
    batches = [to_model_range(np.stack([eye.image for eye in eyes[i : i + 16]])) for i in range(0, len(eyes), 16)]
    return PatchAutoencoder.fit(lambda: batches, 8, options.channels, WHITENING)[0]


def make(name: str, options: argparse.Namespace) -> Way:
    """Encoding and decoding of a batch."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = to_model_range(np.stack([eye.image for eye in draw(sample_records(options.batch, seed=1), options.size)]))
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


def trained(name: str, options: argparse.Namespace) -> VariationalAutoencoder:
    """An AutoencoderKL after --minutes of processor time on random quarters of the eyes that ours is fitted to."""
    torch.manual_seed(0)
    vae = untrained(name, options).train()
    images = to_model_range(np.stack([eye.image for eye in draw(sample_records(options.eyes, seed=0), options.size)]))
    side, batch = options.size // 2, 8
    optimizer = torch.optim.AdamW(vae.parameters(), lr=5e-4, weight_decay=0.0)
    began, spent, steps = time.process_time(), 0.0, 0
    while spent < 1:
        top, left = torch.randint(options.size - side + 1, (2,)).tolist()
        seen = images[torch.randint(len(images), (batch,)), :, top : top + side, left : left + side]
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * 0.5 * (1 + math.cos(math.pi * spent))
        coded = vae.encode(seen).latent_dist
        # The weight of the divergence is that of Stable Diffusion's autoencoders.
        loss = (vae.decode(coded.sample()).sample - seen).square().mean() + 1e-6 * coded.kl().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
        spent = (time.process_time() - began) / (60 * options.minutes)
    print(f"{name}: {steps} steps of {batch} in {options.minutes:g} minutes")
    return VariationalAutoencoder(vae.eval())


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
        "--minutes", type=float, default=0, help="processor minutes that the narrower AutoencoderKL is trained (none)"
    )
    options = parser.parse_args(arguments)
    names = [f"AutoencoderKL {'-'.join(str(width // share) for width in options.widths)}" for share in (1, 4)]
    compare(make, [OURS, *names], options, options.turns, options.batch, "images")
    print(f"on {options.judged} other eyes, ours: {kept(fitted(options), options)}")
    if options.minutes:
        print(f"{names[-1]}: {kept(trained(names[-1], options), options)}")


if __name__ == "__main__":
    main()
