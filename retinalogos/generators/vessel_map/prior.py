"""What a map tells of its photograph, and spots of their map, in closed form, before any training.

The text generator's prior (:class:`~retinalogos.generators.text.prior.LatentPrior`), on pixels in place of latents: a
Gaussian of each side, whose mean moves with what is given. What is given are coarse shares of the condition's channels
on a grid, the side and the caption. Before it, a photograph is freed of what its vessels do to the pixels around them,
which a small linear filter of the map tells: so the closed form alone draws every vessel at its place.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import cv2
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, unfold

from retinalogos.generators.text.prior import LatentPrior

# Cells of the grid along a side; at 45 degrees of field one is about as large as the disc.
_GRID = 8
# Side of the filter of vessels, pixels: a vessel of three pixels, its reflex and its blurred borders.
_FILTER = 7
# Of the filter's regression, as a share of the mean squared input: neighbouring pixels of a map say much the same.
_RIDGE = 1e-3
# The filter is fitted to fine structure: pictures less their surroundings of this width, in shares of the side.
_SURROUNDINGS = 0.06
# Numbers in the pictures that it is fitted to, at most: 400 MB, as the text generator's prior.
MOST_NUMBERS = 100_000_000
_LEAST_SPREAD = 1e-3


class Known(NamedTuple):
    """What a prior knows at a point of the path.

    Attributes:
        seen_bchw: what the network sees, B×3C×h×w, see :class:`~retinalogos.generators.text.prior.Split`.
        expected_b: the mean squared error that the prior expects of its own velocity.
        velocity: the velocity towards the data, B×C×h×w, from the network's B×2C×h×w and its autoguidance.
    """

    seen_bchw: Tensor
    expected_b: Tensor
    velocity: Callable[[Tensor, float], Tensor]


class PixelPrior(nn.Module):
    """See the module.

    Args:
        channels: of what is drawn.
        condition_channels: of what is given.
        size: pixels.
        components: of each Gaussian, see :class:`LatentPrior`.
        told: numbers that are given beside the condition: side and caption.
        sides: Gaussians.
        kinds: of what is given: each has as many channels, fine pixels of one coarse.
        filtered: whether the filter of vessels is there.
    """

    def __init__(
        self,
        channels: int,
        condition_channels: int,
        size: int,
        components: int,
        told: int,
        sides: int,
        kinds: int,
        filtered: bool,
    ):
        super().__init__()
        self.kinds = kinds
        features = kinds * _GRID**2
        self.gaussian = LatentPrior(channels, size, components, features + told, sides)
        self.features_mean = nn.Parameter(torch.zeros(features), requires_grad=False)
        self.features_std = nn.Parameter(torch.ones(features), requires_grad=False)
        self.filter = None
        if filtered:
            weight = torch.zeros(channels, condition_channels, _FILTER, _FILTER)
            self.filter = nn.Parameter(weight, requires_grad=False)

    @classmethod
    def fit(
        cls,
        data_nchw: Tensor,
        condition_nkhw: Tensor,
        told_mnd: Tensor,
        eyes_n: Sequence[str | None],
        components: int,
        kinds: int,
        filtered: bool,
    ) -> tuple[Self, dict[str, Any]]:
        """Fits to eyes, and returns the prior with the arguments that make another like it.

        Args:
            data_nchw: what is drawn.
            condition_nkhw: what is given.
            told_mnd: side and caption, M wordings.
            eyes_n: side of each.
            components: at most, see :meth:`LatentPrior.fit`.
            kinds: of what is given, see the class.
            filtered: whether vessels are filtered out first.

        Raises:
            UsageError: fewer than eight eyes.
        """
        seen = _shares(condition_nkhw, kinds)
        mean, std = seen.mean(0), seen.std(0).clamp(min=_LEAST_SPREAD)
        kernel = _vessels(data_nchw, condition_nkhw) if filtered else None
        data = data_nchw if kernel is None else data_nchw - _filtered(condition_nkhw, kernel)
        given = torch.cat([((seen - mean) / std).expand(len(told_mnd), -1, -1), told_mnd], 2)
        gaussian = LatentPrior.fit(data, given, torch.zeros(given.shape[2]), components, eyes_n)
        shape: dict[str, Any] = {
            "channels": data.shape[1],
            "condition_channels": condition_nkhw.shape[1],
            "size": data.shape[2],
            "components": gaussian.config.components,
            "told": told_mnd.shape[2],
            "sides": gaussian.config.sides,
            "kinds": kinds,
            "filtered": filtered,
        }
        prior = cls(**shape)
        prior.gaussian = gaussian.requires_grad_(False)
        with torch.no_grad():
            prior.features_mean.copy_(mean)
            prior.features_std.copy_(std)
            if prior.filter is not None and kernel is not None:
                prior.filter.copy_(kernel)
        return prior, shape

    @torch.no_grad()
    def forward(self, noisy_bchw: Tensor, t_b: Tensor, condition_bkhw: Tensor, told_bd: Tensor) -> Known:
        """What is known at a point of the path; the filter of vessels adds to its velocity.

        Args:
            noisy_bchw: float32.
            t_b: time in [0, 1], 1 is data.
            condition_bkhw: zero throughout where nothing is given.
            told_bd: zero where nothing is told.
        """
        given = condition_bkhw.abs().amax((1, 2, 3)) > 0
        features = (_shares(condition_bkhw, self.kinds) - self.features_mean) / self.features_std * given[:, None]
        vessels = torch.zeros_like(noisy_bchw) if self.filter is None else _filtered(condition_bkhw, self.filter)
        moved = noisy_bchw - t_b.view(-1, 1, 1, 1) * vessels
        split = self.gaussian(moved, t_b, torch.cat([features, told_bd], 1))
        expected = split.spread_bc11.square().mean((1, 2, 3))
        return Known(split.seen_bchw, expected, lambda told, guidance: split.velocity(told, guidance) + vessels)


def _shares(condition_nkhw: Tensor, kinds: int) -> Tensor:
    """Share of each cell of the grid that each kind covers, n×(kinds·cells)."""
    fine = condition_nkhw.clamp(min=0).unflatten(1, (kinds, -1))
    return adaptive_avg_pool2d(fine.mean(2), _GRID).flatten(1)


def _filtered(condition_nkhw: Tensor, kernel: Tensor) -> Tensor:
    return conv2d(condition_nkhw.clamp(min=0), kernel, padding=_FILTER // 2)


def _vessels(data_nchw: Tensor, condition_nkhw: Tensor) -> Tensor:
    """The linear filter C×K×7×7 of maps that comes nearest to the fine structure of their photographs (ridge)."""
    channels, given = data_nchw.shape[1], condition_nkhw.shape[1]
    taps = given * _FILTER**2
    squares, products = torch.zeros(taps, taps, dtype=torch.float64), torch.zeros(taps, channels, dtype=torch.float64)
    for picture, vessels in zip(data_nchw, condition_nkhw.clamp(min=0), strict=True):
        inputs = unfold(_fine(vessels)[None], _FILTER, padding=_FILTER // 2)[0].double()
        squares += inputs @ inputs.T
        products += inputs @ _fine(picture).flatten(1).double().T
    penalty = _RIDGE * squares.diagonal().mean() * torch.eye(taps, dtype=torch.float64)
    solved = torch.linalg.lstsq(squares + penalty, products).solution
    return solved.T.reshape(channels, given, _FILTER, _FILTER).float()


def _fine(picture_chw: Tensor) -> Tensor:
    """A picture less its surroundings."""
    sigma = _SURROUNDINGS * picture_chw.shape[-1]
    blurred = [cv2.GaussianBlur(channel.numpy(), (0, 0), sigma) for channel in picture_chw]
    return picture_chw - torch.from_numpy(cv2.merge(blurred).reshape(*picture_chw.shape[1:], -1)).permute(2, 0, 1)
