"""A generator of a few thousand weights that loads and draws like a trained one; for tests."""

from pathlib import Path

import torch

from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.autoencoder import PatchAutoencoder
from retinalogos.generators.text.backbones import build_backbone
from retinalogos.generators.text.conditioning import TextConditioning
from retinalogos.generators.text.prior import LatentPrior

TEXT_DIM, SIZE, PATCH, COMPONENTS = 384, 32, 4, 6
UNET = {
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
}


def save_tiny_generator(folder: Path, seed: int = 0) -> Path:
    """Writes a generator with random weights; another seed gives another content hash."""
    torch.manual_seed(seed)
    pictures = torch.rand(8, 3, SIZE, SIZE) * 2 - 1
    autoencoder, _ = PatchAutoencoder.fit(lambda: [pictures], PATCH, COMPONENTS, 0.5)
    backbone = build_backbone("unet", COMPONENTS, TEXT_DIM, SIZE // PATCH, UNET, prior=True)
    torch.nn.init.normal_(backbone.conv_out.weight, std=0.02)  # new ones predict nothing
    TextToFundusPipeline(
        backbone,
        autoencoder,
        TextConditioning(TEXT_DIM),
        LatentPrior(COMPONENTS, SIZE // PATCH, 4, TEXT_DIM),
        text_encoder_name="minilm",
        text_layer=-1,
        token_budget=64,
        size=SIZE,
        steps=2,
        guidance=1.5,
        time_shift=1.0,
    ).save_pretrained(folder)
    return folder
