import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinalogos.generators.text.flow import (
    Field,
    guided,
    interpolate,
    logit_normal_density,
    loss_weight,
    sample_timesteps,
    shift_time,
    solve,
    straight,
    target_velocity,
    unit_gaussian,
)


def test_time_one_is_data_and_the_velocity_leads_there():
    data, noise = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(interpolate(data, noise, torch.ones(4)), data)
    torch.testing.assert_close(interpolate(data, noise, torch.zeros(4)), noise)
    t = torch.rand(4)
    arrived = interpolate(data, noise, t) + (1 - t).view(-1, 1, 1, 1) * target_velocity(data, noise)
    torch.testing.assert_close(arrived, data)


SOLVERS = ["euler", "midpoint", "heun", "multistep", "splitting"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_true_velocity_carries_noise_to_data(solver):
    data, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    field = straight(data - noise)
    torch.testing.assert_close(solve(field, noise, 10, 3.0, solver), data, atol=1e-5, rtol=1e-5)


def gaussian_field(x, t):
    """Exact velocity for data N(2, 0.3²): a point is carried from z to 2 + 0.3·z."""
    t = t.view(-1, 1, 1, 1)
    gain = (t * 0.09 - (1 - t)) / (t**2 * 0.09 + (1 - t) ** 2)
    return 2 + gain * (x - 2 * t)


ORDERS = [("euler", 1), ("midpoint", 2), ("heun", 2), ("multistep", 2), ("splitting", 2)]


@pytest.mark.parametrize(("solver", "order"), ORDERS)
def test_halving_the_interval_lowers_the_error_by_at_least_the_order(solver, order):
    start = torch.full((1, 1, 1, 1), 1.5, dtype=torch.float64)
    coarse, fine = (abs(float(solve(unit_gaussian(gaussian_field), start, n, 1.0, solver)) - 2.45) for n in (160, 320))
    assert np.log2(coarse / fine) > order - 0.35  # the first and the last step of `multistep` are of first order


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_from_a_point_on_the_way_it_arrives_where_the_whole_way_does(solver, shift):
    begin, z = 0.4, 1.5
    on_the_way = 2 * begin + z * (begin**2 * 0.09 + (1 - begin) ** 2) ** 0.5
    times = []

    def watched(x, t):
        times.append(float(t[0]))
        return gaussian_field(x, t)

    start = torch.full((1, 1, 1, 1), on_the_way, dtype=torch.float64)
    arrived = float(solve(unit_gaussian(watched), start, 200, shift, solver, begin))
    assert arrived == pytest.approx(2 + 0.3 * z, abs=0.01)
    # `splitting` looks at the middle of an interval first.
    assert begin - 1e-6 <= min(times) < begin + 0.02


def test_what_is_known_is_drawn_exactly_in_a_single_step_and_the_rest_is_added():
    """Data of deviation 30, as one direction of whole latents has: others do not spread that far in so few steps."""
    deviation = 30.0

    def spread(t):
        return (t**2 * deviation**2 + (1 - t) ** 2) ** 0.5

    def known(x, t):
        t = t.view(-1, 1, 1, 1)
        return (t * deviation**2 - (1 - t)) / spread(t) ** 2 * x

    start = torch.tensor([-1.5, 0.5], dtype=torch.float64).view(2, 1, 1, 1)
    field = Field(known, known, lambda x, now, then: x * spread(then) / spread(now))
    torch.testing.assert_close(solve(field, start, 1, 1.0, "splitting"), deviation * start)
    for solver in ("euler", "midpoint", "multistep"):
        assert float(solve(field, start, 8, 1.0, solver).abs().max()) < 0.8 * 1.5 * deviation

    moved = Field(lambda x, t: known(x, t) + 2, known, field.carry)
    few, many = (solve(moved, start, steps, 1.0, "splitting") for steps in (200, 2000))
    assert float((many - deviation * start).min()) > 2, "a push on the way spreads with the rest"
    torch.testing.assert_close(few, many, rtol=0.02, atol=0)


def test_fields_mix_place_by_place():
    first, second = straight(torch.ones(1, 1, 1, 2)), unit_gaussian(lambda x, t: 3 * x)
    mixed = first.mixed(second, torch.tensor([0.0, 1.0]))
    x, t = torch.full((1, 1, 1, 2), 2.0), torch.zeros(1)
    assert mixed.velocity(x, t).flatten().tolist() == [1, 6]
    assert mixed.known(x, t).flatten().tolist() == [1, -2]
    torch.testing.assert_close(mixed.carry(x, 0.0, 0.5).flatten(), torch.tensor([2.5, 2 * 0.5**0.5]))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_spends_the_evaluations_it_was_given(solver):
    calls = []

    def counting(x, t):
        calls.append(t)
        return gaussian_field(x, t)

    solve(unit_gaussian(counting), torch.zeros(1, 1, 1, 1), 20, 2.0, solver)
    assert len(calls) == 20


@given(st.floats(0.2, 6), st.floats(0, 1))
def test_shift_keeps_the_ends_and_moves_towards_noise(shift, t):
    shifted = float(shift_time(torch.tensor(t, dtype=torch.float64), shift))
    assert 0 <= shifted <= 1 + 1e-12
    assert (shifted <= t + 1e-12) == (shift >= 1) or shifted == pytest.approx(t, abs=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.7, 0.5), (1.0, 1.5)])
