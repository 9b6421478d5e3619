"""Records: distributions, the rules of the grades, and what the cohort gets to know."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import GLAUCOMA, TABLE_COLUMNS
from retinalogos.errors import UsageError
from retinalogos.phantom import LESION_CLASSES, PhantomRecord, sample_records
from retinalogos.phantom.geometry import FIELD_RADIUS, area, quadrant
from retinalogos.phantom.lesions import lesion_loads, place_lesions


@pytest.fixture(scope="module")
def cohort() -> list[PhantomRecord]:
    return sample_records(1200, seed=3)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 25), more=st.integers(0, 10))
@settings(max_examples=15)
def test_records_depend_on_the_seed_alone_and_a_longer_cohort_begins_with_the_shorter(
    seed: int, n: int, more: int
) -> None:
    assert sample_records(n, seed) == sample_records(n + more, seed)[:n]
    assert sample_records(n, seed) != sample_records(n, seed + 1)


def test_fellow_eyes_share_what_belongs_to_the_patient(cohort: list[PhantomRecord]) -> None:
    patients: dict[str, list[PhantomRecord]] = {}
    for record in cohort:
        patients.setdefault(record.patient_id, []).append(record)
    pairs = [eyes for eyes in patients.values() if len(eyes) == 2]
    assert len(pairs) / len(patients) == pytest.approx(0.9, abs=0.05)
    for left, right in pairs:
        assert (left.eye, right.eye) == ("left", "right")
        for shared in ("age", "sex", "colour", "melanin", "tessellation", "vein_um", "tortuosity"):
            assert getattr(left, shared) == getattr(right, shared)
        assert abs(left.dr_grade - right.dr_grade) <= 1
        assert left.seed != right.seed


def test_every_class_is_large_enough_to_train_on(cohort: list[PhantomRecord]) -> None:
    grades = np.bincount([record.dr_grade for record in cohort], minlength=5)
    assert grades.min() >= 100
    glaucoma = [record.glaucoma for record in cohort]
    assert glaucoma.count("glaucoma") >= 150
    assert set(glaucoma) == set(GLAUCOMA)


def test_weights_are_obeyed_and_checked() -> None:
    assert {r.dr_grade for r in sample_records(20, 0, grade_weights=(1, 0, 0, 0, 0))} == {0}
    assert {r.glaucoma for r in sample_records(20, 0, glaucoma_weights=(1, 0, 0))} == {"no"}
    for wrong in ((1, 0, 0), (0, 0, 0, 0, 0), (1, -1, 1, 1, 1)):
        with pytest.raises(UsageError, match="grade_weights"):
            sample_records(2, 0, grade_weights=wrong)
    with pytest.raises(UsageError, match="at least one"):
        sample_records(0, 0)


def test_grades_follow_the_icdr_scale(cohort: list[PhantomRecord]) -> None:
    for record in cohort:
        severe = min(record.haemorrhages) > 20 or len(record.beaded_quadrants) >= 2 or len(record.irma_quadrants) >= 1
        proliferative = (
            record.neovascular_disc
            or record.neovascular_elsewhere > 0
            or record.preretinal_haemorrhage
            or record.vitreous_haemorrhage
        )
        other = sum(record.haemorrhages) + record.exudate_clusters + record.soft_exudates
        assert proliferative == (record.dr_grade == 4)
        if record.dr_grade == 0:
            assert record.microaneurysms == 0
        if record.dr_grade < 2:
            assert other == 0
        if record.dr_grade < 3:
            assert not severe
        if record.dr_grade == 1:
            assert record.microaneurysms > 0
        if record.dr_grade == 2:
            assert other > 0
        if record.dr_grade == 3:
            assert severe


def test_haemorrhages_lie_in_the_quadrants_that_the_record_names(cohort: list[PhantomRecord]) -> None:
    severe = [r for r in cohort if r.dr_grade == 3 and min(r.haemorrhages) > 20 and not r.disc_haemorrhage][:5]
    assert severe
    index = LESION_CLASSES.index("haemorrhage")
    for record in severe:
        centres = np.stack(
            [outline.mean(0) for outline in place_lesions(replace(record, flame_share=0.0)).outlines[index]]
        )
        # The outline's mean may fall over a meridian that its centre does not.
        assert np.abs(np.bincount(quadrant(centres), minlength=4) - record.haemorrhages).max() <= 2


def test_lesion_load_grows_with_the_grade(cohort: list[PhantomRecord]) -> None:
    red = {grade: [] for grade in range(5)}
    for record in cohort[:400]:
        red[record.dr_grade].append(sum(lesion_loads(replace(record, disc_haemorrhage=False))[1][:2]))
    medians = [np.median(red[grade]) for grade in range(5)]
    assert medians[0] == 0 < medians[1] < medians[2] < min(medians[3:])


def test_microaneurysms_measure_25_to_125_micrometres(cohort: list[PhantomRecord]) -> None:
    diameters = [
        2000 * np.sqrt(area(outline) / np.pi)
        for record in cohort[:150]
        for outline in place_lesions(record).outlines[LESION_CLASSES.index("microaneurysm")]
    ]
    assert len(diameters) > 100
    # A ten-sided outline with 4 % roughness has a little less area than its circle.
    assert min(diameters) > 25 * 0.93
    assert max(diameters) < 125 * 1.05
    assert np.max(diameters) - np.min(diameters) > 60


def test_macular_oedema_means_exudates_within_a_disc_diameter_of_the_fovea(cohort: list[PhantomRecord]) -> None:
    wet, dry = 0, 0
    for record in cohort[:500]:
        outlines = place_lesions(record).outlines[LESION_CLASSES.index("hard_exudate")]
        if not outlines:
            continue
        nearest = min(float(np.hypot(*(o.mean(0) - record.fovea))) for o in outlines)
        if record.dme:
            wet += 1
            assert nearest < record.disc_size[1]
        else:
            dry += 1
            assert nearest > 0.98 * record.disc_size[1]
    assert wet > 10
    assert dry > 10


def test_rim_follows_isnt_in_health_and_is_lost_in_that_order(cohort: list[PhantomRecord]) -> None:
    for record in cohort[:400]:
        before = replace(record, vcdr=record.vcdr_before).rim_mm
        assert before["inferior"] > before["superior"] > before["nasal"] > before["temporal"] > 0
        if record.glaucoma == "glaucoma":
            loss = {pole: before[pole] - width for pole, width in record.rim_mm.items()}
            assert loss["inferior"] > loss["superior"] > loss["nasal"] > loss["temporal"] > 0
            assert record.vcdr > 0.65
        if record.glaucoma == "no":
            assert record.vcdr < 0.56


def test_geometry_agrees_with_its_sources(cohort: list[PhantomRecord]) -> None:
    height = np.array([r.disc_size[1] for r in cohort])
    width = np.array([r.disc_size[0] for r in cohort])
    distance = np.array([r.disc_fovea_mm for r in cohort])
    assert height.mean() == pytest.approx(1.83, abs=0.05)
    assert width.mean() == pytest.approx(1.63, abs=0.08)
    assert (distance / (height + width) * 2).mean() == pytest.approx(2.65, abs=0.25)
    assert np.mean([r.vcdr for r in cohort if r.glaucoma == "no"]) == pytest.approx(0.37, abs=0.03)
    assert np.mean([r.arteriole_venule_ratio for r in cohort]) == pytest.approx(2 / 3, abs=0.02)
    for record in cohort:
        assert np.hypot(*record.disc) + record.disc_size[1] / 2 < FIELD_RADIUS + 0.3
        assert record.disc[0] < -0.9 < record.fovea[0]
        assert record.disc[1] < record.fovea[1]


def test_cohort_rows_fit_the_schema(cohort: list[PhantomRecord]) -> None:
    for record in cohort[:60]:
        row = record.cohort_row()
        assert set(row) <= set(TABLE_COLUMNS)
        assert set(row["findings"]) <= set(FINDINGS)
        assert ("macular_oedema" in row["findings"]) == (row["dme"] == 1)
        truth = json.loads(row["truth"])
        assert (truth["disc_x"] < 0.5) == (row["eye"] == "left") == (truth["disc_side"] == "left")
        assert truth["fovea_y"] > truth["disc_y"]
        assert set(truth["lesion_areas"]) == set(truth["lesion_counts"]) == set(LESION_CLASSES[1:])
        assert record.patient_id not in row["truth"]
        assert row == record.cohort_row()
