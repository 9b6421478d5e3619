"""The trees: Murray's law, calibres, paths."""

from dataclasses import replace

import numpy as np
import pytest

from retinalogos.phantom import PhantomRecord, sample_records
from retinalogos.phantom.geometry import FIELD_RADIUS
from retinalogos.phantom.vessels import ARTERY, VEIN, Vessel, grow_vessels


@pytest.fixture(scope="module")
def trees() -> list[tuple[PhantomRecord, list[Vessel]]]:
    return [(record, grow_vessels(record)) for record in sample_records(30, seed=8)]


def test_calibres_obey_murrays_law_at_every_branching(trees: list[tuple[PhantomRecord, list[Vessel]]]) -> None:
    joints = 0
    for record, vessels in trees:
        x = record.junction_exponent
        assert 2.5 <= x <= 3.1
        for vessel in vessels:
            for _, before, after, branch in vessel.branchings:
                joints += 1
                assert after**x + branch**x == pytest.approx(before**x, rel=1e-6)
                assert branch < before
    assert joints > 1000


def test_branches_begin_on_their_parents_with_the_calibre_left_to_them(
    trees: list[tuple[PhantomRecord, list[Vessel]]],
) -> None:
    for _, vessels in trees[:8]:
        for kind in (ARTERY, VEIN):
            trunks = [v for v in vessels if v.kind == kind and v.generation == 0]
            origins = {tuple(np.round(v.path[i], 9)): branch for v in trunks for i, _, _, branch in v.branchings}
            for child in (v for v in vessels if v.kind == kind and v.generation == 1):
                calibre = origins[tuple(np.round(child.path[0], 9))]
                assert child.width.max() <= calibre * (1.43 if kind == VEIN else 1.001)


def test_arterioles_are_two_thirds_as_wide_as_venules(trees: list[tuple[PhantomRecord, list[Vessel]]]) -> None:
    ratios = []
    for record, _ in trees:
        vessels = grow_vessels(replace(record, beaded_quadrants=()))
        widest = {
            kind: np.mean(sorted(v.width[4] for v in vessels if v.kind == kind and v.generation == 0)[-2:])
            for kind in (ARTERY, VEIN)
        }
        ratios.append(widest[ARTERY] / widest[VEIN])
        assert 0.125 * 0.9 < widest[VEIN] < 0.190 * 1.1
    assert np.mean(ratios) == pytest.approx(2 / 3, abs=0.03)


def test_trunks_leave_the_disc_and_spare_the_avascular_zone(trees: list[tuple[PhantomRecord, list[Vessel]]]) -> None:
    for record, vessels in trees:
        for vessel in vessels:
            assert np.hypot(*(vessel.path - record.fovea).T).min() >= 0.39
            assert np.hypot(*vessel.path.T).max() < FIELD_RADIUS + 0.9
            if vessel.generation == 0:
                offset = (vessel.path[0] - record.disc) / (np.array(record.disc_size) / 2)
                assert np.hypot(*offset) < 1
                assert offset[0] < 0.1  # the nasal half


def test_arcades_pass_above_and_below_the_macula(trees: list[tuple[PhantomRecord, list[Vessel]]]) -> None:
    for record, vessels in trees:
        # Half way from disc to fovea, where no arcade has left the field yet.
        x = (record.disc[0] + record.fovea[0]) / 2
        middle = (record.disc[1] + record.fovea[1]) / 2
        for kind in (ARTERY, VEIN):
            trunks = [v.path for v in vessels if v.kind == kind and v.generation == 0 and v.path[:, 0].max() > x]
            heights = [float(np.interp(x, path[:, 0], path[:, 1])) - middle for path in trunks]
            assert min(heights) < -1.2
            assert max(heights) > 1.2


def test_beading_is_in_the_named_quadrants_of_the_veins_alone() -> None:
    record = replace(sample_records(1, 4)[0], beaded_quadrants=(1, 3))
    plain = grow_vessels(replace(record, beaded_quadrants=()))
    for vessel, other in zip(grow_vessels(record), plain, strict=True):
        changed = ~np.isclose(vessel.width, other.width)
        if vessel.kind == ARTERY:
            assert not changed.any()
        else:
            assert (vessel.path[changed][:, 0] > 0).all()
    assert any((v.width > 1.2 * o.width).any() for v, o in zip(grow_vessels(record), plain, strict=True))
