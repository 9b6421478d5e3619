"""What is known of latents before any training, in closed form, and the network's share of the rest.

Were the latents of the eyes with one caption a Gaussian N(m, Σ), the best prediction of the velocity ``x₁ − x₀`` on the
path ``x_t = t·x₁ + (1 − t)·x₀`` would be known. In the basis in which Σ is diagonal with variances λ, and with
``y = x_t − t·m``,

    E[x₁ | x_t] = m + t·λ / d² · y,    E[x₀ | x_t] = (1 − t) / d² · y,    d² = t²·λ + (1 − t)²,

and what the velocity has beyond their difference has the variance λ / d². Fundus photographs are aligned by their field
of view, so this Gaussian already holds field, tone, macula and the place of the disc.

Σ has some dozen principal components of whole latents, and some directions more in which captions move the mean most;
what these leave out, the rest, is taken as stationary: independent coefficients of the two-dimensional cosine transform
(DCT-II). The mean moves along the directions with the caption, by ridge regression on its pooled features. The network
sees x_t, E[x₁ | x_t] and the rest of x_t, and predicts what remains in units of its standard deviation: the
preconditioning of EDM (Karras et al., arXiv 2206.00364) with the data's covariance in place of one variance.

Left and right eyes are no one Gaussian: their mean has two discs. Where laterality is known each side has its own, and
the answer is the mean of theirs, weighed by how well each explains the caption (logistic regression) and x_t.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinalogos.errors import UsageError
from retinalogos.generators.text.flow import Field, Velocity
from retinalogos.training.logistic import logistic_regression

# Images fitted to: 400 MB of 48×16×16 latents.
MOST_IMAGES = 8192
# Variances are those of images that the directions were not fitted to: of its own images a direction shows too much.
_HELD_OUT = 4
# Below this a side has no Gaussian of its own.
_FEWEST_IMAGES = 2 * _HELD_OUT
# Images for each component. With fewer, components hold detail of the very images that they were fitted to: measured on
# 720 phantom eyes, 400 of them leave 30 % less error at t = 0.7 there than elsewhere, 25 of them 4 %. The network would
# learn from them that there is nothing left to do.
_IMAGES_PER_COMPONENT = 30
# Oversampling and power iterations of the randomised decomposition: Halko et al., arXiv 0909.4061, sections 4.2, 4.5.
_OVERSAMPLING, _POWER_ITERATIONS = 20, 2
# Directions beside the components in which the mean moves with the caption, at most: a cup is too small for any of the
# largest components, but it lies in the same place of every left eye. Measured on phantom eyes: three explain anything
# of images that they were not fitted to, one of them a sixth of what goes on in its direction, which is the cup's.
_TOLD = 8
# Share of the variance along such a direction that captions must explain for it to be kept.
_WORTH_TELLING = 0.01
# Ridge for features of unit variance; measured on ODIR-5K and the phantom: a third or three times of it is as good.
_RIDGE = 0.1
# Ridge along what two captions of one image differ in, which is mostly words. Measured on phantom eyes: with it the
# captions explain half as much again of the cup in images that the regression has not seen.
_WORDING_RIDGE = 0.3
# Rows of the regressions that say that the empty caption says nothing, as a share of the others.
_EMPTY_SHARE = 0.1
# Of the logistic regression, per squared weight: that of scikit-learn's default (C = 1) at 1,000 captions.
_LOGISTIC_PENALTY = 5e-4
# A caption as near to those of training as this share of them moves the mean as the regression says; one that is
# farther off, a prompt of other words, less in proportion.
_NEAR_QUANTILE = 0.95
# Far below what an autoencoder keeps; guards divisions where a channel is constant.
_SMALLEST_VARIANCE = 1e-6


class Split(NamedTuple):
    """The known part of a velocity and what the network needs for the rest.

    The velocity is ``known + spread · (offset + gain · rest)``: of the network's output the first C channels are the
    offset, the next C the gain. With both at zero it is the answer of the prior alone.

    Attributes:
        seen_bchw: the network's input, B×3C×h×w: x_t, E[x₁ | x_t] and the rest, each channel of about unit variance.
        known_bchw: E[x₁ − x₀ | x_t], B×C×h×w.
        spread_bc11: standard deviation of the remainder, B×C×1×1.
        rest_bchw: what the principal components leave of x_t, about unit variance: mostly noise where the image is
            smooth, and less so where there is a vessel; a gain settles that place by place.
    """

    seen_bchw: Tensor
    known_bchw: Tensor
    spread_bc11: Tensor
    rest_bchw: Tensor

    def velocity(self, predicted_bchw: Tensor, autoguidance: float = 1.0) -> Tensor:
        """Velocity B×C×h×w from the network's output; channels beyond 2C, which some networks have, are not used.

        ``autoguidance`` multiplies what the network adds to the prior; 1 is as learned. A network that has not learned
        to the end draws too little of what is hard to tell, vessels first. On the way from a worse model, here the
        prior, to it and beyond it draws more of that (Karras et al., arXiv 2406.02507).
        """
        channels = self.known_bchw.shape[1]
        offset, gain = predicted_bchw[:, :channels].float(), predicted_bchw[:, channels : 2 * channels].float()
        return self.known_bchw + autoguidance * self.spread_bc11 * (offset + gain * self.rest_bchw)


class _Coordinates(NamedTuple):
    """A point of the path as each side sees it, S first: less the mean it would have, in the basis of that side."""

    moved_sbk: Tensor  # by the caption, of the mean at t = 1
    along_sbk: Tensor
    rest_sbchw: Tensor  # frequencies
    left_sbchw: Tensor  # the same, places
    share_sb111: Tensor  # how likely each side is


class LatentPrior(ModelMixin, ConfigMixin):
    """Mean and covariance of latents of one size, on each side.

    Args:
        channels: C of the latents.
        size: their width and height.
        components: K, directions of whole latents: principal components, and those in which captions move the mean.
        text_dim: D, width of a caption's pooled features.
        sides: S, the Gaussians: left and right eyes, or one for all.
    """

    @register_to_config
    def __init__(self, channels: int, size: int, components: int, text_dim: int, sides: int = 1):
        super().__init__()
        shape = (channels, size, size)

        def fixed(values: Tensor) -> nn.Parameter:
            return nn.Parameter(values, requires_grad=False)

        self.mean = fixed(torch.zeros(sides, *shape))
        self.directions = fixed(torch.eye(components, math.prod(shape)).repeat(sides, 1, 1))
        self.variances = fixed(torch.ones(sides, components))
        self.text_effect = fixed(torch.zeros(sides, components, text_dim))
        # A caption's leverage, c·P·c, says how far it is from those of training; up to ``near`` it counts in full.
        self.text_precision = fixed(torch.zeros(sides, text_dim, text_dim))
        self.near = fixed(torch.ones(sides))
        self.spectrum = fixed(torch.ones(sides, *shape))
        # Of the caption: which side it speaks of.
        self.side_weights = fixed(torch.zeros(sides, text_dim))
        self.side_bias = fixed(torch.zeros(sides))
        # Of each channel over all images and places: the network's units.
        self.channel_mean = fixed(torch.zeros(channels))
        self.channel_std = fixed(torch.ones(channels))
        self.register_buffer("cosines", _cosines(size), persistent=False)

    @classmethod
    def fit(
        cls,
        latents_nchw: Sequence[Tensor] | Tensor,
        captions_mnd: Tensor,
        empty_d: Tensor,
        components: int,
        eyes_n: Sequence[str | None],
    ) -> Self:
        """Fits to images and captions; fewer components are kept than asked for where there are fewer images.

        Args:
            latents_nchw: N×C×h×h.
            captions_mnd: pooled features of M captions of each image, M×N×D.
            empty_d: pooled features of the empty caption.
            components: how many to keep, at most one for every thirty images; the directions in which captions move
                the mean come on top.
            eyes_n: ``left``, ``right`` or ``None`` for each image; those of unknown side are passed over, unless there
                are fewer than eight of either side: then one Gaussian is fitted to all.

        Raises:
            UsageError: there are fewer than eight latents.
        """
        if len(latents_nchw) < _FEWEST_IMAGES:
            raise UsageError(
                f"a prior cannot be fitted to {len(latents_nchw)} images: at least {_FEWEST_IMAGES} needed"
            )
        data = torch.stack(list(latents_nchw))
        members = [torch.tensor([eye == side for eye in eyes_n]) for side in ("left", "right")]
        if min(int(rows.sum()) for rows in members) < _FEWEST_IMAGES:
            members = [torch.ones(len(data), dtype=torch.bool)]
        fewest = min(int(rows.sum()) for rows in members)
        fitted_to = fewest - math.ceil(fewest / _HELD_OUT)
        kept = min(components, max(1, fitted_to // _IMAGES_PER_COMPONENT), data[0].numel())
        directions = [_directions(data[rows].flatten(1), captions_mnd[:, rows], empty_d, kept) for rows in members]
        most = min(len(each) for each in directions)
        model = cls(data.shape[1], data.shape[2], most, captions_mnd.shape[2], len(members))
        with torch.no_grad():
            model.channel_mean.copy_(data.mean((0, 2, 3)))
            model.channel_std.copy_(data.var((0, 2, 3)).clamp(min=_SMALLEST_VARIANCE).sqrt())
            for side, rows in enumerate(members):
                model.directions[side] = directions[side][:most]
                model._fit_side(side, data[rows], captions_mnd[:, rows], empty_d)
        weights, bias = _logistic([captions_mnd[:, rows].flatten(0, 1) for rows in members], empty_d)
        model.side_weights.data.copy_(weights)
        model.side_bias.data.copy_(bias)
        return model

    def _fit_side(self, side: int, data_nchw: Tensor, captions_mnd: Tensor, empty_d: Tensor) -> None:
        held_out = _held_out(len(data_nchw))
        self.mean[side] = data_nchw.mean(0)
        rows = (data_nchw - self.mean[side]).flatten(1)
        directions = self.directions[side]
        along = rows @ directions.T
        effect, precision = _effect(captions_mnd, along, empty_d)
        self.text_effect[side] = effect
        left = along[held_out] - captions_mnd[:, held_out] @ effect.T
        self.variances[side] = left.square().mean((0, 1)).clamp(min=_SMALLEST_VARIANCE)
        self.text_precision[side] = precision
        leverages = _leverage(captions_mnd[:, held_out].flatten(0, 1), precision)
        self.near[side] = leverages.quantile(_NEAR_QUANTILE).clamp(min=_SMALLEST_VARIANCE)
        rest = (rows[held_out] - along[held_out] @ directions).unflatten(1, data_nchw.shape[1:])
        self.spectrum[side] = self._cosine(rest).square().mean(0).clamp(min=_SMALLEST_VARIANCE)

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
        t, t_b1 = t_b.view(-1, 1, 1, 1), t_b.view(-1, 1)
        variances, spectrum, mean = self.variances[:, None], self.spectrum[:, None], self.mean[:, None]
        moved, along, rest, left, share = self._coordinates(x_bchw, t_b, pooled_bd)
        d2_along, d2_rest = _spread2(t_b1, variances), _spread2(t, spectrum)
        # Divided by d², in each of the two bases.
        along, rest = along / d2_along, rest / d2_rest
        data = ((moved + t_b1 * along * variances) @ self.directions).view_as(left)
        data = mean + data + t * self._cosine(rest * spectrum, back=True)
        noise = (1 - t) * ((along @ self.directions).view_as(left) + self._cosine(rest, back=True))
        velocity = data - noise
        known = (share * velocity).sum(0)

        channel_mean, channel_std = self.channel_mean.view(1, -1, 1, 1), self.channel_std.view(1, -1, 1, 1)
        seen = [
            (x_bchw - t * channel_mean) / _spread2(t, channel_std.square()).sqrt(),
            ((share * data).sum(0) - channel_mean) / channel_std,
        ]
        # Remainder's variance, averaged over the places of a channel: that of the components by their share in it, that
        # of the rest, and that between the sides.
        weight = self.directions.unflatten(2, (len(self.channel_mean), -1)).square().mean(3)
        within = (variances / d2_along) @ weight + (spectrum / d2_rest).mean((3, 4))
        between = (velocity - known).square().mean((3, 4))
        spread = (share[..., 0, 0] * (within + between)).sum(0).sqrt()
        left = (share * left / d2_rest.mean((3, 4), keepdim=True).sqrt()).sum(0)
        return Split(torch.cat([*seen, left], 1), known, spread[:, :, None, None], left)

    def field(self, velocity: Velocity, pooled_bd: Tensor) -> Field:
        """A field with this velocity, of which the prior is the known part; ``pooled_bd`` as in :meth:`forward`."""
        return Field(
            velocity,
            lambda x, t: self(x, t, pooled_bd).known_bchw,
            lambda x, now, then: self.carry(x, now, then, pooled_bd),
        )

    def _coordinates(self, x_bchw: Tensor, t_b: Tensor, pooled_bd: Tensor) -> _Coordinates:
        """Raises UsageError for latents of another size."""
        if x_bchw.shape[1:] != self.mean.shape[1:]:
            raise UsageError(
                f"this generator's prior is for latents of {'×'.join(map(str, self.mean.shape[1:]))}, not of "
                f"{'×'.join(map(str, x_bchw.shape[1:]))}: draw at the size it was trained for"
            )
        # All that follows has the sides first: S×B×K along the components, S×B×C×h×w in pixels and in frequencies.
        t, t_b1 = t_b.view(-1, 1, 1, 1), t_b.view(-1, 1)
        nearness = self.near[:, None] / _leverage(pooled_bd, self.text_precision).clamp(min=_SMALLEST_VARIANCE)
        moved = (pooled_bd @ self.text_effect.mT) * nearness.clamp(max=1)[:, :, None]
        y = x_bchw - t * self.mean[:, None]
        along = y.flatten(2) @ self.directions.mT
        left = y - (along @ self.directions).view_as(y)
        rest = self._cosine(left)
        along = along - t_b1 * moved
        d2_along, d2_rest = _spread2(t_b1, self.variances[:, None]), _spread2(t, self.spectrum[:, None])
        fit = (along.square() / d2_along + d2_along.log()).sum(2) + (rest.square() / d2_rest + d2_rest.log()).sum(
            (2, 3, 4)
        )
        said = self.side_weights @ pooled_bd.T + self.side_bias[:, None]
        share = (said.log_softmax(0) - fit / 2).softmax(0)[:, :, None, None, None]
        return _Coordinates(moved, along, rest, left, share)

    @torch.no_grad()
    def carry(self, x_bchw: Tensor, now: float, then: float, pooled_bd: Tensor) -> Tensor:
        """Where a point of the path at time ``now`` is at time ``then`` if nothing but this prior moves it.

        Along each of its directions x_t − t·m grows as its deviation d does, and this is no approximation, however far
        apart the times; between two sides the answer is the mean of theirs, with their shares at ``now``.

        Args:
            x_bchw: float32, of the size fitted to.
            now: time in [0, 1], 1 is data.
            then: time in [0, 1], before or after.
            pooled_bd: pooled features of the captions.

        Raises:
            UsageError: latents of another size.
        """
        moved, along, rest, _, share = self._coordinates(x_bchw, x_bchw.new_full((len(x_bchw),), now), pooled_bd)

        def growth(variance: Tensor) -> Tensor:
            before, after = (_spread2(variance.new_tensor(t), variance) for t in (now, then))
            return (after / before).sqrt()

        along = then * moved + along * growth(self.variances[:, None])
        rest = self._cosine(rest * growth(self.spectrum[:, None]), back=True)
        carried = then * self.mean[:, None] + (along @ self.directions).view_as(rest) + rest
        return (share * carried).sum(0)

    def _cosine(self, x: Tensor, back: bool = False) -> Tensor:
        matrix = self.cosines.T if back else self.cosines
        return matrix @ x @ matrix.T


def _held_out(images: int) -> Tensor:
    return torch.arange(images) % _HELD_OUT == 0


def _directions(rows_np: Tensor, captions_mnd: Tensor, empty_d: Tensor, components: int) -> Tensor:
    """Orthonormal directions of images: their principal components, then those in which captions move the mean.

    Of the latter only such as explain something of images that they were not fitted to, the most telling first.
    """
    held_out, rows_np = _held_out(len(rows_np)), rows_np - rows_np.mean(0)
    learned, captions = rows_np[~held_out], captions_mnd[:, ~held_out]
    # The decomposition starts from random directions.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        largest = _principal(learned, components)
        effect, _ = _ridge(captions, learned - learned @ largest.T @ largest, empty_d)
        # All that the regression says has the principal directions of this, which has a row for each feature only.
        among = torch.linalg.cholesky(_moments(captions.double()) + _SMALLEST_VARIANCE * torch.eye(len(empty_d)))
        moving = _principal(among.T.float() @ effect.T, min(_TOLD, len(empty_d), len(rows_np[0]) - len(largest)))
    along = rows_np @ moving.T
    said = captions_mnd[:, held_out] @ _effect(captions_mnd, along, empty_d)[0].T
    left, before = (along[held_out] - said).square().mean((0, 1)), along[held_out].square().mean(0)
    explained = (before - left) / before.clamp(min=_SMALLEST_VARIANCE)
    order = explained.argsort(descending=True)
    return torch.cat([largest, moving[order[explained[order] > _WORTH_TELLING]]])


def _effect(captions_mnd: Tensor, along_nk: Tensor, empty_d: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`_ridge`, shrunk direction by direction to what it explains of images that it was not fitted to."""
    held_out = _held_out(len(along_nk))
    effect, precision = _ridge(captions_mnd[:, ~held_out], along_nk[~held_out], empty_d)
    # Tones that it learned by heart go.
    said, along = captions_mnd[:, held_out] @ effect.T, along_nk[held_out]
    explained = (said * along).mean((0, 1)) / said.square().mean((0, 1)).clamp(min=_SMALLEST_VARIANCE)
    return effect * explained.clamp(0, 1)[:, None], precision


