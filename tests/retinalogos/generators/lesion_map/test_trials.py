"""Folds of patients, what each arm trains on, and that nobody is judged on an eye of a patient that it has seen."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import trials
from retinalogos.generators.lesion_map.configuration import SegmenterConfig

GRADER = GraderConfig(
    backbone="small", size=32, widths=(8, 16), features=32, steps=2, batch_size=8, learning_rate=0.002,
    weight_decay=0.05, validate_every=2, rotation=0, zoom=0, brightness=0, colour=0, flip_swaps={},
)  # fmt: skip
SEGMENTER = SegmenterConfig(widths=(8, 8), steps=3, batch_size=2, learning_rate=0.01, weight_decay=0.0)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), min_size=12, max_size=60), st.integers(2, 5))
@settings(max_examples=40)
@example([(0, 0)] * 4 + [(0, 1)] * 4 + [(1, 2), (2, 2), (3, 2), (4, 2)], 5)
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_folds_are_disjoint_by_patient_and_cover_all(eyes, count) -> None:
    patients, grades = (np.array(column) for column in zip(*eyes, strict=True))
    if len(set(patients.tolist())) < count:
        with pytest.raises(DataError, match="set fewer folds"):
            trials.patient_folds(patients, grades, count, 0)
        return
    folds = trials.patient_folds(patients, grades, count, 0)
    for train, left_out in folds:
        assert not set(patients[train].tolist()) & set(patients[left_out].tolist())
        assert sorted([*train, *left_out]) == list(range(len(patients)))
    assert sorted(np.concatenate([left_out for _, left_out in folds])) == list(range(len(patients)))


def test_what_each_arm_trains_on() -> None:
    real = np.repeat([0, 1, 2, 3, 4], [10, 2, 6, 4, 3])
    synthetic = np.repeat([0, 1, 2, 3, 4], 20)

    def counts(arm: str) -> tuple[list[int], list[int]]:
        rows, added = trials.grading_rows(arm, real, synthetic, 0)
        assert len(set(added.tolist())) == len(added), "no synthetic eye twice"
        return np.bincount(real[rows], minlength=5).tolist(), np.bincount(synthetic[added], minlength=5).tolist()

    nothing = [0] * 5
    assert counts("real") == ([10, 2, 6, 4, 3], nothing)
    assert counts("undersampled") == ([2] * 5, nothing)
    assert counts("oversampled") == ([10] * 5, nothing)
    assert counts("padded") == ([10, 2, 6, 4, 3], [0, 8, 4, 6, 7])


def test_trials_give_figures_for_every_arm(eyes) -> None:
    halves = np.arange(len(eyes)) % 2
    people = np.array([f"p{k}" for k in range(len(eyes))], object)
    eyes = type(eyes)(eyes.candidates, eyes.images, eyes.grades, people, eyes.ids)
    train, test = eyes.take(halves == 0), eyes.take(halves == 1)
    graded = trials.try_grading(train, test, test, GRADER, 3, 0, 5)
    assert set(graded) == set(trials.GRADING_ARMS)
    assert all(each.values["accuracy"].shape == (3,) for each in graded.values())
    found = trials.try_segmentation(train, test, test, SEGMENTER, 3, 0, 5)
    assert set(found) == set(trials.SEGMENTATION_ARMS)
    for each in found.values():
        assert each.values["OD"].shape == (3,)
        assert 0 <= each.estimates()["OD"].value <= 1


def test_all_arms_of_a_segmentation_have_the_same_number_of_steps(eyes, monkeypatch) -> None:
    people = np.array([f"p{k}" for k in range(len(eyes))], object)
    eyes = type(eyes)(eyes.candidates, eyes.images, eyes.grades, people, eyes.ids)
    train, test, drawn = (eyes.take(np.arange(*each)) for each in ((0, 9), (9, 12), (12, 24)))
    fit, spent = trials.fit_segmenter, {}

    def counted(candidates, images, config, seed, start=None):
        network = fit(candidates, images, config, seed, start)
        which = "drawn" if len(images) == len(drawn) else "real"
        spent[network] = [*spent.get(start, []), (which, config.steps)]
        return network

    monkeypatch.setattr(trials, "fit_segmenter", counted)
    judged = []
    monkeypatch.setattr(trials.Segmenter, "find", lambda self, images: judged.append(self) or test.classes)
    trials.try_segmentation(train, drawn, test, SEGMENTER, 3, 0, 5)
    arms = [spent[network] for network in judged]
    assert arms == 3 * [[("real", 3)], [("drawn", 3)], [("drawn", 1), ("real", 2)]]


def test_eyes_of_one_patient_on_both_sides_are_refused(eyes) -> None:
    with pytest.raises(DataError, match="to train on and to be judged on"):
        trials.try_grading(eyes, eyes, eyes.take([0]), GRADER, 3, 0, 0)
    with pytest.raises(DataError, match="to train on and to be judged on"):
        trials.try_segmentation(eyes, eyes, eyes.take([0]), SEGMENTER, 3, 0, 0)
