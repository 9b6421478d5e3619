"""Velocity flow matching: path, timestep laws, guidance and solver, as pure functions.

Convention of Lumina (arXiv 2406.18583) throughout: ``t = 0`` is noise and ``t = 1`` is data,
``x_t = t·x₁ + (1 − t)·x₀`` with ``x₀ ~ N(0, I)``, and the network predicts the velocity ``x₁ − x₀``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from retinalogos.generators.text.configuration import LossWeighting, TimestepLaw

Velocity = Callable[[Tensor, Tensor], Tensor]
Carry = Callable[[Tensor, float, float], Tensor]
# Largest weight of min_snr, γ: the value recommended by its paper (arXiv 2303.09556).
_MOST_SNR = 5.0


@dataclass(frozen=True)
class Field:
    """A velocity, and the part of it whose path between two times is known without steps.

    Attributes:
        velocity: of x (B×C×H×W) and t (B).
        known: the part of that velocity.
        carry: where the known part alone takes x from one time to another.
    """

    velocity: Velocity
    known: Velocity
    carry: Carry

    def mixed(self, other: "Field", share: Tensor) -> "Field":
        """This field and ``share``, which broadcasts over B×C×H×W, of another."""

        def mix(first: Tensor, second: Tensor) -> Tensor:
            return (1 - share) * first + share * second

        return Field(
            lambda x, t: mix(self.velocity(x, t), other.velocity(x, t)),
            lambda x, t: mix(self.known(x, t), other.known(x, t)),
            lambda x, now, then: mix(self.carry(x, now, then), other.carry(x, now, then)),
        )


def unit_gaussian(velocity: Velocity) -> Field:
    """The field whose known part is that of data N(0, I): what latents are scaled to where nothing else is known."""

    def spread2(t: Tensor | float) -> Tensor | float:
        return t * t + (1 - t) * (1 - t)

    def known(x: Tensor, t: Tensor) -> Tensor:
        t = t.view(-1, *[1] * (x.ndim - 1))
        return (2 * t - 1) / spread2(t) * x

    return Field(velocity, known, lambda x, now, then: x * (spread2(then) / spread2(now)) ** 0.5)


def straight(velocity_bchw: Tensor) -> Field:
    """The field in which every point moves with its own constant velocity."""

    def constant(x: Tensor, t: Tensor) -> Tensor:
        return velocity_bchw

    return Field(constant, constant, lambda x, now, then: x + (then - now) * velocity_bchw)


def interpolate(data_bchw: Tensor, noise_bchw: Tensor, t_b: Tensor) -> Tensor:
    """Point on the straight path at time t: ``t·data + (1 − t)·noise``."""
    t = t_b.view(-1, *[1] * (data_bchw.ndim - 1))
    return t * data_bchw + (1 - t) * noise_bchw


def target_velocity(data_bchw: Tensor, noise_bchw: Tensor) -> Tensor:
    """d x_t / dt = data − noise, the same at every t."""
    return data_bchw - noise_bchw


def sample_timesteps(
    n: int, law: TimestepLaw, shift: float, generator: torch.Generator, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Training times in (0, 1), float32.

    ``uniform``: U(0, 1). ``logit_normal``: sigmoid(N(mean, std²)) (Esser et al., arXiv 2403.03206).
    Both are then shifted towards noise by :func:`shift_time`.
    """
    if law == "uniform":
        t = torch.rand(n, generator=generator)
    else:
        t = torch.sigmoid(torch.randn(n, generator=generator) * std + mean)
    return shift_time(t, shift)


def shift_time(t: Tensor, shift: float) -> Tensor:
    """``t / (t + shift − shift·t)``: a shift above 1 moves times towards noise (t = 0), as larger images need.

    It is the resolution shift of Esser et al. (arXiv 2403.03206, eq. 23) written for t = 1 at the data.
    """
    return t / (t + shift - shift * t)


def loss_weight(t_b: Tensor, weighting: LossWeighting) -> Tensor:
    """Weight of each time in the squared error of the velocity, B.

    ``uniform``: 1. ``cosmap``: ``2 / (π·(1 − 2t + 2t²))``, the middle of the path more than its ends, of mean 1 over
    all times (Esser et al., arXiv 2403.03206, section 3.1). ``min_snr``: the error of the implied image, which is 1 − t
    times the velocity's, times ``min(t² / (1 − t)², 5)`` (Hang et al., arXiv 2303.09556): noise and nearly finished
    images less than what lies between.
    """
    if weighting == "cosmap":
        return 2 / (math.pi * (1 - 2 * t_b + 2 * t_b.square()))
    if weighting == "min_snr":
        return torch.minimum(t_b.square(), _MOST_SNR * (1 - t_b).square())
    return torch.ones_like(t_b)


