from dataclasses import replace

import numpy as np
import pytest

from retinalogos.errors import DataError
from retinalogos.metrics import counterfactual
from retinalogos.metrics.observation import Measured
from retinalogos.phantom import draw, sample_records

HEALTHY = {"eye": "left", "dr_grade": 0, "dme": 0, "glaucoma": "no", "vcdr": 0.3, "findings": ["drusen"]}
ROWS = [
    HEALTHY,
    {**HEALTHY, "eye": "right", "findings": None},
    {**HEALTHY, "dr_grade": 4, "dme": 1, "findings": ["neovascularisation", "rim_notch"]},
    {**HEALTHY, "glaucoma": "glaucoma", "vcdr": 0.8, "findings": ["rim_notch", "haemorrhage"]},
]


def test_wishes_change_one_attribute_and_what_comes_with_it() -> None:
    asked = counterfactual.wishes(ROWS, pairs=8, seed=0)
    assert {row["eye"] for row in asked.plain} == {"left", "right"}
    assert set(asked.changed) == {"eye", "dr_grade", "glaucoma"}
    for number, row in enumerate(asked.plain):
        assert (row["dr_grade"], row["glaucoma"]) == (0, "no")
        side, diabetic, glaucomatous = (asked.changed[name][number] for name in ("eye", "dr_grade", "glaucoma"))
        other = "right" if row["eye"] == "left" else "left"
        assert side == {**row, "eye": other}
        assert asked.signs["eye"][number] == (1 if other == "right" else -1)
        own = row["findings"] or []
        assert diabetic == {**row, "dr_grade": 4, "dme": 1, "findings": [*own, "neovascularisation"]}
        assert glaucomatous == {**row, "glaucoma": "glaucoma", "vcdr": 0.8, "findings": [*own, "rim_notch"]}


def test_wishes_leave_out_diseases_that_the_cohort_lacks() -> None:
    assert set(counterfactual.wishes(ROWS[:2], pairs=2, seed=0).changed) == {"eye"}
    with pytest.raises(DataError, match="known side without retinopathy"):
        counterfactual.wishes(ROWS[2:], pairs=2, seed=0)


def test_scores_rise_with_what_is_seen() -> None:
    seen = {"eye": np.array([[1.0, 0], [0, 1]]), "dr_grade": np.array([[1.0, 0, 0, 0, 0], [0, 0, 0.5, 0, 0.5]])}
    scores = counterfactual.judge_scores(seen)
    np.testing.assert_allclose(scores["eye"], [0, 1])
    np.testing.assert_allclose(scores["dr_grade"], [0, 0.75])
    sides = np.array(["left", "right", None], dtype=object)
    unseen = np.full(3, np.nan)
    found = Measured(sides, np.array([0.2, 0.6, np.nan]), np.array([0, 0.1, np.nan]), unseen, unseen)
    measured = counterfactual.measured_scores(found)
    np.testing.assert_array_equal(measured["eye"], [0, 1, np.nan])
    np.testing.assert_array_equal(measured["glaucoma"], [0.2, 0.6, np.nan])


def test_an_obedient_generator_and_one_that_does_not_listen_are_told_apart() -> None:
    # The phantom as a generator: its record's seed draws the vessels, its attributes what is asked for.
    records = [replace(record, eye="left", glaucoma="no") for record in sample_records(5, seed=0)]
    others = [replace(record, eye="left", glaucoma="no") for record in sample_records(5, seed=1)]

    def drawn(some: list) -> np.ndarray:
        return np.stack([eye.image for eye in draw(some, 96)])

    plain, other_seed = drawn(records), drawn(others)
    changed = {
        "eye": drawn([replace(record, eye="right") for record in records]),
        "glaucoma": drawn([replace(record, vcdr=0.85) for record in records]),
        "dr_grade": plain,  # does not listen
    }
    signs = {name: np.ones(5) for name in changed}

    def truth(images: np.ndarray) -> counterfactual.Scores:
        known = {image.tobytes(): record for image, record in zip(plain, records, strict=True)}
        known |= {image.tobytes(): record for image, record in zip(other_seed, others, strict=True)}
        known |= {image.tobytes(): replace(r, eye="right") for image, r in zip(changed["eye"], records, strict=True)}
        known |= {image.tobytes(): replace(r, vcdr=0.85) for image, r in zip(changed["glaucoma"], records, strict=True)}
        found = [known[image.tobytes()] for image in images]
        return {
            "eye": np.array([float(record.eye == "right") for record in found]),
            "glaucoma": np.array([record.vcdr for record in found]),
            "dr_grade": np.array([record.dr_grade / 4 for record in found]),
        }

    result = counterfactual.compare(plain, changed, other_seed, signs, {"truth": truth}, resamples=50, seed=0)
    eye, cup, grade = (result[name] for name in ("eye", "glaucoma", "dr_grade"))
    assert eye["truth"]["target"]["changed"].value == 1
    assert eye["truth"]["target"]["other_seed"].value == 0
    assert {name: figures["changed"].value for name, figures in eye["truth"]["others"].items()} == {
        "glaucoma": 0,
        "dr_grade": 0,
    }
    assert cup["truth"]["target"]["changed"].low > 0
    assert grade["truth"]["target"]["changed"].value == 0
    for figures in (eye, cup, grade):
        assert figures["vessels"]["changed"].value > figures["vessels"]["other_seed"].value + 0.2
    assert grade["vessels"]["changed"].value == pytest.approx(1, abs=1e-4)
