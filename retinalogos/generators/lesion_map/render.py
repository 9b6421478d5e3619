"""Networks that turn a lesion map into a photograph: SPADE (Park et al., CVPR 2019) with an encoder.

The map scales and shifts the features of every block. Features are normalised at each position over the channels (Li
et al., NeurIPS 2019) and not over the picture, so that a change of the map changes the picture only as far as the
convolutions reach.

What a map does not say comes from a style, one vector of tone and light, and a structure, a code by place from which
vessels and uneven light are drawn. The encoder reads both from a photograph. A vector alone cannot say where vessels
run, and beside a real photograph any guess is wrong: without the structure one and the same pattern, which is wrong
least, is laid into every eye.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.generators.lesion_map.configuration import RenderConfig
from retinalogos.generators.lesion_map.maps import BG, CLASSES, OD

_SLOPE = 0.2
# Of a code's variance at the start: low, so that the encoder is heard before the generator learns to pass it over.
_LOG_VARIANCE = -4.0
# Weight of the ridge by which structures are foretold: a tenth of a picture that is all disc.
_RIDGE = 0.1


class Modulation(nn.Module):
    """Normalises features and scales and shifts them as the map says."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.read = nn.Conv2d(len(CLASSES), hidden, 3, padding=1)
        # Of the published 3 × 3 one pixel: half of a step's time otherwise, and the map has been read around it.
        self.write = nn.Conv2d(hidden, 2 * channels, 1)

    def forward(self, x_bchw: Tensor, map_bchw: Tensor) -> Tensor:
        """Features b×channels×h×w and the map b×7×h×w to features of the same shape."""
        scale, shift = self.write(F.relu(self.read(map_bchw))).chunk(2, 1)
        x = x_bchw * torch.rsqrt(x_bchw.square().mean(1, keepdim=True) + 1e-6)
        return x * (1 + scale) + shift


class SpadeBlock(nn.Module):
    """Two modulated convolutions with a skip."""

    def __init__(self, inputs: int, outputs: int, hidden: int):
        super().__init__()
        middle = min(inputs, outputs)
        self.first_norm, self.second_norm = Modulation(inputs, hidden), Modulation(middle, hidden)
        self.first, self.second = nn.Conv2d(inputs, middle, 3, padding=1), nn.Conv2d(middle, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x_bchw: Tensor, map_bchw: Tensor) -> Tensor:
        """Features b×inputs×h×w and the map b×7×h×w to b×outputs×h×w."""
        y = self.first(F.leaky_relu(self.first_norm(x_bchw, map_bchw), _SLOPE))
        y = self.second(F.leaky_relu(self.second_norm(y, map_bchw), _SLOPE))
        return self.skip(x_bchw) + y


