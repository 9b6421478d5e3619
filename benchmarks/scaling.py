"""What a preset of the paper's models costs at scale: bytes, operations, device-hours and money, with the formula.

Operations are counted on the real networks, without weights. The rate at which a device does them is measured on this
machine with blocks of the real width, or told:

python benchmarks/scaling.py --pairs 1400000 --price 3
python benchmarks/scaling.py --pairs 1400000 --price 3 --operations-per-second 4e14
"""

import argparse
import time
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GemmaConfig, GemmaModel

from pipelines.params import Choices, compose
from retinalogos.errors import UsageError
from retinalogos.generators.text.next_dit import NextDiT
from retinalogos.training.device import device

# RetinaLogos' released NextDiT_2B_GQA_patch2: 1.63 billion parameters.
NETWORK: dict[str, Any] = {"hidden_size": 2304, "num_layers": 24, "num_attention_heads": 32, "num_kv_heads": 8}
# As published with stabilityai/sdxl-vae.
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
# As published with google/gemma-2b.
TEXT: dict[str, Any] = {
    "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8,
    "num_key_value_heads": 1, "head_dim": 256,
}  # fmt: skip
# Latents and text features are stored as float16.
BYTES = 2
CHANNELS, FACTOR, TEXT_DIM = AUTOENCODER["latent_channels"], 8, TEXT["hidden_size"]


def network_inputs(size: int, tokens: int, batch: int, where: str | torch.device) -> tuple[Tensor, ...]:
    """Latents of images of ``size`` pixels, times, text features and mask, of no particular values."""
    side = size // FACTOR
    return (
        torch.randn(batch, CHANNELS, side, side, device=where),
        torch.rand(batch, device=where),
        torch.randn(batch, tokens, TEXT_DIM, device=where),
        torch.ones(batch, tokens, dtype=torch.long, device=where),
    )


def operations(work: Any) -> int:
    """Floating-point operations (a multiplication and an addition are two) of what ``work()`` calls."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def train_operations(network: nn.Module, size: int, tokens: int) -> int:
    """Of a forward and backward pass for one image."""
    inputs = network_inputs(size, tokens, 1, "meta")
    return operations(lambda: network(*inputs).square().mean().backward())


def draw_operations(network: nn.Module, size: int, tokens: int) -> int:
    """Of one evaluation for one image."""
    inputs = network_inputs(size, tokens, 1, "meta")
    with torch.no_grad():
        return operations(lambda: network(*inputs))


def encode_operations(sizes: list[int], captions: int, tokens: int) -> int:
    """Of an image's latents at each size and its captions' features."""
    with torch.device("meta"):
        encoder = AutoencoderKL(**AUTOENCODER).encoder
        text = GemmaModel(GemmaConfig(**TEXT))
    with torch.no_grad():
        of_images = sum(operations(lambda s=s: encoder(torch.empty(1, 3, s, s, device="meta"))) for s in sizes)
        of_text = operations(lambda: text(torch.zeros(1, tokens, dtype=torch.long, device="meta")))
    return of_images + captions * of_text


def measured_rate(layers: int, size: int, tokens: int, batch: int, repeats: int) -> float:
    """Operations a second of training steps on this device, in bfloat16 where it has it; the median of ``repeats``."""
    where = device()
    network = NextDiT(**NETWORK | {"num_layers": layers}).to(where)
    inputs = network_inputs(size, tokens, batch, where)
    precision = torch.bfloat16 if where.type == "cuda" else torch.float32

    def step() -> None:
        with torch.autocast(where.type, precision, enabled=precision != torch.float32):
            loss = network(*inputs).float().square().mean()
        loss.backward()
        if where.type == "cuda":
            torch.cuda.synchronize()

    count = operations(step)
    seconds = []
    for _ in range(repeats):
        network.zero_grad(set_to_none=True)
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return count / median(seconds)


def main() -> None:
    """Prints the plan as Markdown."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", help="paper or gpu: one with the published models")
    parser.add_argument("--pairs", type=int, default=1_400_000, help="images (default: the paper's 1.4 million)")
    parser.add_argument("--drawn", type=int, default=20_000, help="synthetic images (default: about the paper's)")
    parser.add_argument("--price", type=float, default=0.0, help="of a device-hour, in any currency")
    parser.add_argument("--operations-per-second", type=float, help="of one device; default: measured here")
    parser.add_argument("--layers", type=int, default=24 if cuda else 1, help="blocks that the rate is measured with")
    parser.add_argument("--batch", type=int, default=8 if cuda else 1, help="images that the rate is measured with")
    parser.add_argument("--repeats", type=int, default=5, help="steps that the rate is measured with")
    options = parser.parse_args()
    try:
        plan = compose(Choices(preset=options.preset))
    except UsageError as error:
        parser.error(str(error))
    first, second = plan["encode"], plan["encode_curated"]
    if plan["autoencode"]["engine"] != "pretrained":
        parser.error(f"preset {options.preset} does not use the published models: choose paper or gpu")
    tokens, captions = first["token_budget"], sum(plan["caption"]["wordings"].values())
    rate = options.operations_per_second or measured_rate(
        options.layers, first["size"], tokens, options.batch, options.repeats
    )
    with torch.device("meta"):
        network = NextDiT(**NETWORK)
    sampling = plan["finetune"]["sampling"]
    sides = [first["size"], second["size"]]
    work = {
        "encode, both sizes": options.pairs * encode_operations(sides, captions, tokens),
        **{
            stage: plan[stage]["steps"] * plan[stage]["batch_size"] * train_operations(network, size, tokens)
            for stage, size in zip(("pretrain", "finetune"), sides, strict=True)
        },
        # Guidance evaluates the network twice.
        "augment": options.drawn * 2 * sampling["steps"] * draw_operations(network, second["size"], tokens),
    }
    mirrored = [1 + stage["mirror"] for stage in (first, second)]
    stored = {
        f"latents at {side} px": options.pairs * copies * CHANNELS * (side // FACTOR) ** 2 * BYTES
        for side, copies in zip(sides, mirrored, strict=True)
    } | {"caption features, each stage": options.pairs * captions * max(mirrored) * tokens * TEXT_DIM * BYTES}
    source = "as told" if options.operations_per_second else f"measured on {device().type}, {options.layers} block(s)"
    print(f"Preset {options.preset}, {options.pairs:,} images, {rate:.3g} operations/s a device ({source})\n")
    print("| stage | operations | device-hours | price |\n|---|---|---|---|")
    for name, count in (work | {"all": sum(work.values())}).items():
        hours = count / rate / 3600
        print(f"| {name} | {count:.3g} | {hours:,.0f} | {hours * options.price:,.0f} |")
    print("\n| stored | GB |\n|---|---|")
    for name, size in stored.items():
        print(f"| {name} | {size / 1e9:,.0f} |")


if __name__ == "__main__":
    main()
