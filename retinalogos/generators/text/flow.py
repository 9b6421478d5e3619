"""Velocity flow matching: path, timestep laws, guidance and solver, as pure functions.

Convention of Lumina (arXiv 2406.18583) throughout: ``t = 0`` is noise and ``t = 1`` is data,
``x_t = t·x₁ + (1 − t)·x₀`` with ``x₀ ~ N(0, I)``, and the network predicts the velocity ``x₁ − x₀``.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

TimestepLaw = Literal["uniform", "logit_normal"]
Solver = Literal["euler", "midpoint"]
Velocity = Callable[[Tensor, Tensor], Tensor]


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


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance on all channels: ``u + scale·(c − u)`` (Ho and Salimans, arXiv 2207.12598)."""
    return unconditional + scale * (conditional - unconditional)


def solve(
    velocity: Velocity, noise_bchw: Tensor, steps: int, shift: float = 1.0, solver: Solver = "midpoint"
) -> Tensor:
    """Integrates dx/dt = velocity(x, t) from noise at t = 0 to data at t = 1.

    Args:
        velocity: called with x (B×C×H×W) and t (B).
        noise_bchw: starting point, N(0, I).
        steps: network evaluations; the midpoint rule spends two on each interval.
        shift: time shift of the grid, see :func:`shift_time`.
        solver: ``euler`` (first order) or ``midpoint`` (second order).
    """
    intervals = steps if solver == "euler" else max(1, steps // 2)
    grid = shift_time(torch.linspace(0, 1, intervals + 1), shift).tolist()
    x = noise_bchw
    for now, then in pairwise(grid):
        dt = then - now
        v = velocity(x, x.new_full((len(x),), now))
        if solver == "midpoint":
            v = velocity(x + v * (dt / 2), x.new_full((len(x),), now + dt / 2))
        x = x + v * dt
    return x


def logit_normal_density(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Density of sigmoid(N(mean, std²)) at t in (0, 1)."""
    z = (torch.logit(t) - mean) / std
    return torch.exp(-0.5 * z**2) / (std * math.sqrt(2 * math.pi) * t * (1 - t))
