"""How well found vessels agree with drawn ones, and drawn anatomy with real, each with its interval."""

import numpy as np
import pytest

from retinalogos.generators.vessel_map.agreement import kind_accuracy, summary
from retinalogos.generators.vessel_map.judgement import Measured, compare
from retinalogos.metrics.intervals import Estimate


def test_kind_accuracy_counts_found_pixels_alone() -> None:
    truth = np.zeros((2, 4, 4), bool)
    truth[0, 0], truth[1, 1] = True, True
    found = np.zeros((2, 4, 4), bool)
    found[0, 0], found[0, 1, :2] = True, True  # half of the vein is called an artery, half is missed
    assert kind_accuracy(found, truth) == pytest.approx(4 / 6)


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


def test_two_eyes_of_a_patient_count_as_one_where_they_are_alike() -> None:
    values = np.random.default_rng(0).normal(size=40)
    rows = [{"dice": float(value)} for value in np.repeat(values, 2)]
    patients = [f"patient{i // 2}" for i in range(80)]
    by_patient, by_eye = (
        summary(rows, of, resamples=500, seed=0)["dice"] for of in (patients, [str(i) for i in range(80)])
    )
    assert by_patient.value == by_eye.value
    assert width(by_patient) == pytest.approx(2**0.5 * width(by_eye), rel=0.2)
    real, other = Measured(rows, patients), Measured([{"dice": row["dice"] + 1} for row in rows], patients)
    compared = compare(real, other, real, resamples=500, seed=0)["dice"]
    assert compared["difference"].value == pytest.approx(1)
    assert width(compared["difference"]) == pytest.approx(2**0.5 * width(by_patient), rel=0.2)
    assert compared["floor"] == 0
