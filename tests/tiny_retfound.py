"""A tiny vision transformer in the layout of MAE's code, in which RETFound is published, and what it should give."""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

WIDTH, PATCH, SIDE = 64, 8, 32


def mae_checkpoint() -> dict[str, Tensor]:
    """A tiny ViT under the names of MAE's code, with a piece of its decoder."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)

    weights = {
        "cls_token": some(1, 1, WIDTH),
        "pos_embed": some(1, 1 + (SIDE // PATCH) ** 2, WIDTH),
        "patch_embed.proj.weight": some(WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": some(WIDTH),
        "norm.weight": some(WIDTH),
        "norm.bias": some(WIDTH),
        "mask_token": some(1, 1, WIDTH),
        "decoder_embed.weight": some(8, WIDTH),
    }
    layers = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    layers |= {"mlp.fc1": (2 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 2 * WIDTH)}
    for block in range(2):
        for name, shape in layers.items():
            weights[f"blocks.{block}.{name}.weight"] = some(*shape)
            weights[f"blocks.{block}.{name}.bias"] = some(shape[0])
        for name in ("norm1", "norm2"):
            weights[f"blocks.{block}.{name}.weight"] = 1 + some(WIDTH)
            weights[f"blocks.{block}.{name}.bias"] = some(WIDTH)
    return weights


def mae_features(weights: dict[str, Tensor], x_bchw: Tensor) -> Tensor:
    """The same network written out (one head of 64 channels)."""
    x_bchw = (x_bchw / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    patches = F.conv2d(x_bchw, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], PATCH)
    tokens = torch.cat([weights["cls_token"].expand(len(x_bchw), 1, WIDTH), patches.flatten(2).mT], 1)
    tokens = tokens + weights["pos_embed"]
    for block in range(2):
        own = {key.split(".", 2)[2]: value for key, value in weights.items() if key.startswith(f"blocks.{block}.")}

        def layer(name: str, x: Tensor, own: dict[str, Tensor] = own) -> Tensor:
            return F.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])

        def norm(name: str, x: Tensor, own: dict[str, Tensor] = own) -> Tensor:
            return F.layer_norm(x, (WIDTH,), own[f"{name}.weight"], own[f"{name}.bias"], 1e-6)

        q, k, v = layer("attn.qkv", norm("norm1", tokens)).chunk(3, -1)
        tokens = tokens + layer("attn.proj", (q @ k.mT / WIDTH**0.5).softmax(-1) @ v)
        tokens = tokens + layer("mlp.fc2", F.gelu(layer("mlp.fc1", norm("norm2", tokens))))
    return F.layer_norm(tokens[:, 1:].mean(1), (WIDTH,), eps=1e-6)


def save_tiny_retfound(file: Path) -> dict[str, Tensor]:
    """Writes the checkpoint as MAE's code does, options of the training beside it; returns its weights."""
    weights = mae_checkpoint()
    torch.save({"model": weights, "args": argparse.Namespace(lr=1e-3), "epoch": 799}, file)
    return weights
