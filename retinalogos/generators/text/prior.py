"""What is known of latents before any training, in closed form, and the network's share of the rest.

Were the latents of the eyes with one caption a Gaussian N(m, Σ), the best prediction of the velocity ``x₁ − x₀`` on the
path ``x_t = t·x₁ + (1 − t)·x₀`` would be known. In the basis in which Σ is diagonal with variances λ, and with
``y = x_t − t·m``,

    E[x₁ | x_t] = m + t·λ / d² · y,    E[x₀ | x_t] = (1 − t) / d² · y,    d² = t²·λ + (1 − t)²,

and what the velocity has beyond their difference has the variance λ / d². Fundus photographs are aligned by their field
of view, so this Gaussian already holds field, tone and the two places of the disc. The network sees x_t and E[x₁ | x_t]
and predicts the remainder in units of its standard deviation: the preconditioning of EDM (Karras et al., arXiv
2206.00364) with the data's covariance in place of one variance.

Σ has a few hundred principal components of whole latents; what these leave out is taken as stationary: independent
coefficients of the two-dimensional cosine transform (DCT-II). The mean moves along the components with the caption, by
ridge regression on its pooled features: the disc goes to its side.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinalogos.errors import UsageError

# Images fitted to: 400 MB of 48×16×16 latents, and twenty for each of 400 components.
MOST_IMAGES = 8192
# Variances are those of images that the directions were not fitted to: of its own images a direction shows too much.
_HELD_OUT = 4
# Oversampling and power iterations of the randomised decomposition: Halko et al., arXiv 0909.4061, sections 4.2, 4.5.
_OVERSAMPLING, _POWER_ITERATIONS = 20, 2
# Ridge for features of unit variance; measured on ODIR-5K and the phantom: a third or three times of it is as good.
_RIDGE = 0.1
# Rows of the regression that say that the empty caption moves nothing, as a share of the others.
_EMPTY_SHARE = 0.1
# Standard deviations by which a caption moves a component at most, whatever words a prompt is made of.
_FARTHEST = 2.0
# Far below what an autoencoder keeps; guards divisions where a channel is constant.
_SMALLEST_VARIANCE = 1e-6


class Split(NamedTuple):
    """The known part of a velocity and what the network needs for the rest.

    The velocity is ``known + spread · (offset + gain · rest)``: of the network's 2C channels the first C are the
    offset, the others the gain. With both at zero it is the Gaussian answer.

    Attributes:
        seen_bchw: the network's input, B×2C×h×w: x_t and E[x₁ | x_t], each channel of about unit variance.
        known_bchw: E[x₁ − x₀ | x_t], B×C×h×w.
        spread_bc11: standard deviation of the remainder, B×C×1×1.
        rest_bchw: what the principal components leave of x_t, about unit variance: mostly noise where the image is
            smooth, and less so where there is a vessel; a gain settles that place by place.
    """

    seen_bchw: Tensor
    known_bchw: Tensor
    spread_bc11: Tensor
    rest_bchw: Tensor

    def velocity(self, predicted_bchw: Tensor) -> Tensor:
        """Velocity B×C×h×w from the network's output B×2C×h×w."""
        offset, gain = predicted_bchw.float().chunk(2, 1)
        return self.known_bchw + self.spread_bc11 * (offset + gain * self.rest_bchw)