def test_logit_normal_samples_follow_the_density(mean, std):
    drawn = sample_timesteps(200_000, "logit_normal", 1.0, torch.Generator().manual_seed(0), mean, std).double()
    edges = torch.linspace(0, 1, 21, dtype=torch.float64)
    counts = torch.histogram(drawn, edges).hist / len(drawn)
    grid = torch.linspace(0, 1, 20_002, dtype=torch.float64)[1:-1]
    mass = torch.histogram(grid, edges, weight=logit_normal_density(grid, mean, std) / len(grid)).hist
    assert float((counts - mass).abs().max()) < 0.004
    # The right direction: a positive mean favours times near the data.
    assert (float(drawn.mean()) > 0.5) == (mean > 0) or mean == 0


def test_shifted_times_are_the_shift_of_the_unshifted():
    plain, shifted = (
        sample_timesteps(1000, "uniform", shift, torch.Generator().manual_seed(1)) for shift in (1.0, 3.0)
    )
    torch.testing.assert_close(shifted, shift_time(plain, 3.0))
    assert shifted.mean() < plain.mean()


def test_guidance_acts_on_all_channels():
    conditional, unconditional = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    change = guided(conditional, unconditional, 2.0) - conditional
    assert (change.abs().amax((0, 2, 3)) > 0).all()


def test_renormalised_guidance_turns_the_velocity_and_keeps_its_length():
    conditional, unconditional = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    turned = guided(conditional, unconditional, 4.0, renormalise=True)
    torch.testing.assert_close(turned.flatten(1).norm(dim=1), conditional.flatten(1).norm(dim=1))
    plain = guided(conditional, unconditional, 4.0)
    torch.testing.assert_close(torch.cosine_similarity(turned.flatten(1), plain.flatten(1)), torch.ones(3))


def test_weights_of_times_are_those_of_their_papers_with_data_at_one():
    t = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    cosmap = loss_weight(t, "cosmap")
    assert float(cosmap.mean()) == pytest.approx(1, abs=1e-6)
    # Esser et al. write it with noise at t = 1; it is symmetric.
    torch.testing.assert_close(cosmap, 2 / (math.pi - 2 * math.pi * (1 - t) + 2 * math.pi * (1 - t) ** 2))
    # The image that a velocity implies is x_t + (1 − t)·v: an error of v is 1 − t times as large in it.
    snr = (t / (1 - t)) ** 2
    torch.testing.assert_close(loss_weight(t, "min_snr"), snr.clamp(max=5) * (1 - t) ** 2)
    assert float(t[loss_weight(t, "min_snr").argmax()]) == pytest.approx(5**0.5 / (1 + 5**0.5), abs=1e-3)
    assert float(loss_weight(t, "uniform").std()) == 0
