"""Cube ↔ codes: a vector-quantised autoencoder for any number of bands."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.cohort.cubes import FULL_SCALE
from retinalogos.errors import UsageError


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin, so that neighbours share a quarter and the last ends with the whole."""
    last = max(length - side, 0)
    return sorted({*range(0, last, max(1, 3 * side // 4)), last})


def _ramp(length: int, side: int, like: Tensor) -> Tensor:
    """Weights along a square: rising over the quarter that a neighbour may share, and falling again."""
    place = torch.arange(length, device=like.device, dtype=like.dtype) + 1
    return torch.minimum(place, length + 1 - place).clamp(max=max(1, side // 4))


class CubeAutoencoder(ModelMixin, ConfigMixin):
    """Convolutional encoder, codebook, convolutional decoder (van den Oord et al., arXiv 1711.00937).

    With a ``depth`` above 1 a latent is the sum of as many codes, each the nearest to what those before it leave, and
    each from a codebook of its own (residual quantisation: Lee et al., arXiv 2203.01941).

    Encoder and decoder are those of diffusers' autoencoders. They work on cubes whose pixels were partly made channels,
    since it is resolution, not parameters, that costs.

    Args:
        wavelengths: nm, of the bands.
        scale: reflectance of each band that becomes 1 for the networks.
        compression: pixels of a side that become one latent.
        latent_channels: C.
        codes: vectors of a codebook.
        depth: codebooks.
        base_channels: of the finest level; doubled at each, at most fourfold.
        layers: residual blocks of a level.
        unshuffle: pixels of a side that are made channels first.
        shortcut: a fixed linear map of each square of pixels to its latent, and one back, beside the networks.
    """

    @register_to_config
    def __init__(
        self,
        wavelengths: Sequence[float],
        scale: Sequence[float],
        compression: int = 8,
        latent_channels: int = 8,
        codes: int = 1024,
        depth: int = 1,
        base_channels: int = 64,
        layers: int = 1,
        unshuffle: int = 4,
        shortcut: bool = False,
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
        self.codebook = nn.Parameter(torch.randn(depth, codes, latent_channels))
        square = len(wavelengths) * compression**2
        # Frozen: an optimiser whose steps do not shrink with the gradient walks off from where they begin.
        self.inward = nn.Conv2d(square, latent_channels, 1).requires_grad_(False) if shortcut else None
        self.outward = nn.Conv2d(latent_channels, square, 1).requires_grad_(False) if shortcut else None

    @torch.no_grad()
    def begin(self, x_bchw: Tensor) -> None:
        """Puts the shortcut to the principal components of squares of these cubes, and the networks to adding nothing.

        Training begins where no linear autoencoder is better. The latents' mean square is 1.

        Args:
            x_bchw: cubes as :meth:`to_model` gives them.
        """
        if self.inward is None or self.outward is None:
            return
        squares = F.pixel_unshuffle(x_bchw, self.compression).permute(0, 2, 3, 1).flatten(0, 2)
        mean = squares.mean(0)
        # A few directions more than are kept, and rounds, make the random projection exact to the eye.
        _, strengths, directions = torch.svd_lowrank(
            squares - mean, q=min(self.latent_channels + 8, *squares.shape), niter=4
        )
        kept = min(self.latent_channels, directions.shape[1])  # of few bands there may be fewer than channels
        directions, strengths = directions[:, :kept], strengths[:kept]
        scale = (strengths.square().sum() / (len(squares) * kept)).sqrt()
        for layer in (self.inward, self.outward):
            assert layer.bias is not None
            layer.weight.zero_()
            layer.bias.zero_()
        self.inward.weight[:kept, :, 0, 0] = directions.T / scale
        self.inward.bias[:kept] = -(mean @ directions) / scale  # type: ignore[index]
        self.outward.weight[:, :kept, 0, 0] = directions * scale
        self.outward.bias.copy_(mean)  # type: ignore[union-attr]
        for last in (self.encoder.conv_out, self.decoder.conv_out):
            last.weight.zero_()
            last.bias.zero_()

    def encode(self, x_bchw: Tensor, tile: int | None = None) -> Tensor:
        """Cubes as :meth:`to_model` gives them, B×bands×H×W, to latents before quantisation B×C×(H/f)×(W/f).

        Args:
            x_bchw: cubes.
            tile: pixels of the side of the squares that go through the encoder one by one; None: whole cubes.

        Raises:
            UsageError: a side or the tile is no multiple of the compression.
        """
        if x_bchw.shape[-1] % self.compression or x_bchw.shape[-2] % self.compression:
            raise UsageError(f"cubes of {tuple(x_bchw.shape[-2:])} pixels are no multiple of {self.compression}")
        return self._by_tiles(self._encoded, x_bchw, tile, self.compression, 1)

    def _encoded(self, x_bchw: Tensor) -> Tensor:
        z: Tensor = self.encoder(F.pixel_unshuffle(x_bchw, self._unshuffle))
        return z if self.inward is None else z + self.inward(F.pixel_unshuffle(x_bchw, self.compression))

    def quantise(self, z_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the codes of every latent, B×C×h×w, and their numbers, B·h·w × depth."""
        batch, channels, height, width = z_bchw.shape
        with torch.no_grad():
            index = torch.stack([chosen for _, chosen in self.nearest(z_bchw)], 1)
        codes = sum((book[index[:, level]] for level, book in enumerate(self.codebook)), z_bchw.new_zeros(()))
        return codes.view(batch, height, width, channels).permute(0, 3, 1, 2), index

    def nearest(self, z_bchw: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Level by level: what is left of the latents, B·h·w × C, float32, and the number of the code nearest to it."""
        left = z_bchw.permute(0, 2, 3, 1).flatten(0, 2).float()
        # Half precision would take one code for another.
        with torch.autocast(left.device.type, enabled=False):
            for book in self.codebook.detach().float():
                # In one operation: distances are many, and each further pass over them costs as much as the product.
                index = torch.addmm(book.square().sum(1), left, book.T, alpha=-2).argmin(1)
                yield left, index
                left = left - book[index]

    def decode(self, z_bchw: Tensor, tile: int | None = None) -> Tensor:
        """Quantised latents to cubes for :meth:`from_model`; ``tile`` as in :meth:`encode`."""
        return self._by_tiles(self._decoded, z_bchw, tile, 1, self.compression)

    def _decoded(self, z_bchw: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.decoder(z_bchw), self._unshuffle)
        return x if self.outward is None else x + F.pixel_shuffle(self.outward(z_bchw), self.compression)

    def _by_tiles(
        self, network: Callable[[Tensor], Tensor], x_bchw: Tensor, tile: int | None, inner: int, outer: int
    ) -> Tensor:
        """The network on overlapping squares, faded into each other: activations are those of a square.

        Args:
            network: goes through a square.
            x_bchw: what is cut.
            tile: pixels of a cube; None: in one piece.
            inner: elements of a side of ``x_bchw`` for each latent.
            outer: the same of what comes out.
        """
        if tile is None:
            return network(x_bchw)
        if tile % self.compression:
            raise UsageError(f"tiles of {tile} pixels are no multiple of {self.compression}")
        side = tile // self.compression
        height, width = (size // inner for size in x_bchw.shape[-2:])
        total: Tensor | None = None
        for top, left in product(_starts(height, side), _starts(width, side)):
            y = network(x_bchw[..., inner * top : inner * (top + side), inner * left : inner * (left + side)])
            if total is None:
                total = y.new_zeros(*y.shape[:2], outer * height, outer * width)
                weights = y.new_zeros(outer * height, outer * width)
            ramps = [_ramp(length, outer * side, y) for length in y.shape[-2:]]
            fade = ramps[0][:, None] * ramps[1]
            where = slice(outer * top, outer * top + y.shape[-2]), slice(outer * left, outer * left + y.shape[-1])
            total[..., where[0], where[1]] += fade * y
            weights[where] += fade
        assert total is not None
        return total.div_(weights)

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
