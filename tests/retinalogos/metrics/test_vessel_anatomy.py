"""Vessel anatomy and overlap on shapes whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from retinalogos.metrics.overlap import centre_line_dice, dice
from retinalogos.metrics.vessels import anatomy
from retinalogos.metrics.vessels.skeleton import EIGHT, thin, trace

SIDE = 160


def bar(start: tuple[float, float], end: tuple[float, float], width: float, side: int = SIDE) -> np.ndarray:
    """A straight vessel; points are row and column."""
    grid = np.moveaxis(np.indices((side, side)), 0, -1) - np.array(start)
    axis = np.subtract(end, start)
    length = float(np.linalg.norm(axis))
    along, across = grid @ (axis / length), grid @ (np.array([-axis[1], axis[0]]) / length)
    return (along >= 0) & (along <= length) & (np.abs(across) <= width / 2)


def fork(half_angle: float, parent: float, child: float) -> np.ndarray:
    """A vessel from below that divides in the middle."""
    centre = (90.0, 80.0)
    mask = bar((155, 80), centre, parent)
    for side in (-1, 1):
        end = (
            90 - 80 * math.cos(math.radians(half_angle)),
            80 + side * 80 * math.sin(math.radians(half_angle)),
        )
        mask |= bar(centre, end, child)
    return mask


@pytest.mark.parametrize("angle", [0, 10, 22, 30, 70])
@pytest.mark.parametrize("width", [5.0, 9.0])
def test_calibre_and_tortuosity_of_a_straight_vessel(angle: int, width: float) -> None:
    turn = 60 * np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    tree = trace(bar(tuple(80 - turn), tuple(80 + turn), width))
    assert len(tree.stretches) == 1
    assert tree.stretches[0].calibre == pytest.approx(width, rel=0.06)
    assert anatomy.tortuosity(tree) == pytest.approx(1, abs=0.04)


def test_tortuosity_of_a_half_circle_is_half_pi() -> None:
    rows, columns = np.indices((SIDE, SIDE))
    radius = np.hypot(rows - 80, columns - 80)
    assert anatomy.tortuosity(trace((np.abs(radius - 60) <= 2) & (rows >= 80))) == pytest.approx(math.pi / 2, rel=0.02)


@pytest.mark.parametrize("half_angle", [25, 35, 45])
def test_branching_angle(half_angle: int) -> None:
    assert anatomy.branching_angle(trace(fork(half_angle, 7, 5))) == pytest.approx(2 * half_angle, abs=8)


@pytest.mark.parametrize("exponent", [2.5, 3.0])
def test_murray_exponent(exponent: float) -> None:
    tree = trace(fork(35, 15, 15 * 2 ** (-1 / exponent)))
    assert anatomy.murray_exponent(tree) == pytest.approx(exponent, rel=0.12)


def test_fractal_dimension() -> None:
    rows, columns = np.indices((256, 256))
    assert anatomy.fractal_dimension((rows & columns) == 0) == pytest.approx(math.log2(3), abs=1e-6)
    assert anatomy.fractal_dimension(np.ones((256, 256), bool)) == pytest.approx(2, abs=1e-6)
    assert anatomy.fractal_dimension(rows == columns) == pytest.approx(1, abs=1e-6)
    assert math.isnan(anatomy.fractal_dimension(np.zeros((64, 64), bool)))


def test_fragments_and_loops() -> None:
    rows, columns = np.indices((SIDE, SIDE))
    ring = np.abs(np.hypot(rows - 60, columns - 60) - 30) <= 2
    assert (anatomy.fragments(ring), anatomy.loops(ring)) == (1, 1)
    assert (anatomy.fragments(ring | bar((130, 10), (130, 150), 3)), anatomy.loops(fork(35, 7, 5))) == (2, 0)
    corner = np.zeros((4, 4), bool)
    corner[0, 0] = corner[1, 1] = True
    assert anatomy.fragments(corner) == 1


def test_central_equivalent_by_hand() -> None:
    """Six vessels of width w give c·√2·w three times, then c²·2·w and one waiting: worked out on paper."""
    c = 0.88
    first = c * math.sqrt(2)
    second = sorted([c * math.hypot(first, first), first], reverse=True)
    assert anatomy.central_equivalent([1.0] * 6, "artery") == pytest.approx(c * math.hypot(*second))
    assert math.isnan(anatomy.central_equivalent([1.0] * 5, "artery"))


def test_arcade_angle() -> None:
    disc, fovea = (80.0, 40.0), (80.0, 120.0)
    mask = np.zeros((SIDE, SIDE), bool)
    for turn in (-60, 50):
        away = 75 * np.array([math.sin(math.radians(turn)), math.cos(math.radians(turn))])
        mask |= bar(disc, tuple(np.array(disc) + away), 5)
    # A twig nearer to the macula is narrower and does not count.
    mask |= bar(disc, (disc[0] - 20, disc[1] + 70), 1.5)
    assert anatomy.arcade_angle(mask, disc, fovea) == pytest.approx(110, abs=3)
    assert anatomy.arcade_angle(mask[:, ::-1], (80.0, 119.0), (80.0, 39.0)) == pytest.approx(110, abs=3)
    assert math.isnan(anatomy.arcade_angle(bar(disc, (20, 60), 5), disc, fovea))


def test_measure_of_an_empty_eye_is_defined_where_it_can_be() -> None:
    found = anatomy.measure(np.zeros((2, 64, 64), bool))
    assert found["artery_density"] == found["vein_fragments"] == 0
    assert math.isnan(found["artery_calibre"])
    assert math.isnan(found["calibre_ratio"])


def test_widths_come_back_as_the_calibre_ratio() -> None:
    eye = np.stack([bar((40, 10), (40, 150), 6), bar((110, 10), (110, 150), 9)])
    assert anatomy.measure(eye)["calibre_ratio"] == pytest.approx(7 / 9, rel=0.02)  # whole pixels: 7 and 9 rows


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 3.0))
def test_thinning_keeps_what_hangs_together(seed: int, sigma: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((40, 40)), sigma)
    mask = noise > noise.std()
    line = thin(mask)
    assert not (line & ~mask).any()
    labels, count = ndimage.label(mask, EIGHT)
    assert anatomy.fragments(line) == count
    assert all(line[labels == i].any() for i in range(1, count + 1))


def test_overlap() -> None:
    vessel, moved = bar((80, 10), (80, 150), 8), bar((81, 10), (81, 150), 8)
    assert dice(vessel, vessel) == centre_line_dice(vessel, vessel) == 1
    assert dice(vessel, moved) == pytest.approx(8 / 9, abs=0.01)
    # A thinner find keeps the centre line; half a vessel does not.
    assert centre_line_dice(bar((80, 10), (80, 150), 4), vessel) == pytest.approx(1)
    assert centre_line_dice(bar((80, 10), (80, 80), 8), vessel) == pytest.approx(2 / 3, abs=0.03)
    assert math.isnan(dice(vessel & False, vessel & False))
    assert centre_line_dice(vessel & False, vessel) == 0
