"""What an enlarged picture tells of its missing detail, in closed form, before any training.

A linear filter of the enlargement (ridge regression) tells the detail's mean: it sharpens. What it leaves is taken as a
Gaussian at each place, whose variance follows the energy of the fine structure there: much along vessels and borders,
next to none where the picture is smooth. Colours vary along the principal axes of what is missing, since borders are
dark in all colours at once: independent channels would be coloured grain. So even the untrained enlarger adds detail
only where there is some. On the path ``x_t = t·x₁ + (1 − t)·x₀`` all of it is known place by place, as
:mod:`retinalogos.generators.text.prior` says it of its components.

Filter and variances are fitted at a few levels of the noise on what is given, and mixed between them.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, pad, unfold

from retinalogos.generators.text.prior import Split
from retinalogos.generators.vessel_map.prior import Known

# Levels of noise fitted at, from none to the most. Their squares are what hides detail, and small ones are drawn with:
# they lie closest near none.
_LEVELS = 3
# Side of the window that energy is the mean of, pixels; twice, so that it fades.
_WINDOW = 5
# Of the regression, as a share of the mean squared input: neighbouring pixels of an enlargement say much the same.
_RIDGE = 1e-4
# Far below what eight bits show; guards divisions where nothing is missing.
_SMALLEST_VARIANCE = 1e-4


class DetailPrior(nn.Module):
    """See the module.

    Args:
        channels: of pictures.
        condition_channels: of what is given: the enlargement's, and after them those of a map.
        side: of the filter, pixels, odd.
        most_noise: the highest level of noise fitted to.
        classes: of energy, each with as many pixels and with variances of its own.
    """

    def __init__(self, channels: int, condition_channels: int, side: int, most_noise: float, classes: int):
        super().__init__()
        self.most_noise = most_noise
        levels = _LEVELS if most_noise else 1

        def fixed(values: Tensor) -> nn.Parameter:
            return nn.Parameter(values, requires_grad=False)

        self.axes = fixed(torch.eye(channels))
        # Level by level, of each its channels.
        self.filter = fixed(torch.zeros(levels * channels, condition_channels, side, side))
        self.edges = fixed(torch.zeros(levels, classes - 1))
        self.variances = fixed(torch.ones(levels, channels, classes))

    @classmethod
    def fit(cls, shape: dict[str, Any], missing_nchw: Tensor, given_lnchw: Sequence[Tensor]) -> Self:
        """Fits to cuts of pictures.

        Args:
            shape: arguments of the class.
            missing_nchw: what the enlargements lack, as it is drawn.
            given_lnchw: the enlargements with noise of each of :meth:`levels`, and maps, where there are.
        """
        prior = cls(**shape)
        channels, side, number = shape["channels"], shape["side"], shape["classes"]
        inputs_from = shape["condition_channels"]
        covariance = missing_nchw.transpose(0, 1).flatten(1).double().cov()
        prior.axes.data.copy_(torch.linalg.eigh(covariance).eigenvectors.T)
        missing = prior._turned(missing_nchw)
        for level, given in enumerate(given_lnchw):
            taps = inputs_from * side**2
            squares, products = torch.zeros(taps, taps).double(), torch.zeros(taps, channels).double()
            for picture, lacks in zip(given, missing, strict=True):
                inputs = unfold(_padded(picture[None], side), side)[0]
                squares += inputs @ inputs.T
                products += inputs @ lacks.flatten(1).T
            penalty = _RIDGE * squares.diagonal().mean() * torch.eye(taps)
            solved = torch.linalg.solve(squares + penalty, products)
            of_level = prior.filter.data[level * channels : (level + 1) * channels]
            of_level.copy_(solved.T.reshape(channels, inputs_from, side, side))
            left = missing - conv2d(_padded(given, side), of_level)
            energy = _energy(given[:, :channels])
            shares = torch.linspace(0, 1, number + 1)[1:-1]
            prior.edges.data[level].copy_(torch.quantile(_some(energy.flatten()), shares))
            classes = torch.bucketize(energy[:, 0], prior.edges[level])
            for one in range(number):
                of_class = left.square().transpose(0, 1)[:, classes == one]
                prior.variances.data[level, :, one].copy_(of_class.mean(1))
        prior.variances.data.nan_to_num_(nan=1.0).clamp_(min=_SMALLEST_VARIANCE)
        return prior

    @staticmethod
    def levels(most_noise: float) -> list[float]:
        """The levels of noise that :meth:`fit` wants."""
        return (most_noise * torch.linspace(0, 1, _LEVELS).square()).tolist() if most_noise else [0.0]

    @torch.no_grad()
    def forward(self, noisy_bchw: Tensor, t_b: Tensor, condition_bchw: Tensor, level_b: Tensor) -> Known:
        """What is known at a point of the path.

        Args:
            noisy_bchw: float32.
            t_b: time in [0, 1], 1 is data.
            condition_bchw: the enlargement with noise, and the map, as the network sees them.
            level_b: of that noise.
        """
        mean, variance, of_classes = self._gaussian(condition_bchw, level_b)
        t, x = t_b.view(-1, 1, 1, 1), self._turned(noisy_bchw)
        d2 = t.square() * variance + (1 - t).square()
        y = x - t * mean
        data = mean + t * variance / d2 * y
        known = data - (1 - t) / d2 * y
        rest = y / d2.sqrt()
        # What is drawn has about unit variance over all places.
        seen = torch.cat([x / (t.square() + (1 - t).square()).sqrt(), data, rest], 1)
        split = Split(seen, known, (variance / d2).sqrt(), rest)
        # Over all places, each class having as many: were it over those of this cut, one in which nothing is missing
        # would weigh as much as one full of vessels.
        spread2 = t[..., 0] ** 2 * of_classes + (1 - t[..., 0]) ** 2
        expected = (of_classes / spread2).mean((1, 2))
        return Known(seen, expected, lambda told, guidance: self._turned(split.velocity(told, guidance), back=True))

    def _gaussian(self, condition_bchw: Tensor, level_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance along the axes of colour, B×C×h×w, and the variances of the classes, B×C×K."""
        levels, channels, _ = self.variances.shape
        means = conv2d(_padded(condition_bchw, self.filter.shape[-1]), self.filter).unflatten(1, (levels, channels))
        energy = _energy(condition_bchw[:, :channels])[:, 0].contiguous()
        variances = torch.stack(
            [
                of_level[:, torch.bucketize(energy, edges)].transpose(0, 1)
                for edges, of_level in zip(self.edges, self.variances, strict=True)
            ],
            1,
        )
        place = (level_b.clamp(0, self.most_noise) / max(self.most_noise, 1e-6)).sqrt() * (levels - 1)
        numbers = torch.arange(levels, device=place.device)
        share = (1 - (place[:, None] - numbers).abs()).clamp(min=0)[:, :, None, None, None]
        return (share * means).sum(1), (share * variances).sum(1), (share[..., 0] * self.variances).sum(1)

    def _turned(self, x_bchw: Tensor, back: bool = False) -> Tensor:
        axes = self.axes.T if back else self.axes
        return torch.einsum("dc,bchw->bdhw", axes, x_bchw)


def _padded(pictures_nchw: Tensor, side: int) -> Tensor:
    return pad(pictures_nchw, [side // 2] * 4, mode="replicate")


def _energy(pictures_nchw: Tensor) -> Tensor:
    """Local mean square of what differs from its surroundings, n×1×h×w."""
    fine = (pictures_nchw - _smooth(pictures_nchw)).square().mean(1, keepdim=True)
    return _smooth(_smooth(fine))


def _smooth(x_nchw: Tensor) -> Tensor:
    return avg_pool2d(_padded(x_nchw, _WINDOW), _WINDOW, 1)


def _some(values: Tensor) -> Tensor:
    """As many as a quantile is taken of at most (2²⁴)."""
    return values[:: -(-len(values) // 2**22)]
