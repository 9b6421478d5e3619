"""The U-Net."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from retinalogos.classifiers.network import ResidualBlock
from retinalogos.errors import UsageError


class UNet(nn.Module):
    """Encoder, decoder and the connections between them (Ronneberger et al., MICCAI 2015), of residual blocks.

    Args:
        widths: channels at full, half, quarter … resolution, multiples of 8.
        structures: channels of the output.
    """

    def __init__(self, widths: tuple[int, ...], structures: int):
        super().__init__()
        if any(width % 8 for width in widths):
            raise UsageError(f"widths {list(widths)}: every width of a segmenter is a multiple of 8")
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1)
        self.down = nn.ModuleList(
            [ResidualBlock(widths[0], widths[0], 1), *(ResidualBlock(a, b, 2) for a, b in pairwise(widths))]
        )
        self.up = nn.ModuleList([ResidualBlock(a + b, a, 1) for a, b in pairwise(widths)][::-1])
        self.head = nn.Conv2d(widths[0], structures, 1)

    def start_at(self, shares: Sequence[float]) -> None:
        """Makes every pixel as probable as these shares, 0-1, of the structures: what is rare starts so.

        Lin et al., ICCV 2017, section 3.3: from a half the first steps go into what is not there.
        """
        nn.init.zeros_(self.head.weight)
        self.head.bias = nn.Parameter(torch.tensor(shares).clamp(1e-4, 1 - 1e-4).logit())

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        """Float32 b×3×h×w in the range -1 to 1 to logits b×structures×h×w."""
        x = self.stem(x_bchw)
        passed = []
        for block in self.down:
            x = block(x)
            passed.append(x)
        for block, beside in zip(self.up, passed[-2::-1], strict=True):
            larger = F.interpolate(x, size=beside.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([beside, larger], 1))
        return self.head(x)
