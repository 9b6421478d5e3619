"""Sampling by our pipeline with Next-DiT against diffusers' LuminaPipeline: same weights, prompts, noise and steps.

    python -m benchmarks.sampling

Weights are random and the same on both sides: network, AutoencoderKL (a small one, so that the network is what counts)
and text encoder (all-MiniLM-L6-v2). Both encode the prompts, take the same Euler steps with guidance and decode. What
differs: LuminaPipeline guides three latent channels of four, computes its rotary embedding anew in every step, and pads
prompts to a multiple of eight tokens; in bfloat16 its weights are, and ours is autocast. Without guidance
(`--guidance 1`) both draw the same pictures. The first line is ours in the precision that it chooses for this machine.
"""

import argparse
import logging

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel, LuminaPipeline

from benchmarks.paired import Way, compare
from retinalogos.generators.text.conditioning import TextConditioning, load_text_encoder
from retinalogos.generators.text.next_dit import NextDiT
from retinalogos.generators.text.pipeline import TextToFundusPipeline, starting_noise
from retinalogos.memory import keep_freed_memory
from retinalogos.training.device import compute_dtype

OURS, THEIRS = "ours", "LuminaPipeline"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Of Lumina's own autoencoder and text: channels of the latents, and the hidden state that is taken.
CHANNELS, LAYER = 4, -2
# all-MiniLM-L6-v2.
TEXT = 384
# The pipeline drops the second half of the channels that its network predicts.
LEARN_SIGMA = True
BUDGET = 64


def prompts(batch: int) -> list[str]:
    """Captions of different lengths."""
    grades = ("no apparent", "mild non-proliferative", "severe non-proliferative", "proliferative")
    sides = ("left", "right")
    return [
        f"Colour fundus photograph of the {sides[i % 2]} eye, {grades[i // 2 % 4]} diabetic retinopathy."
        for i in range(batch)
    ]


def make(name: str, options: argparse.Namespace) -> Way:
    """Drawing a batch of pictures by ``ours`` or ``LuminaPipeline`` in a precision; returns them as n×size×size×3."""
    who, precision = name.split()
    torch.set_num_threads(options.threads)
    if who == OURS:
        keep_freed_memory()
    torch.manual_seed(0)
    heads = options.width // 64
    theirs = LuminaNextDiT2DModel(
        sample_size=options.size // 8, patch_size=2, in_channels=CHANNELS, hidden_size=options.width,
        learn_sigma=LEARN_SIGMA, num_layers=options.layers, num_attention_heads=heads, num_kv_heads=heads // 2,
        multiple_of=32, cross_attention_dim=TEXT,
    ).eval()  # fmt: skip
    with torch.no_grad():
        theirs.pad_token.zero_()
    vae = AutoencoderKL(
        block_out_channels=[32, 32, 64, 64], latent_channels=CHANNELS, layers_per_block=1, norm_num_groups=16,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    ).eval()  # fmt: skip
    texts, seeds = prompts(options.batch), list(range(options.batch))
    if who == OURS:
        network = NextDiT(**{key: value for key, value in theirs.config.items() if not key.startswith("_")}).eval()
        network.load_state_dict(theirs.state_dict())
        pipeline = TextToFundusPipeline(
            network, vae, TextConditioning(TEXT), None, "minilm", LAYER, BUDGET,
            size=options.size, steps=options.steps, guidance=options.guidance, solver="euler",
            precision=precision,
        )  # fmt: skip
        return lambda: pipeline(texts, seeds=seeds, batch_size=options.batch)
    encoder = load_text_encoder("minilm", BUDGET, LAYER)
    published = LuminaPipeline(theirs, FlowMatchEulerDiscreteScheduler(), vae, encoder.model, encoder.tokenizer)
    published.set_progress_bar_config(disable=True)
    published.to(PRECISIONS[precision])
    # The same grid as ours: its own default ends a little before the data.
    sigmas = np.linspace(1, 1 / options.steps, options.steps).tolist()

    def run() -> np.ndarray:
        pictures: np.ndarray = published(
            texts, width=options.size, height=options.size, num_inference_steps=options.steps, sigmas=sigmas,
            guidance_scale=options.guidance, clean_caption=False, output_type="np",
            latents=starting_noise(seeds, CHANNELS, options.size // 8).to(PRECISIONS[precision]),
        ).images  # fmt: skip
        return (pictures * 255).round().astype(np.uint8)

    return run


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=384, help="channels of a token, a multiple of 128 (default: 384)")
    parser.add_argument("--layers", type=int, default=6, help="blocks (default: 6)")
    parser.add_argument("--size", type=int, default=128, help="pixels, a multiple of 16 (default: 128)")
    parser.add_argument("--batch", type=int, default=4, help="pictures drawn at once (default: 4)")
    parser.add_argument("--steps", type=int, default=10, help="network evaluations (default: 10)")
    parser.add_argument("--guidance", type=float, default=4.0, help="LuminaPipeline's default: 4; 1 is none")
    parser.add_argument("--turns", type=int, default=5, help="runs of each that are timed (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operation (default: 1)")
    options = parser.parse_args(arguments)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    chosen = str(compute_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    precisions = sorted(PRECISIONS, key=lambda key: key != chosen)
    names = [f"{who} {precision}" for who in (OURS, THEIRS) for precision in precisions]
    compare(make, names, options, options.turns, options.batch, "images")


if __name__ == "__main__":
    main()