def guided(conditional: Tensor, unconditional: Tensor, scale: float, renormalise: bool = False) -> Tensor:
    """Classifier-free guidance on all channels: ``u + scale·(c − u)`` (Ho and Salimans, arXiv 2207.12598).

    ``renormalise`` gives each image's velocity the norm of its conditional one (Lin et al., arXiv 2305.08891): guidance
    then turns it and does not lengthen it, so that strong guidance does not saturate colours.
    """
    velocity = unconditional + scale * (conditional - unconditional)
    if not renormalise:
        return velocity
    norms = [part.flatten(1).norm(dim=1).view(-1, *[1] * (part.ndim - 1)) for part in (conditional, velocity)]
    return velocity * (norms[0] / norms[1].clamp(min=1e-12))


def solve(
    field: Field,
    start_bchw: Tensor,
    steps: int,
    shift: float = 1.0,
    solver: str = "splitting",
    start_time: float = 0.0,
) -> Tensor:
    """Integrates dx/dt = velocity(x, t) from noise at t = 0, or from a point on the way, to data at t = 1.

    Args:
        field: the velocity and its known part.
        start_bchw: starting point: noise N(0, I), or x_t at ``start_time``.
        steps: evaluations of the velocity, of which ``midpoint`` and ``heun`` spend two on each interval.
        shift: time shift of the grid, see :func:`shift_time`.
        solver: ``euler`` (first order); ``midpoint`` or ``heun`` (second order, one step); ``multistep`` (second order,
            DPM-Solver++(2M) of Lu et al., arXiv 2211.01095, on the straight path: one evaluation an interval);
            ``splitting`` (second order, one evaluation an interval: the known part carries the point to the middle of
            the interval, what the velocity has beyond it there pushes it for the whole interval, and the known part
            carries on to its end; the splitting of Strang, 1968). However large the steps, ``splitting`` draws from
            the known part exactly: with the others, directions in which data are much wider than noise stay too
            narrow, since they spread within the first of their steps.
        start_time: t in [0, 1) of the starting point.
    """
    intervals = max(1, steps // 2) if solver in ("midpoint", "heun") else steps
    # Unshifted by the inverse, which is the reciprocal shift, so that the grid begins at the starting time.
    first = float(shift_time(torch.tensor(start_time, dtype=torch.float64), 1 / shift))
    grid = shift_time(torch.linspace(first, 1, intervals + 1, dtype=torch.float64), shift).tolist()

    def at(x: Tensor, t: float) -> Tensor:
        return field.velocity(x, x.new_full((len(x),), t))

    if solver == "multistep":
        return _multistep(at, start_bchw, grid)
    if solver == "splitting":
        return _splitting(field, start_bchw, grid)
    x = start_bchw
    for now, then in pairwise(grid):
        dt = then - now
        v = at(x, now)
        if solver == "midpoint":
            v = at(x + v * (dt / 2), now + dt / 2)
        elif solver == "heun":
            v = (v + at(x + v * dt, then)) / 2
        x = x + v * dt
    return x


def _splitting(field: Field, x: Tensor, grid: list[float]) -> Tensor:
    # What the velocity had beyond its known part in the middle of the interval before says where half of this one's
    # push will lead: seen from there, a single evaluation is of second order.
    push: Tensor | float = 0.0
    for now, then in pairwise(grid):
        middle, dt = (now + then) / 2, then - now
        x = field.carry(x, now, middle)
        seen, t = x + dt / 2 * push, x.new_full((len(x),), middle)
        push = field.velocity(seen, t) - field.known(seen, t)
        x = field.carry(x + dt * push, middle, then)
    return x


def _multistep(at: Callable[[Tensor, float], Tensor], x: Tensor, grid: list[float]) -> Tensor:
    """Exponential integrator in λ = log(t / (1 − t)): the estimate of the data is extrapolated, not the velocity."""
    before: tuple[Tensor, float] | None = None
    for now, then in pairwise(grid):
        data = x + (1 - now) * at(x, now)
        best = data
        # λ is infinite at both ends: the first interval has no usable past, the last one ends on the estimate itself.
        if before is not None and before[1] > 0 and then < 1:
            past, past_time = before
            ratio = (_log_snr(now) - _log_snr(past_time)) / (_log_snr(then) - _log_snr(now))
            best = data + (data - past) / (2 * ratio)
        kept = (1 - then) / (1 - now)
        x = kept * x + (then - kept * now) * best
        before = data, now
    return x


def _log_snr(t: float) -> float:
    return math.log(t / (1 - t))


def logit_normal_density(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Density of sigmoid(N(mean, std²)) at t in (0, 1)."""
    z = (torch.logit(t) - mean) / std
    return torch.exp(-0.5 * z**2) / (std * math.sqrt(2 * math.pi) * t * (1 - t))
