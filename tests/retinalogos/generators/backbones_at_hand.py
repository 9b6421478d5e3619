"""A tiny backbone of each kind and what it is given; for tests."""

import torch

from retinalogos.generators.text.backbones import build_backbone

TINY = {
    "next_dit": {
        "patch_size": 2,
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "multiple_of": 8,
    },
    "unet": {
        "block_out_channels": [32, 32],
        "layers_per_block": 1,
        "attention_head_dim": 16,
        "norm_num_groups": 8,
        "resnet_time_scale_shift": "scale_shift",
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
    "lumina2": {
        "patch_size": 2,
        "hidden_size": 32,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "multiple_of": 8,
        "axes_dim_rope": [4, 2, 2],
        "axes_lens": [32, 16, 16],
    },
}


def tiny(name):
    torch.manual_seed(0)
    return build_backbone(name, 4, 12, 8, TINY[name]).eval()


def inputs(n=2, width=8, tokens=5, seed=0):
    """Latents, times, text, mask and pooled text."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.ones(n, tokens, dtype=torch.long)
    mask[:, 3:] = 0
    text = torch.randn(n, tokens, 12, generator=draw)
    return torch.randn(n, 4, width, width, generator=draw), torch.rand(n, generator=draw), text, mask, text.mean(1)


def jolt(model):
    """Moves the zero-initialised weights, so that nothing is hidden by a gate of zero."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=draw) * 0.05)
    return model
