"""Cube ↔ codes: a vector-quantised autoencoder for any number of bands."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.cohort.cubes import FULL_SCALE
from retinalogos.errors import UsageError


class CubeAutoencoder(ModelMixin, ConfigMixin):
    """Convolutional encoder, codebook, convolutional decoder (van den Oord et al., arXiv 1711.00937).

    Encoder and decoder are those of diffusers' autoencoders. They work on cubes whose pixels were partly made channels,
    since it is resolution, not parameters, that costs.

    Args:
        wavelengths: nm, of the bands.
        scale: reflectance of each band that becomes 1 for the networks.
        compression: pixels of a side that become one latent.
        latent_channels: C.
        codes: vectors of the codebook.
        base_channels: of the finest level; doubled at each, at most fourfold.
        layers: residual blocks of a level.
        unshuffle: pixels of a side that are made channels first.
    """

    @register_to_config
    def __init__(
        self,
        wavelengths: Sequence[float],
        scale: Sequence[float],
        compression: int = 8,
        latent_channels: int = 8,
        codes: int = 1024,
        base_channels: int = 64,
        layers: int = 1,
        unshuffle: int = 4,
    ):
        super().__init__()
        self.compression, self.latent_channels = compression, latent_channels
        self._unshuffle = unshuffle
        levels = int(math.log2(compression // unshuffle)) + 1
        widths = [base_channels * min(2**level, 4) for level in range(levels)]
        channels = len(wavelengths) * unshuffle**2
        shared = {
            "block_out_channels": widths,
            "layers_per_block": layers,
            "norm_num_groups": 8,
            "mid_block_add_attention": False,
        }
        self.encoder = Encoder(channels, latent_channels, ("DownEncoderBlock2D",) * levels, double_z=False, **shared)
        self.decoder = Decoder(latent_channels, channels, ("UpDecoderBlock2D",) * levels, **shared)
        self.codebook = nn.Parameter(torch.randn(codes, latent_channels))

    def encode(self, x_bchw: Tensor) -> Tensor:
        """Cubes as :meth:`to_model` gives them, B×bands×H×W, to latents before quantisation B×C×(H/f)×(W/f).

        Raises:
            UsageError: a side is no multiple of the compression.
        """
        if x_bchw.shape[-1] % self.compression or x_bchw.shape[-2] % self.compression:
            raise UsageError(f"cubes of {tuple(x_bchw.shape[-2:])} pixels are no multiple of {self.compression}")
        return self.encoder(F.pixel_unshuffle(x_bchw, self._unshuffle))

    def quantise(self, z_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest code of every latent, B×C×h×w, and its number, B·h·w."""
        batch, channels, height, width = z_bchw.shape
        rows = z_bchw.permute(0, 2, 3, 1).reshape(-1, channels)
        # Half precision would take one code for another.
        with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
            far = self.codebook.float().square().sum(1) - 2 * rows.float() @ self.codebook.float().T
            index = far.argmin(1)
        return self.codebook[index].view(batch, height, width, channels).permute(0, 3, 1, 2), index

    def decode(self, z_bchw: Tensor) -> Tensor:
        """Quantised latents to cubes for :meth:`from_model`."""
        return F.pixel_shuffle(self.decoder(z_bchw), self._unshuffle)

    def to_model(self, values: np.ndarray) -> Tensor:
        """uint16 cubes, B×bands×H×W, to float32 about [−1, 1].

        The square root of reflectance is taken: shot noise is then alike in bright and dark, and the disc does not
        drown the rest.
        """
        scale = torch.tensor(self.config.scale).view(-1, 1, 1) * FULL_SCALE
        return torch.from_numpy(values.astype(np.float32)).div_(scale).sqrt_().mul_(2).sub_(1)

    def from_model(self, x_bchw: Tensor) -> np.ndarray:
        """The way back of :meth:`to_model`, clipped to 0-65535."""
        scale = torch.tensor(self.config.scale).view(-1, 1, 1) * FULL_SCALE
        values = x_bchw.float().cpu().add(1).div(2).clamp_(min=0).square().mul(scale)
        return values.round().clamp_(0, FULL_SCALE).numpy().astype(np.uint16)