def _principal(rows_np: Tensor, count: int) -> Tensor:
    """The ``count`` directions, orthonormal rows of length P, along which ``rows_np`` are largest."""
    rank = min(count + _OVERSAMPLING, *rows_np.shape)
    return torch.svd_lowrank(rows_np, q=rank, niter=_POWER_ITERATIONS)[2][:, :count].T


def _moments(captions_mnd: Tensor) -> Tensor:
    """Second moments D×D over all captions."""
    rows = captions_mnd.flatten(0, 1)
    return rows.T @ rows / len(rows)


def _ridge(captions_mnd: Tensor, values_nk: Tensor, empty_d: Tensor) -> tuple[Tensor, Tensor]:
    """Linear map K×D from captions to values that moves nothing for the empty caption; inverse D×D of their moments."""
    captions, values = captions_mnd.double(), values_nk.double()
    # What is left when the caption is taken less the mean of its image's, and of all captions of its kind.
    wording = captions - captions.mean(0) - captions.mean(1, keepdim=True) + captions.mean((0, 1))
    among = _moments(captions) + _EMPTY_SHARE * torch.outer(empty_d, empty_d).double()
    of_words = _moments(wording) * len(captions) / max(1, len(captions) - 1)
    penalty = _RIDGE * torch.eye(len(empty_d)) + _WORDING_RIDGE * of_words
    precision = torch.linalg.inv(among + penalty)
    # A map moves each caption of an image as it moves the image.
    return (precision @ (captions.mean(0).T @ values / len(values))).T.float(), precision.float()


