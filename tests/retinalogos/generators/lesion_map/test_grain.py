"""Noise by which neighbours are drawn alike: its distribution, and that the smoothing is found by what it draws."""

import numpy as np
import pytest
import torch
from scipy import stats

from retinalogos.generators.lesion_map.grain import fit_grain, gumbel_noise, mean_area


def normal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 2, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grain", [0.0, 0.7, 2.0])
def test_noise_is_gumbels_whatever_the_smoothing(grain) -> None:
    noise = gumbel_noise(normal(40), torch.tensor([grain, 0.0]))[:, 0]
    apart = noise[:, ::16, ::16].flatten()  # so far apart that they are independent
    assert stats.kstest(apart.numpy(), stats.gumbel_r.cdf).pvalue > 0.01
    ranks = torch.stack([noise[:, :, :-1], noise[:, :, 1:]]).flatten(1)
    together = float(torch.corrcoef(ranks)[0, 1])
    assert together == pytest.approx(0, abs=0.01) if grain == 0 else together > 0.4


def test_channels_are_smoothed_apart() -> None:
    given = normal(2)
    both = gumbel_noise(given, torch.tensor([0.0, 1.5]))
    assert torch.allclose(both[:, 0], gumbel_noise(given, torch.tensor([0.0, 0.0]))[:, 0])
    assert torch.allclose(both[:, 1], gumbel_noise(given, torch.tensor([1.5, 1.5]))[:, 1])


@pytest.mark.parametrize(("grain", "others"), [(0.6, None), (1.5, None), (1.2, 0.8)])
def test_the_smoothing_is_found_by_the_size_of_what_it_draws(grain, others) -> None:
    odds = torch.tensor(0.02).logit().expand(100, 64, 64)
    of_class, of_others = gumbel_noise(normal(100), torch.tensor([grain, grain if others is None else others])).unbind(
        1
    )
    area = mean_area((odds + of_class > of_others).numpy())
    assert fit_grain(area, odds, 1, others) == pytest.approx(grain, rel=0.1)


def test_no_lesion_has_no_grain_and_regions_are_measured() -> None:
    masks = np.zeros((2, 8, 8), bool)
    assert np.isnan(mean_area(masks))
    masks[0, 1:3, 1:3] = masks[0, 5, 5] = masks[1, 0, 0] = True
    assert mean_area(masks) == pytest.approx(2)
    assert fit_grain(float("nan"), torch.zeros(2, 8, 8), 0) == 0
