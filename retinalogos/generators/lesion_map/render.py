"""Networks that turn a lesion map into a photograph: SPADE (Park et al., CVPR 2019) with a style encoder.

The map scales and shifts the features of every block. Features are normalised at each position over the channels (Li
et al., NeurIPS 2019) and not over the picture, so that a change of the map changes the picture only as far as the
convolutions reach.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.generators.lesion_map.configuration import RenderConfig
from retinalogos.generators.lesion_map.maps import CLASSES

_SLOPE = 0.2


class Modulation(nn.Module):
    """Normalises features and scales and shifts them as the map says."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.read = nn.Conv2d(len(CLASSES), hidden, 3, padding=1)
        self.write = nn.Conv2d(hidden, 2 * channels, 3, padding=1)

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


class RenderGenerator(nn.Module):
    """Map and style to a photograph; and a photograph to its style."""

    def __init__(self, config: RenderConfig):
        super().__init__()
        self.config = config
        widths = config.widths
        self.start = nn.Linear(config.latent, 16 * widths[0])
        pairs = zip((widths[0], *widths), widths, strict=False)
        self.blocks = nn.ModuleList(SpadeBlock(before, after, config.modulation) for before, after in pairs)
        self.output = nn.Conv2d(widths[-1], 3, 3, padding=1)
        layers: list[nn.Module] = []
        for before, after in zip((3, *config.encoder_widths), config.encoder_widths, strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.LeakyReLU(_SLOPE)]
        self.encoder = nn.Sequential(*layers, nn.Flatten())
        self.style = nn.Linear(16 * config.encoder_widths[-1], 2 * config.latent)
        # Mean and factor of the covariance of the training photographs' styles: see `fit_styles`.
        self.style_mean = nn.Buffer(torch.zeros(config.latent))
        self.style_factor = nn.Buffer(torch.eye(config.latent))

    def encode(self, images_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Photographs in [−1, 1], b×3×size×size, to mean and log variance of their style, b×latent each."""
        mean, log_variance = self.style(self.encoder(images_bchw)).chunk(2, 1)
        return mean, log_variance.clamp(-10, 10)

    def forward(self, maps_bchw: Tensor, styles_bd: Tensor) -> Tensor:
        """Maps b×7×size×size, all zero where unknown, and styles b×latent to photographs in [−1, 1], b×3×size×size."""
        x = self.start(styles_bd).view(len(styles_bd), -1, 4, 4)
        for scale, block in enumerate(self.blocks):
            if scale:
                # Smooth, where the published network repeats pixels: short runs leave their squares to be seen.
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = block(x, F.adaptive_avg_pool2d(maps_bchw, x.shape[2:]))
        return torch.tanh(self.output(F.leaky_relu(x, _SLOPE)))

    def sample_styles(self, generators: list[torch.Generator], spread: float) -> Tensor:
        """Styles b×latent, spread as those of the training photographs times ``spread``; each from its generator."""
        normal = torch.stack([torch.randn(self.config.latent, generator=g) for g in generators])
        return self.style_mean + spread * normal.to(self.style_mean) @ self.style_factor.t()

    @torch.no_grad()
    def fit_styles(self, means_nd: Tensor, variances_nd: Tensor) -> None:
        """Takes up how the styles of photographs are spread, from the encoder's answers for n of them."""
        self.style_mean.copy_(means_nd.mean(0))
        centred = means_nd - means_nd.mean(0)
        covariance = centred.t() @ centred / len(means_nd) + torch.diag(variances_nd.mean(0))
        self.style_factor.copy_(torch.linalg.cholesky(covariance.double()).float())


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
