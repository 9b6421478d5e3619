"""The adversary of the autoencoder: a patch discriminator on all bands."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class PatchDiscriminator(nn.Module):
    """Scores patches of a cube as real (high) or rebuilt (low): Isola et al., CVPR 2017, with group norm.

    Args:
        bands: of the cubes.
        channels: of the first layer; doubled at each.
        layers: halvings of the resolution.
    """

    def __init__(self, bands: int, channels: int, layers: int):
        super().__init__()
        widths = [bands, *(channels * min(2**level, 4) for level in range(layers))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        # No norm after the first layer, which sees how bright the cubes are.
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[2:])
        self.score = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x_bchw: Tensor, frozen: bool = False) -> tuple[Tensor, list[Tensor]]:
        """Scores B×1×h×w and the features of each layer; ``frozen``: no gradient reaches the weights.

        Freezing is a matter of the call and not of the module, which several threads may be calling.
        """

        def weights(layer: nn.Module) -> tuple[Tensor, Tensor]:
            weight, bias = layer.parameters()
            return (weight.detach(), bias.detach()) if frozen else (weight, bias)

        features: list[Tensor] = []
        for number, convolution in enumerate(self.convolutions):
            x_bchw = F.conv2d(x_bchw, *weights(convolution), stride=2, padding=1)
            if number:
                x_bchw = F.group_norm(x_bchw, 8, *weights(self.norms[number - 1]))
            x_bchw = F.leaky_relu(x_bchw, 0.2)
            features.append(x_bchw)
        return F.conv2d(x_bchw, *weights(self.score), padding=1), features