class Code(NamedTuple):
    """A normal distribution that the encoder gives: mean and logarithm of the variance, of the same shape."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of each."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + noise * torch.exp(0.5 * self.log_variance)

    def divergence(self) -> Tensor:
        """From the standard normal distribution (KL), mean over the pictures, a scalar."""
        terms = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.flatten(1).sum(1).mean()


def _code(x: Tensor) -> Code:
    mean, log_variance = x.chunk(2, 1)
    return Code(mean, log_variance.clamp(-10, 10))


class RenderGenerator(nn.Module):
    """Map, style and structure to a photograph; and a photograph to its style and structure."""

    def __init__(self, config: RenderConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        self.start = nn.Linear(config.latent, 16 * widths[0])
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.ModuleList(SpadeBlock(before, after, config.modulation) for before, after in pairs)
        # Blocks before the structure comes in: theirs are smaller sides.
        self._before_structure = (config.structure_size // 4).bit_length() - 1
        into = (widths[0], *widths)[self._before_structure]
        self.structure = nn.Conv2d(config.structure, into, 3, padding=1)
        self.output = nn.Conv2d(widths[-1], 3, 3, padding=1)
        encoder = (3, *config.encoder_widths)
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(encoder))
        self._read_structure = len(self.encoder) - self._before_structure
        seen = encoder[self._read_structure]
        last = nn.Conv2d(seen, 2 * config.structure, 3, padding=1)
        self.read_structure = nn.Sequential(nn.Conv2d(seen, seen, 3, padding=1), nn.LeakyReLU(_SLOPE), last)
        self.read_style = nn.Linear(16 * encoder[-1], 2 * config.latent)
        assert last.bias is not None
        with torch.no_grad():
            self.read_style.bias[config.latent :] = _LOG_VARIANCE
            last.bias[config.structure :] = _LOG_VARIANCE
        # How styles and structures of the training photographs are spread: see `fit_codes`.
        codes = config.structure * config.structure_size**2
        self.style_mean = nn.Buffer(torch.zeros(config.latent))
        self.style_factor = nn.Buffer(torch.eye(config.latent))
        self.structure_weights = nn.Buffer(torch.zeros(1 + 2 * config.structure_size**2 + config.latent, codes))
        self.structure_factor = nn.Buffer(torch.eye(codes))

    def encode(self, images_bchw: Tensor) -> tuple[Code, Code]:
        """Photographs in [−1, 1], b×3×size×size, to their styles b×latent and structures b×structure×s×s."""
        x, structure = images_bchw, None
        for number, layer in enumerate(self.encoder, start=1):
            x = F.leaky_relu(layer(x), _SLOPE)
            if number == self._read_structure:
                structure = self.read_structure(x)
        assert structure is not None
        return _code(self.read_style(x.flatten(1))), _code(structure)

    def forward(self, maps_bchw: Tensor, styles_bd: Tensor, structures_bchw: Tensor) -> Tensor:
        """To photographs in [−1, 1], b×3×size×size.

        Args:
            maps_bchw: b×7×size×size, all zero where unknown.
            styles_bd: b×latent.
            structures_bchw: b×structure×s×s, with the s of the configuration.
        """
        x = self.start(styles_bd).view(len(styles_bd), -1, 4, 4)
        for scale, block in enumerate(self.blocks):
            if scale:
                # Smooth, where the published network repeats pixels: short runs leave their squares to be seen.
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            if scale == self._before_structure:
                x = x + self.structure(structures_bchw)
            x = block(x, F.adaptive_avg_pool2d(maps_bchw, x.shape[2:]))
        return torch.tanh(self.output(F.leaky_relu(x, _SLOPE)))

    def sample_styles(self, generators: list[torch.Generator], spread: float) -> Tensor:
        """Styles b×latent, spread as those of the training photographs times ``spread``; each from its generator."""
        normal = torch.stack([torch.randn(self.config.latent, generator=g) for g in generators])
        return self.style_mean + spread * normal.to(self.style_mean) @ self.style_factor.t()

    def sample_structures(self, maps_bchw: Tensor, styles_bd: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Structures b×structure×s×s as those of training photographs with such fields, discs and styles.

        They do not depend on the lesions of the maps b×7×size×size: an edit of lesions leaves the vessels as they are.
        """
        normal = torch.stack([torch.randn(len(self.structure_factor), generator=g) for g in generators])
        foretold = self._foretells(maps_bchw, styles_bd) @ self.structure_weights
        drawn = foretold + normal.to(foretold) @ self.structure_factor.t()
        return drawn.view(-1, self.config.structure, self.config.structure_size, self.config.structure_size)

    def _foretells(self, maps_bchw: Tensor, styles_bd: Tensor) -> Tensor:
        """What structures are foretold from: field and disc at their size, and the style."""
        places = F.adaptive_avg_pool2d(maps_bchw[:, [BG, OD]], self.config.structure_size).flatten(1)
        return torch.cat([torch.ones_like(styles_bd[:, :1]), places, styles_bd], 1)

    @torch.no_grad()
    def fit_codes(self, maps_nchw: Tensor, styles: Code, structures: Code) -> None:
        """Takes up how styles are spread, and structures around what field, disc and style foretell.

        Both are normal distributions; structures are foretold by ridge regression, and their spread is that of what is
        left where a picture is foretold from all others.

        Args:
            maps_nchw: maps of n photographs, n×7×size×size.
            styles: of the photographs, n×latent.
            structures: likewise, n×structure×s×s.
        """
        self.style_mean.copy_(styles.mean.mean(0))
        self.style_factor.copy_(_factor(styles.mean - self.style_mean, styles.log_variance))
        known = self._foretells(maps_nchw, styles.mean).double()
        inverse = torch.linalg.inv(known.t() @ known + _RIDGE * torch.eye(known.shape[1], dtype=known.dtype))
        found = structures.mean.flatten(1).double()
        weights = inverse @ known.t() @ found
        self.structure_weights.copy_(weights)
        # The residual without the picture itself, in closed form (Allen, Technometrics 1974).
        own = (known @ inverse * known).sum(1, keepdim=True)
        left = (found - known @ weights) / (1 - own).clamp_min(1e-3)
        self.structure_factor.copy_(_factor(left.float(), structures.log_variance.flatten(1)))


def _factor(centred_nd: Tensor, log_variances_nd: Tensor) -> Tensor:
    """Factor d×d of the covariance of n codes: of their means around zero and, by number, of each around its mean."""
    covariance = centred_nd.t() @ centred_nd / len(centred_nd) + torch.diag(log_variances_nd.exp().mean(0))
    return torch.linalg.cholesky(covariance.double()).to(centred_nd)


class RenderDiscriminator(nn.Module):
    """Map and photograph to how real each patch looks, at several scales (Wang et al., CVPR 2018)."""

    def __init__(self, config: RenderConfig):
        super().__init__()
        self.scales = nn.ModuleList()
        for _ in range(config.discriminator_scales):
            layers = nn.ModuleList()
            before = len(CLASSES) + 3
            for number, width in enumerate(config.discriminator_widths):
                # The first layer sees the colours as they are.
                norm = nn.InstanceNorm2d(width) if number else nn.Identity()
                layers.append(nn.Sequential(nn.Conv2d(before, width, 4, 2, 1), norm, nn.LeakyReLU(_SLOPE)))
                before = width
            layers.append(nn.Conv2d(before, 1, 3, padding=1))
            self.scales.append(layers)

    def forward(self, maps_bchw: Tensor, images_bchw: Tensor) -> list[list[Tensor]]:
        """Maps and photographs to the features of every layer, scale by scale; the last of each are the logits."""
        x = torch.cat([maps_bchw, images_bchw], 1)
        found = []
        for number, layers in enumerate(self.scales):
            y = F.avg_pool2d(x, 2**number) if number else x
            features = []
            for layer in layers:  # type: ignore[attr-defined]
                y = layer(y)
                features.append(y)
            found.append(features)
        return found
