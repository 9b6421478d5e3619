"""The comparison: who may stand where, what each arm trains on, and what is told of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from retinalogos.classifiers import experiment
from retinalogos.classifiers.experiment import Arm, Sample
from retinalogos.errors import DataError


@pytest.fixture(scope="module")
def sample(eyes):
    """A function: n eyes with ids of their own, two eyes a patient, labels of the two tasks."""

    def draw(name: str, n: int, seed: int, synthetic: bool = False) -> Sample:
        images, labels = eyes(n, seed)
        ids = np.array([f"{name}{row:04d}" for row in range(n)])
        return Sample(
            image_id=ids,
            patient_id=np.array([f"{name}-patient{row // 2}" for row in range(n)]),
            group=ids.copy(),
            synthetic=np.full(n, synthetic),
            images=images,
            labels={task: labels[task] for task in experiment.TASKS},
        )

    return draw


@pytest.fixture(scope="module")
def compared(sample, small_config):
    """Test eyes, the runs of all arms with two workers, and of the last arm with one."""
    real, good = sample("a", 160, 0), sample("s", 80, 1, synthetic=True)
    validation, test = sample("v", 40, 2), sample("t", 120, 3)
    arms, _ = experiment.plan_arms(len(real), len(good), (0.5, 1.0))
    config = small_config.model_copy(update={"steps": 40, "flip_swaps": {}, "learning_rate": 0.01})
    tasks, _ = experiment.usable_tasks(real, test)
    runs, _ = experiment.train_arms(arms, [0, 1], tasks, real, good, validation, {"test": test}, config, 2)
    alone, _ = experiment.train_arms(arms[-1:], [0, 1], tasks, real, good, validation, {"test": test}, config, 1)
    return test, runs, alone


def test_every_arm_and_seed_is_trained_and_learns(compared):
    test, runs, _ = compared
    judged = experiment.judge(runs, "test", test, 100, 0)
    arms = ["real", "real_plus_50", "real_plus_100", "synthetic"]
    assert [(run.arm, run.seed) for run in runs] == [(arm, seed) for arm in arms for seed in (0, 1)]
    for arm in arms:
        found = judged["figures"]["glaucoma"][arm]
        assert found["auc"].value > 0.8
        assert found["auc"].low <= found["auc"].value <= found["auc"].high
        assert found["auc"].n == len(test)
        both = [judged["seeds"]["glaucoma"][arm][f"seed_{seed}"]["auc"].value for seed in (0, 1)]
        assert found["auc"].value == pytest.approx(np.mean(both))
        assert judged["confusion"]["glaucoma"][arm].sum() == 2 * len(test)
    assert "real" not in judged["difference"]["glaucoma"]
    gain = judged["difference"]["glaucoma"]["synthetic"]["auc"].value
    figures = judged["figures"]["glaucoma"]
    assert gain == pytest.approx(figures["synthetic"]["auc"].value - figures["real"]["auc"].value)


def test_results_do_not_depend_on_the_number_of_workers(compared):
    _, runs, alone = compared
    for one, two in zip(alone, runs[-2:], strict=True):
        assert (one.arm, one.seed) == (two.arm, two.seed)
        for task, values in one.probabilities["test"].items():
            assert np.array_equal(values, two.probabilities["test"][task])


def test_useless_synthetic_eyes_are_seen_to_be_useless(sample, small_config):
    real, test = sample("a", 160, 0), sample("t", 120, 3)
    wrong = sample("s", 160, 1, synthetic=True)
    wrong = replace(wrong, labels={**wrong.labels, "glaucoma": 1 - wrong.labels["glaucoma"]})
    config = small_config.model_copy(update={"steps": 40, "flip_swaps": {}, "learning_rate": 0.01})
    arms = [Arm("real", 160, 0), Arm("synthetic", 0, 160)]
    runs, _ = experiment.train_arms(
        arms, [0, 1], ["glaucoma"], real, wrong, sample("v", 0, 2), {"test": test}, config, 2
    )
    difference = experiment.judge(runs, "test", test, 200, 0)["difference"]["glaucoma"]["synthetic"]["auc"]
    assert difference.high < 0


def test_threads_are_as_before(sample, small_config):
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    quick = small_config.model_copy(update={"steps": 1, "flip_swaps": {}})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        experiment.train_arms([Arm("real", 20, 0)], [0], ["glaucoma"], real, real, test, {"test": test}, quick, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_training_ends_the_comparison(sample, small_config):
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    bad = small_config.model_copy(update={"widths": (12,)})
    with pytest.raises(ValueError, match="multiple of 8"):
        experiment.train_arms(
            [Arm("real", 20, 0)], [0, 1], ["glaucoma"], real, sample("s", 4, 2, True), test, {"test": test}, bad, 2
        )


def test_separate_samples_pass(sample):
    sets = {"validation": sample("v", 8, 1), "test": sample("t", 8, 2), "external": sample("x", 8, 3)}
    experiment.check_separation({"train": sample("a", 8, 0)}, sets, sample("s", 8, 4, True))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("patient_id", "a-patient1", "image t0003 of the test images: its patient is also among the train images"),
        ("group", "a0002", "image t0003 of the test images: its duplicate group is also among the train images"),
        ("image_id", "a0005", "image a0005 of the test images: its image is also among the train images"),
        ("patient_id", "v-patient0", "is also among the validation images"),
        ("image_id", "s0001", "is also among the synthetic images"),
        ("synthetic", True, "test images hold the synthetic image t0003"),
    ],
)
def test_a_leak_is_refused(sample, column, value, message):
    test = sample("t", 8, 2)
    changed = getattr(test, column).astype(object)
    changed[3] = value
    test = replace(test, **{column: changed.astype(bool if column == "synthetic" else str)})
    with pytest.raises(DataError, match=message):
        experiment.check_separation(
            {"train": sample("a", 8, 0)}, {"validation": sample("v", 8, 1), "test": test}, sample("s", 8, 4, True)
        )


def test_a_photograph_in_the_synthetic_cohort_is_refused(sample):
    with pytest.raises(DataError, match="image s0000 of the synthetic cohort names no generator"):
        experiment.check_separation({"train": sample("a", 8, 0)}, {"test": sample("t", 8, 2)}, sample("s", 8, 4))


def test_arms_are_shares_of_the_synthetic_cohort():
    arms, skipped = experiment.plan_arms(100, 40, (1.0, 0.25))
    assert arms == [
        Arm("real", 100, 0),
        Arm("real_plus_25", 100, 10),
        Arm("real_plus_100", 100, 40),
        Arm("synthetic", 0, 40),
    ]
    assert skipped == {}
    arms, skipped = experiment.plan_arms(100, 0, (0.5, 1.0))
    assert arms == [Arm("real", 100, 0)]
    assert skipped.keys() == {"real_plus_50", "real_plus_100", "synthetic"}


def test_mixes_hold_what_they_say_and_smaller_ones_are_within_larger_ones(sample):
    real, synthetic = sample("a", 10, 0), sample("s", 8, 1, True)
    images, labels = experiment.mix(Arm("m", 10, 8), real, synthetic, seed=0)
    assert np.array_equal(images[:10], real.images)
    assert np.array_equal(images[10:], synthetic.images)
    assert np.array_equal(labels["glaucoma"][10:], synthetic.labels["glaucoma"])
    small, _ = experiment.mix(Arm("m", 0, 4), real, synthetic, seed=0)
    large, _ = experiment.mix(Arm("m", 0, 6), real, synthetic, seed=0)
    held = {image.tobytes() for image in large}
    assert all(image.tobytes() in held for image in small)
    other, _ = experiment.mix(Arm("m", 0, 4), real, synthetic, seed=1)
    assert {image.tobytes() for image in other} != {image.tobytes() for image in small}


def test_tasks_without_two_classes_are_left_out_with_the_reason(sample):
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    only = replace(test, labels={**test.labels, "glaucoma": np.where(test.labels["glaucoma"] == 1, -1, 0)})
    tasks, skipped = experiment.usable_tasks(real, only)
    assert tasks == ["dr_grade"]
    assert skipped == {"glaucoma": "the test images hold 1 of its classes; two are needed"}
    blind = replace(real, labels={**real.labels, "dr_grade": np.full(20, -1)})
    assert experiment.usable_tasks(blind, test)[1] == {
        "dr_grade": "the training images hold 0 of its classes; two are needed"
    }


def test_an_arm_learns_only_the_tasks_of_which_it_has_two_classes(sample, small_config):
    real, test, synthetic = sample("a", 24, 0), sample("t", 24, 1), sample("s", 24, 2, True)
    synthetic = replace(synthetic, labels={**synthetic.labels, "glaucoma": np.zeros(24, int)})
    quick = small_config.model_copy(update={"steps": 2, "flip_swaps": {}})
    arms = [Arm("real", 24, 0), Arm("synthetic", 0, 24)]
    runs, skipped = experiment.train_arms(
        arms, [0], ["dr_grade", "glaucoma"], real, synthetic, test, {"test": test}, quick, 1
    )
    assert skipped == {
        "synthetic": {"glaucoma": "the training images of this arm hold 1 of its classes; two are needed"}
    }
    assert runs[1].probabilities["test"].keys() == {"dr_grade"}
    judged = experiment.judge(runs, "test", test, 10, 0)
    assert judged["figures"]["glaucoma"].keys() == {"real"}
    assert judged["difference"]["glaucoma"] == {}


def test_predictions_leave_out_unknown_labels_and_patients(compared):
    test, runs, _ = compared
    some = replace(test, labels={**test.labels, "glaucoma": np.where(np.arange(len(test)) < 10, 1, -1)})
    rows = list(experiment.predictions(runs[:1], {"test": some}))
    assert sum(row["task"] == "glaucoma" for row in rows) == 10
    assert sum(row["task"] == "dr_grade" for row in rows) == len(test)
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-5) for row in rows)
    assert "patient" not in "".join(rows[0])
