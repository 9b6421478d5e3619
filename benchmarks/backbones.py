"""Training speed of the small presets' candidate networks: forward and backward, images per second of processor time.

python benchmarks/backbones.py --threads 1
"""

import argparse
import time

import torch

from retinalogos.generators.text.backbones import BackboneName, build_backbone, velocity

CHANNELS, TEXT, TOKENS = 32, 384, 48


def unet(widths: list[int]) -> dict[str, object]:
    """A three-level U-Net with attention at the lowest resolution alone."""
    return {
        "block_out_channels": widths,
        "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
        "attention_head_dim": 64,
        "norm_num_groups": 16,
        "resnet_time_scale_shift": "scale_shift",
    }


def next_dit(width: int, layers: int, patch: int) -> dict[str, object]:
    """Next-DiT with heads of 64 channels and half as many for keys and values."""
    heads = width // 64
    return {
        "hidden_size": width,
        "num_layers": layers,
        "patch_size": patch,
        "num_attention_heads": heads,
        "num_kv_heads": heads // 2,
        "multiple_of": 32,
    }


CANDIDATES: list[tuple[BackboneName, dict[str, object]]] = [
    ("unet", unet([64, 128, 192])),
    ("unet", unet([128, 128, 192])),
    ("unet", unet([128, 128, 256])),
    ("unet", unet([64, 192, 256])),
    ("next_dit", next_dit(256, 8, 1)),
    ("next_dit", next_dit(384, 8, 2)),
]


def rate(name: BackboneName, config: dict[str, object], size: int, batch: int, steps: int) -> tuple[float, float]:
    """(millions of parameters, images per second of processor time)."""
    torch.manual_seed(0)
    model = build_backbone(name, CHANNELS, TEXT, size, config)
    model.to(memory_format=torch.channels_last)
    x, t = torch.randn(batch, CHANNELS, size, size), torch.rand(batch)
    text, mask = torch.randn(batch, TOKENS, TEXT), torch.ones(batch, TOKENS, dtype=torch.long)

    def step() -> None:
        velocity(model, None, x, t, text, mask, text.mean(1))[0].square().mean().backward()

    step()
    began = time.process_time()
    for _ in range(steps):
        step()
    seconds = time.process_time() - began
    return sum(weight.numel() for weight in model.parameters()) / 1e6, batch * steps / seconds


def main() -> None:
    """Prints a line a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, help="width of the latents; 16 is 128 px in 8 px patches")
    parser.add_argument("--batch", type=int, default=32, help="images of a step")
    parser.add_argument("--steps", type=int, default=3, help="steps timed, after one that is not")
    parser.add_argument("--threads", type=int, default=1, help="threads; processor time counts each")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name, config in CANDIDATES:
        millions, images = rate(name, config, options.size, options.batch, options.steps)
        label = config.get("block_out_channels") or f"{config['hidden_size']}, patch {config['patch_size']}"
        print(f"{name:9} {label!s:16} {millions:5.1f} M  {images:5.1f} images/s")


if __name__ == "__main__":
    main()
