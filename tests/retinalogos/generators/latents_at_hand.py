"""Latents and captions of a few made-up eyes, and their sizes."""

import torch

from retinalogos.generators.text.latents import LatentWriter

CHANNELS, WIDTH, DIM = 6, 8, 12


def write_latents(folder, images=20, channels_of_encoder=0, **meta):
    draw = torch.Generator().manual_seed(0)
    meta = {
        "size": 32, "channels": CHANNELS, "latent_size": WIDTH, "text_encoder": "minilm", "text_layer": -1,
        "text_dim": DIM, "token_budget": 16, "empty_text": 0, **meta,
    }  # fmt: skip
    if channels_of_encoder:
        meta["representation"] = {"channels": channels_of_encoder, "grid": 2}
    with LatentWriter(folder, meta) as writer:
        for i, text in enumerate(["", "left", "right", "both eyes"]):
            writer.add_text(text, torch.randn(2 + i, DIM, generator=draw))
        for i in range(images):
            side = 1 + i % 2
            latent = torch.randn(CHANNELS, WIDTH, WIDTH, generator=draw) * 0.1
            latent[:, :, : WIDTH // 2] += 3 - 2 * side  # left eyes are bright on the left
            seen = torch.randn(channels_of_encoder, 2, 2, generator=torch.Generator().manual_seed(i))
            writer.add_image(
                f"eye{i}",
                "train" if i % 5 else "validation",
                "left" if side == 1 else "right",
                latent,
                [side],
                [side, 3],
                seen if channels_of_encoder else None,
            )
    return folder
