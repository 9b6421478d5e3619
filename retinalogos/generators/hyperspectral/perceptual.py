"""Differences beyond those of pixels, for cubes of any number of bands."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.cohort.cubes import rgb_weights
from retinalogos.errors import UsageError
from retinalogos.generators.hyperspectral.configuration import PerceptualConfig

RANDOM = "random"
# Against a division by zero where a network tells nothing.
_TINY = 1e-12


class PerceptualDistance:
    """Mean squared difference of a frozen network's features, each position scaled to unit length.

    As LPIPS (Zhang et al., CVPR 2018) without its fitted weights. It holds no trained weights and is no module, so that
    the networks that are trained with it do not carry it along.

    Args:
        config: which views of a cube are compared, and in which network.
        wavelengths: nm, of the bands.
        seed: of random weights and of the bands chosen.

    Raises:
        UsageError: the network cannot be loaded.
    """

    def __init__(self, config: PerceptualConfig, wavelengths: list[float], seed: int):
        self._config, self._seed = config, seed
        self._to_rgb = torch.tensor(rgb_weights(wavelengths), dtype=torch.float32)
        self._network: Any = _random(seed) if config.network == RANDOM else _resnet(config.network)

    def __call__(self, one: Tensor, other: Tensor, step: int) -> Tensor:
        """Distance of cubes B×bands×H×W in about [−1, 1]; ``step`` chooses the bands."""
        if self._config.name == "per_band":
            draw = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
            chosen = torch.randperm(one.shape[1], generator=draw)[: self._config.bands]
            one, other = (x[:, chosen].flatten(0, 1)[:, None].expand(-1, 3, -1, -1) for x in (one, other))
        else:
            one, other = (torch.einsum("rb,nbhw->nrhw", self._to_rgb.to(x), x) for x in (one, other))
        self._network.to(one.device)
        total = one.new_zeros(())
        features = zip(self._features(one), self._features(other.detach()), strict=True)
        for a, b in features:
            # Of unit vectors the squared distance is 2 − 2 cos; written out, since norms along the channels are slow.
            lengths = (a.square().sum(1) + _TINY) * (b.square().sum(1) + _TINY)
            total = total + 2 - 2 * ((a * b).sum(1) * lengths.rsqrt()).mean()
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        if isinstance(self._network, nn.ModuleList):
            found = []
            for layer in self._network:
                x = F.relu(layer(x))
                found.append(x)
            return found
        return list(self._network(x).feature_maps)


def _random(seed: int) -> nn.ModuleList:
    """Three seeded convolutions that keep the variance: He et al., ICCV 2015."""
    draw = torch.Generator().manual_seed(seed)
    layers = nn.ModuleList()
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layer = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, generator=draw)
        layers.append(layer)
    return layers.requires_grad_(False)


def _resnet(name: str) -> nn.Module:
    from transformers import AutoBackbone

    try:
        network: nn.Module = AutoBackbone.from_pretrained(name, out_features=["stage1", "stage2", "stage3"])
    except (OSError, ValueError) as error:
        raise UsageError(
            f"perceptual.network {name!r} is neither {RANDOM!r} nor a backbone that transformers loads "
            f"({str(error).splitlines()[0]})"
        ) from None
    return network.eval().requires_grad_(False)
