"""Spectra with known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.errors import UsageError
from retinalogos.phantom.spectra import (
    DEFAULT_WAVELENGTHS,
    Fundus,
    blood,
    extinction,
    macular_pigment,
    media,
    melanin,
    reflectance,
    saturation,
)


@pytest.mark.parametrize("nm", [500, 530, 545, 570, 584, 797])
def test_blood_of_any_saturation_is_alike_at_isosbestic_points(nm: float) -> None:
    """As listed by Zijlstra et al. and others: near these wavelengths the curves cross."""
    near = np.arange(nm - 5, nm + 6, 1.0)
    oxygenated, deoxygenated = extinction(near)
    difference = oxygenated - deoxygenated
    assert (difference[0] < 0) != (difference[-1] < 0) or np.abs(difference / deoxygenated).min() < 0.03


def test_blood_is_what_the_table_says() -> None:
    """150 g/l: 2.303·ε·150/64500 per cm is the conversion that goes with the table."""
    assert blood([560.0], 1.0)[0] == pytest.approx(32613.2 * 150 / 64500 / 10)
    assert blood([660.0], 0.0)[0] > 5 * blood([660.0], 1.0)[0], "venous blood is dark in red light"
    assert blood([905.0], 1.0)[0] > blood([905.0], 0.0)[0], "and arterial in the infrared"


def test_pigments_are_relative_to_where_they_are_given() -> None:
    assert melanin([500.0])[0] == pytest.approx(1)
    assert macular_pigment([460.0])[0] == pytest.approx(1)
    assert (np.diff(melanin(DEFAULT_WAVELENGTHS)) < 0).all()
    assert macular_pigment([560.0])[0] < 0.001


def test_the_lens_yellows_with_age_and_water_absorbs_infrared() -> None:
    young, old = (media(DEFAULT_WAVELENGTHS, age) for age in (20, 80))
    assert old[0] - young[0] > 0.3
    assert (old >= young).all()
    assert old[-1] - young[-1] < 0.05
    assert young[-1] > young[9], "905 nm against 723 nm"


@given(
    arterial=st.floats(0, 1),
    path=st.floats(0.01, 0.3),
    scattered=st.floats(-0.2, 0.2),
    bands=st.integers(4, 24),
)
@settings(max_examples=40, deadline=None)
def test_saturation_comes_back_without_noise(arterial: float, path: float, scattered: float, bands: int) -> None:
    wavelengths = np.linspace(470, 700, bands)
    density = path * blood(wavelengths, arterial) + scattered
    assert saturation(density, wavelengths) == pytest.approx(arterial, abs=1e-6)


def test_no_blood_has_no_saturation() -> None:
    assert np.isnan(saturation(-blood(DEFAULT_WAVELENGTHS, 0.5), DEFAULT_WAVELENGTHS))


def test_more_pigment_is_darker_and_the_infrared_comes_through() -> None:
    light, dark = (reflectance(Fundus(density, 0.17, 0.95, 0.0, 0.0), DEFAULT_WAVELENGTHS) for density in (0.5, 1.7))
    assert (dark < light).all()
    assert 0.005 < dark[3] < 0.1, "green: a per cent or two, as measured on dark fundi"
    assert 0.1 < light[-1] < 0.5


@pytest.mark.parametrize("wrong", [[], [500, 450], [400, 500], [500, 950], [500, float("nan")]])
def test_wavelengths_that_are_not_known_are_refused(wrong: list[float]) -> None:
    with pytest.raises(UsageError, match="wavelengths"):
        extinction(wrong)


def test_two_bands_do_not_tell_saturation() -> None:
    with pytest.raises(UsageError, match="three bands"):
        saturation(np.zeros(2), [500, 600])