def _leverage(captions_nd: Tensor, precision: Tensor) -> Tensor:
    """c·P·c of each caption: N, or S×N for S matrices P."""
    return ((captions_nd @ precision) * captions_nd).sum(-1)


def _logistic(captions_nd_of_sides: list[Tensor], empty_d: Tensor) -> tuple[Tensor, Tensor]:
    """Weights S×D and biases S of the regression from captions to sides that is undecided for the empty caption."""
    sides = len(captions_nd_of_sides)
    counts = [len(rows_of_side) for rows_of_side in captions_nd_of_sides]
    # Both sides weigh the same, however many images each has: a prompt that names none draws as many of each.
    weight = torch.cat([torch.full((n,), 1 / (sides * n)) for n in counts] + [torch.tensor([_EMPTY_SHARE])])
    target = torch.cat([torch.eye(sides).repeat_interleave(torch.tensor(counts), 0), torch.full((1, sides), 1 / sides)])
    # The penalty is meant beside the captions, whose weights sum to 1 without the empty one.
    penalty = _LOGISTIC_PENALTY / float(weight.sum())
    return logistic_regression(torch.cat([*captions_nd_of_sides, empty_d[None]]), target, penalty, weight)


def _spread2(t: Tensor, variance: Tensor) -> Tensor:
    """Variance of x_t where the data has ``variance``; at least 1e-6, where t is 1 and the data constant."""
    return (t.square() * variance + (1 - t).square()).clamp(min=_SMALLEST_VARIANCE)


def _cosines(size: int) -> Tensor:
    """The orthonormal matrix of the one-dimensional DCT-II."""
    place, frequency = torch.arange(size) + 0.5, torch.arange(size)
    matrix = torch.cos(math.pi / size * frequency[:, None].double() * place) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()
