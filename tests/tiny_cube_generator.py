"""A generator of hyperspectral cubes that is not trained and draws in no time."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel

from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.pipeline import CubePipeline

WAVELENGTHS = (480.0, 560.0, 660.0, 850.0)


def save_tiny_cube_generator(folder: Path) -> Path:
    """Writes one for cubes of four bands and 16 pixels, and returns its folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        autoencoder = CubeAutoencoder(
            list(WAVELENGTHS), [1.0] * 4, compression=4, latent_channels=4, codes=16, base_channels=8
        )
        unet = UNet2DModel(
            sample_size=4, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8, 8),
            down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3, norm_num_groups=4,
        )  # fmt: skip
    CubePipeline(unet, autoencoder, DDIMScheduler(num_train_timesteps=20), size=16, steps=2).save_pretrained(folder)
    return folder
