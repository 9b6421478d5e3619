"""Drawn cubes: determinism, truth, and what camera and marker do."""

from dataclasses import replace

import numpy as np
import pytest

from retinalogos.metrics.cubes import vessel_saturation
from retinalogos.phantom import sample_records
from retinalogos.phantom.cubes import Camera, PhantomCube, draw_cube, saturations
from retinalogos.phantom.spectra import DEFAULT_WAVELENGTHS

CAMERA = Camera(electrons=4000, jitter=0.1)
PLAIN = {"blur_mm": 0.0, "haze": 0.0, "glow": 0.0, "field_cut": 0.0}


@pytest.fixture(scope="module")
def record():
    return replace(sample_records(1, 3, grade_weights=(1, 0, 0, 0, 0))[0], **PLAIN)


@pytest.fixture(scope="module")
def clean(record) -> PhantomCube:
    return draw_cube(record, 64, DEFAULT_WAVELENGTHS, None)


def test_a_cube_is_a_function_of_its_record(record, clean) -> None:
    again = draw_cube(record, 64, DEFAULT_WAVELENGTHS, None)
    assert np.array_equal(clean.reflectance, again.reflectance)
    assert clean.reflectance.shape == (16, 64, 64)
    assert 0 <= clean.reflectance.min() <= clean.reflectance.max() <= 1
    assert not clean.reflectance[:, :3, :3].any(), "nothing is seen outside the field"
    assert (clean.artery_saturation, clean.vein_saturation) == saturations(record)


def test_structures_look_as_they_do_in_life(clean) -> None:
    green, red = clean.reflectance[3], clean.reflectance[6]
    eye = clean.eye
    beside = (eye.vessels == 0) & (eye.disc_cup == 0) & (eye.fov > 0)
    artery, vein = ((eye.vessels == kind) & (eye.disc_cup == 0) for kind in (1, 2))
    assert green[vein].mean() < green[artery].mean() < green[beside].mean()
    assert red[vein].mean() < 0.98 * red[beside].mean(), "veins are dark in red light, arteries hardly"
    assert red[artery].mean() > red[vein].mean()
    assert green[eye.disc_cup > 0].mean() > 2 * green[beside].mean()


def test_saturation_of_its_vessels_is_found_again_but_for_partial_pixels(clean) -> None:
    values = np.rint(clean.reflectance * 65535).astype(np.uint16)
    classes = np.where(clean.eye.disc_cup > 0, 3, clean.eye.vessels)
    artery, vein = (vessel_saturation(values, classes, kind, DEFAULT_WAVELENGTHS) for kind in (1, 2))
    assert artery == pytest.approx(clean.artery_saturation, abs=0.2)
    assert vein == pytest.approx(clean.vein_saturation, abs=0.2)
    assert artery > vein + 0.1


def test_the_camera_adds_noise_of_the_size_asked_for(record, clean) -> None:
    taken = draw_cube(record, 64, DEFAULT_WAVELENGTHS, Camera(electrons=400, jitter=0))
    inside = clean.reflectance[9] > 0
    off = (taken.reflectance - clean.reflectance)[9][inside]
    # Shot noise at reflectance R of a band's mean M is √(R·M / electrons).
    wanted = np.sqrt(clean.reflectance[9][inside] * clean.reflectance[9].mean() / 400)
    assert np.std(off / wanted) == pytest.approx(1, abs=0.05)


def test_the_planted_marker_lies_beside_vessels_and_in_short_waves(record, clean) -> None:
    marked = draw_cube(record, 64, DEFAULT_WAVELENGTHS, None, marker=0.2)
    taken = 1 - marked.reflectance[:, clean.eye.vessels > 0].mean(1) / clean.reflectance[:, clean.eye.vessels > 0].mean(
        1
    )
    assert 0.08 < taken[0] <= 0.2
    assert (np.diff(taken) < 0).all()
    assert taken[-1] < 0.02
