"""Spectral measures with known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.metrics.cubes import CubeSets, RandomCubeFeatures, vessel_saturation
from retinalogos.metrics.spectral import (
    band_correlation,
    band_edges,
    band_histogram,
    correlation_difference,
    field_angle,
    spectral_angle,
    spectral_divergence,
    spectral_divergence_with_interval,
)
from retinalogos.phantom.spectra import blood

WAVELENGTHS = np.linspace(450, 905, 16)


def test_angles_are_those_of_geometry() -> None:
    assert spectral_angle([1, 0], [0, 3]) == pytest.approx(np.pi / 2)
    assert spectral_angle([1, 1], [1, 0]) == pytest.approx(np.pi / 4)
    assert np.isnan(spectral_angle([0, 0], [1, 0]))


def test_the_angle_of_cubes_is_that_of_their_fundus() -> None:
    fundus, noise = np.array([0.2, 0.4]), np.array([1e-4, 0.0])
    one = np.where(np.arange(64).reshape(1, 8, 8, 1) % 8 < 6, fundus, noise)
    wanted = float(spectral_angle(fundus, fundus[::-1]))
    assert field_angle(one, np.where(one > 0.1, fundus[::-1], noise[::-1])) == pytest.approx(wanted)
    assert field_angle(one, np.where(one > 0.1, one, noise[::-1])) == pytest.approx(0, abs=1e-6)


@given(factor=st.floats(0.01, 100), seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_the_angle_does_not_see_brightness(factor: float, seed: int) -> None:
    spectrum = np.random.default_rng(seed).random(16) + 0.1
    assert spectral_angle(spectrum, factor * spectrum) == pytest.approx(0, abs=1e-6)


def test_divergence_is_that_of_the_counts() -> None:
    one, other = np.array([[[9.5, 9.5]]]), np.array([[[4.5, 14.5]]])
    # With half a count added to each bin: shares 1/2, 1/2 and 1/4, 3/4.
    assert spectral_divergence(one, other) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert spectral_divergence(one, one) == 0


def test_the_interval_of_a_divergence_holds_it_and_grows_with_the_shift() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(0.2, 0.02, (30, 200, 4))
    edges = band_edges(real.reshape(-1, 4), 8)

    def counts(spectra: np.ndarray) -> np.ndarray:
        return np.stack([band_histogram(cube, edges) for cube in spectra])

    assert counts(real).sum((0, 2)) == pytest.approx([6000] * 4)
    near = spectral_divergence_with_interval(counts(real), counts(rng.normal(0.2, 0.02, (30, 200, 4))), 50, 0)
    far = spectral_divergence_with_interval(counts(real), counts(rng.normal(0.22, 0.02, (30, 200, 4))), 50, 0)
    assert near.low <= near.value <= near.high < 0.01
    # Normal distributions a standard deviation apart: a divergence of 1/2, less what bins hide.
    assert 0.4 < far.value < 0.5


def test_correlations_are_compared_band_by_band() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 1))
    together = band_correlation(np.concatenate([shared, shared], 1))
    apart = band_correlation(rng.normal(size=(500, 2)))
    assert together == pytest.approx(np.ones((2, 2)))
    assert correlation_difference([together], [apart]) == pytest.approx(0.5, abs=0.05)
    assert band_correlation(np.ones((5, 2))).tolist() == [[0, 0], [0, 0]]


def drawn(saturation: float, path: float = 0.06) -> tuple[np.ndarray, np.ndarray]:
    """A cube with one broad vessel, and its classes."""
    classes = np.zeros((32, 32), np.uint8)
    classes[:, 14:17] = 1
    background = np.linspace(0.05, 0.3, 16)[:, None, None] * np.ones((16, 32, 32))
    vessel = 10 ** -(path * blood(WAVELENGTHS, saturation))
    return np.rint(65535 * np.where(classes, background * vessel[:, None, None], background)).astype(np.uint16), classes


@pytest.mark.parametrize("saturation", [0.3, 0.56, 0.92])
def test_saturation_of_a_whole_vessel_is_recovered(saturation: float) -> None:
    values, classes = drawn(saturation)
    assert vessel_saturation(values, classes, 1, WAVELENGTHS) == pytest.approx(saturation, abs=0.02)
    assert np.isnan(vessel_saturation(values, classes, 2, WAVELENGTHS)), "no vein was drawn"


def test_real_cubes_in_the_place_of_synthetic_ones_reach_the_floor_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)

    def some(count: int) -> np.ndarray:
        scales = rng.normal(1, 0.1, (count, 1, 1, 1))
        fields = np.repeat(rng.normal(1, 0.2, (count, 1, 8, 8)), 4, 2).repeat(4, 3)
        return (20000 * scales * np.linspace(0.2, 1, 6)[:, None, None] * fields).clip(0, 65535).astype(np.uint16)

    reference, held, alike = some(40), some(20), some(20)
    noise = rng.integers(0, 30000, held.shape).astype(np.uint16)
    wavelengths = np.linspace(450, 900, 6)
    for synthetic, near in ((alike, True), (noise, False)):
        sets = CubeSets(reference, held, synthetic, wavelengths, resamples=10, seed=0)
        fid = sets.frechet(RandomCubeFeatures(reference, seed=0, channels=8))
        angle = sets.correlation()
        assert (fid.synthetic.value < 3 * fid.floor.value) == near
        assert (angle.synthetic.value < 0.1) == near
    copied = CubeSets(reference, held, reference[:20], wavelengths, resamples=10, seed=0)
    shares = copied.authenticity(8)
    assert shares.synthetic.value == 0 < shares.floor.value
    assert copied.similarity(8).synthetic.n > 0