class LatentPrior(ModelMixin, ConfigMixin):
    """Mean and covariance of latents of one size.

    Args:
        channels: C of the latents.
        size: their width and height.
        components: K, principal components of whole latents.
        text_dim: D, width of a caption's pooled features.
    """

    @register_to_config
    def __init__(self, channels: int, size: int, components: int, text_dim: int):
        super().__init__()
        shape = (channels, size, size)

        def fixed(values: Tensor) -> nn.Parameter:
            return nn.Parameter(values, requires_grad=False)

        self.mean = fixed(torch.zeros(shape))
        self.directions = fixed(torch.eye(components, math.prod(shape)))
        self.variances = fixed(torch.ones(components))
        self.text_effect = fixed(torch.zeros(components, text_dim))
        self.spectrum = fixed(torch.ones(shape))
        # Of each channel over all images and places: the network's units.
        self.channel_mean = fixed(torch.zeros(channels))
        self.channel_std = fixed(torch.ones(channels))
        self.register_buffer("cosines", _cosines(size), persistent=False)

    @classmethod
    def fit(
        cls, latents_nchw: Sequence[Tensor] | Tensor, captions_mnd: Tensor, empty_d: Tensor, components: int
    ) -> Self:
        """Fits to images and captions; fewer components are kept than asked for where there are fewer images.

        Args:
            latents_nchw: N×C×h×h.
            captions_mnd: pooled features of M captions of each image, M×N×D.
            empty_d: pooled features of the empty caption.
            components: how many to keep.

        Raises:
            UsageError: there are fewer than eight latents.
        """
        if len(latents_nchw) < 2 * _HELD_OUT:
            raise UsageError(f"a prior cannot be fitted to {len(latents_nchw)} images: at least {2 * _HELD_OUT} needed")
        data = torch.stack(list(latents_nchw))
        n, channels, size, _ = data.shape
        held_out = torch.arange(n) % _HELD_OUT == 0
        kept = min(components, int((~held_out).sum()) - 1, data[0].numel())
        model = cls(channels, size, kept, captions_mnd.shape[2])
        with torch.no_grad():
            model.channel_mean.copy_(data.mean((0, 2, 3)))
            model.channel_std.copy_(data.var((0, 2, 3)).clamp(min=_SMALLEST_VARIANCE).sqrt())
            model.mean.copy_(data.mean(0))
            rows = (data - model.mean).flatten(1)
            # The decomposition starts from random directions.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                rank = min(kept + _OVERSAMPLING, *rows[~held_out].shape)
                directions = torch.svd_lowrank(rows[~held_out], q=rank, niter=_POWER_ITERATIONS)[2][:, :kept].T
            model.directions.copy_(directions)
            along = rows @ directions.T
            model.text_effect.copy_(_ridge(captions_mnd[:, ~held_out], along[~held_out], empty_d))
            left = along[held_out] - captions_mnd[:, held_out] @ model.text_effect.T
            model.variances.copy_(left.square().mean((0, 1)).clamp(min=_SMALLEST_VARIANCE))
            rest = (rows[held_out] - along[held_out] @ directions).unflatten(1, data.shape[1:])
            model.spectrum.copy_(model._cosine(rest).square().mean(0).clamp(min=_SMALLEST_VARIANCE))
        return model

    @torch.no_grad()
    def forward(self, x_bchw: Tensor, t_b: Tensor, pooled_bd: Tensor) -> Split:
        """What is known at a point of the path.

        Args:
            x_bchw: float32, of the size fitted to.
            t_b: time in [0, 1], 1 is data.
            pooled_bd: pooled features of the captions.

        Raises:
            UsageError: latents of another size.
        """
        if x_bchw.shape[1:] != self.mean.shape:
            raise UsageError(
                f"this generator's prior is for latents of {'×'.join(map(str, self.mean.shape))}, not of "
                f"{'×'.join(map(str, x_bchw.shape[1:]))}: draw at the size it was trained for"
            )
        t, t_b1 = t_b.view(-1, 1, 1, 1), t_b.view(-1, 1)
        farthest = _FARTHEST * self.variances.sqrt()
        moved = (pooled_bd @ self.text_effect.T).clamp(-farthest, farthest)
        y = x_bchw - t * self.mean
        along = y.flatten(1) @ self.directions.T
        left = y - (along @ self.directions).view_as(y)
        rest = self._cosine(left)
        # y less the caption's effect, divided by d², in each of the two bases.
        along = along - t_b1 * moved
        d2_along, d2_rest = _spread2(t_b1, self.variances), _spread2(t, self.spectrum)
        along, rest = along / d2_along, rest / d2_rest
        data = ((moved + t_b1 * along * self.variances) @ self.directions).view_as(y)
        data = self.mean + data + t * self._cosine(rest * self.spectrum, back=True)
        noise = (1 - t) * ((along @ self.directions).view_as(y) + self._cosine(rest, back=True))

        mean, std = self.channel_mean.view(1, -1, 1, 1), self.channel_std.view(1, -1, 1, 1)
        seen = [(x_bchw - t * mean) / _spread2(t, std.square()).sqrt(), (data - mean) / std]
        # Remainder's variance, averaged over the places of a channel: that of the components by their share in it.
        share = self.directions.view(len(self.directions), len(self.channel_mean), -1).square().mean(2)
        variance = (self.variances / d2_along) @ share + (self.spectrum / d2_rest).mean((2, 3))
        left = left / d2_rest.mean((2, 3), keepdim=True).sqrt()
        return Split(torch.cat(seen, 1), data - noise, variance.sqrt()[:, :, None, None], left)

    def _cosine(self, x_bchw: Tensor, back: bool = False) -> Tensor:
        matrix = self.cosines.T if back else self.cosines
        return matrix @ x_bchw @ matrix.T


def _ridge(captions_mnd: Tensor, values_nk: Tensor, empty_d: Tensor) -> Tensor:
    """K×D of the linear map from captions to values that moves nothing for the empty caption."""
    rows, values = captions_mnd.flatten(0, 1).double(), values_nk.repeat(len(captions_mnd), 1).double()
    among = rows.T @ rows / len(rows) + _EMPTY_SHARE * torch.outer(empty_d, empty_d).double()
    return torch.linalg.solve(among + _RIDGE * torch.eye(len(empty_d)), rows.T @ values / len(rows)).T.float()


def _spread2(t: Tensor, variance: Tensor) -> Tensor:
    """Variance of x_t where the data has ``variance``; at least 1e-6, where t is 1 and the data constant."""
    return (t.square() * variance + (1 - t).square()).clamp(min=_SMALLEST_VARIANCE)


def _cosines(size: int) -> Tensor:
    """The orthonormal matrix of the one-dimensional DCT-II."""
    place, frequency = torch.arange(size) + 0.5, torch.arange(size)
    matrix = torch.cos(math.pi / size * frequency[:, None].double() * place) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()
