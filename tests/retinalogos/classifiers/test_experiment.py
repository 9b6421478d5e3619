"""The comparison: who may stand where, what each arm trains on, and what is told of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from retinalogos.classifiers import experiment
from retinalogos.classifiers.experiment import Arm, Sample
from retinalogos.classifiers.mixes import parse
from retinalogos.errors import DataError, UsageError

HEADS = {"dr_grade": 5, "glaucoma": 2}
TASKS = ("dr_grade", "referable_dr", "glaucoma")


def arm(name: str, real: int, synthetic: int) -> Arm:
    return Arm(parse(name), real, synthetic)


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
            labels={task: labels[task] for task in HEADS},
            subgroups={"sex": np.array(["female", "male"])[np.arange(n) // 2 % 2]},
        )

    return draw


@pytest.fixture(scope="module")
def compared(sample, small_config):
    """Test eyes, the runs of all arms with two workers, and of the last arm with one."""
    real, good = sample("a", 160, 0), sample("s", 80, 1, synthetic=True)
    validation, test = sample("v", 40, 2), sample("t", 120, 3)
    names = ("real", "real_plus_50", "real_plus_100", "synthetic")
    arms, _ = experiment.plan_arms(names, real, good)
    config = small_config.model_copy(update={"steps": 40, "flip_swaps": {}, "learning_rate": 0.01})
    heads, _ = experiment.usable_heads(TASKS, real, test, 1)
    assert heads == HEADS
    runs, _ = experiment.train_arms(arms, [0, 1], heads, real, good, validation, {"test": test}, config, 2)
    alone, _ = experiment.train_arms(arms[-1:], [0, 1], heads, real, good, validation, {"test": test}, config, 1)
    return test, runs, alone


def test_every_arm_and_seed_is_trained_and_learns(compared):
    test, runs, _ = compared
    judged = experiment.judge(runs, TASKS, "test", test, 100, 0)
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
    arms = [arm("real", 160, 0), arm("synthetic", 0, 160)]
    runs, _ = experiment.train_arms(
        arms, [0, 1], {"glaucoma": 2}, real, wrong, sample("v", 0, 2), {"test": test}, config, 2
    )
    difference = experiment.judge(runs, TASKS, "test", test, 200, 0)["difference"]["glaucoma"]["synthetic"]["auc"]
    assert difference.high < 0


def test_threads_are_as_before(sample, small_config):
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    quick = small_config.model_copy(update={"steps": 1, "flip_swaps": {}})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        experiment.train_arms([arm("real", 20, 0)], [0], {"glaucoma": 2}, real, real, test, {"test": test}, quick, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_training_ends_the_comparison(sample, small_config):
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    bad = small_config.model_copy(update={"widths": (12,)})
    with pytest.raises(ValueError, match="multiple of 8"):
        experiment.train_arms(
            [arm("real", 20, 0)], [0, 1], {"glaucoma": 2}, real, sample("s", 4, 2, True), test, {"test": test}, bad, 2
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


def test_arms_have_as_many_images_as_their_names_say(sample):
    real, synthetic = sample("a", 100, 0), sample("s", 40, 1, True)
    asked = ("real", "real_10", "real_10_plus_50", "real_ratio_20", "real_10_ratio_400", "synthetic", "real_rare")
    arms, skipped = experiment.plan_arms((*asked, "real_ratio_50"), real, synthetic)
    sizes = {one.name: (one.real, one.synthetic) for one in arms}
    rare = experiment.of_rare_classes(real, synthetic)
    assert sizes == dict(
        zip(asked, [(100, 0), (10, 0), (10, 20), (100, 20), (10, 40), (0, 40), (100, rare.sum())], strict=True)
    )
    assert skipped == {"real_ratio_50": "it asks for 50 synthetic images, and 40 were drawn"}
    arms, skipped = experiment.plan_arms(("real", "real_1", "real_plus_50", "synthetic"), real, sample("s", 0, 1, True))
    assert [one.name for one in arms] == ["real"]
    assert skipped["real_1"] == "1 % of 100 real images are 1; two are needed"
    assert skipped["real_plus_50"] == skipped["synthetic"] == "the synthetic cohort has no image"


def test_rare_classes_are_those_with_less_than_their_part(sample):
    real, synthetic = sample("a", 50, 0), sample("s", 6, 1, True)
    grades = np.array([0] * 30 + [1] * 10 + [2] * 5 + [3] * 5)
    real = replace(real, labels={"dr_grade": grades, "glaucoma": np.full(50, -1)})
    labels = {"dr_grade": np.array([0, 1, 2, 3, 4, -1]), "glaucoma": np.ones(6, int)}
    found = experiment.of_rare_classes(real, replace(synthetic, labels=labels))
    assert found.tolist() == [False, False, True, True, True, False]


def test_mixes_hold_what_they_say_and_smaller_ones_are_within_larger_ones(sample):
    real, synthetic = sample("a", 40, 0), sample("s", 8, 1, True)
    rows, drawn = experiment.training_rows(arm("real_plus_100", 40, 8), real, synthetic, seed=0)
    assert (rows.tolist(), drawn.tolist()) == (list(range(40)), list(range(8)))
    small, large, other = (
        experiment.training_rows(arm(name, count, more), real, synthetic, seed)
        for name, count, more, seed in (("real_10", 4, 4, 0), ("real_50", 20, 6, 0), ("real_10", 4, 4, 1))
    )
    assert set(small[0]) < set(large[0])
    assert set(small[1]) < set(large[1])
    assert set(small[0]) != set(other[0])
    assert len(set(real.patient_id[large[0]])) == 10, "both eyes of a patient"
    rare = experiment.of_rare_classes(real, synthetic)
    _, chosen = experiment.training_rows(arm("real_rare", 40, int(rare.sum())), real, synthetic, seed=0)
    assert chosen.tolist() == np.flatnonzero(rare).tolist()


def test_tasks_without_two_classes_are_left_out_with_the_reason(sample):
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    only = replace(test, labels={**test.labels, "glaucoma": np.where(test.labels["glaucoma"] == 1, -1, 0)})
    heads, skipped = experiment.usable_heads(TASKS, real, only, 1)
    assert heads == {"dr_grade": 5}
    assert skipped == {"glaucoma": "the test images hold 1 of its classes; two are needed"}
    blind = replace(real, labels={**real.labels, "dr_grade": np.full(20, -1)})
    assert experiment.usable_heads(("dr_grade", "glaucoma"), blind, test, 1)[1] == {
        "dr_grade": "the training images hold 0 of its classes; two are needed"
    }


def test_findings_are_learned_where_there_are_enough_of_them(sample):
    def with_findings(eyes: Sample, often: int) -> Sample:
        seen = np.arange(len(eyes)) < often
        return replace(eyes, labels={**eyes.labels, "finding_drusen": seen.astype(int), "finding_other": seen * 0})

    real, test = with_findings(sample("a", 40, 0), 12), with_findings(sample("t", 40, 1), 20)
    assert experiment.usable_heads(("findings",), real, test, 12) == ({"finding_drusen": 2}, {})
    heads, skipped = experiment.usable_heads(("findings",), real, test, 13)
    assert heads == {}
    assert "no finding is in 13 training images" in skipped["findings"]


def test_an_arm_learns_only_the_tasks_of_which_it_has_two_classes(sample, small_config):
    real, test, synthetic = sample("a", 24, 0), sample("t", 24, 1), sample("s", 24, 2, True)
    synthetic = replace(synthetic, labels={**synthetic.labels, "glaucoma": np.zeros(24, int)})
    quick = small_config.model_copy(update={"steps": 2, "flip_swaps": {}})
    arms = [arm("real", 24, 0), arm("synthetic", 0, 24)]
    runs, skipped = experiment.train_arms(arms, [0], HEADS, real, synthetic, test, {"test": test}, quick, 1)
    assert skipped == {
        "synthetic": {"glaucoma": "the training images of this arm hold 1 of its classes; two are needed"}
    }
    assert runs[1].probabilities["test"].keys() == {"dr_grade"}
    judged = experiment.judge(runs, TASKS, "test", test, 10, 0)
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


def _told(sample: Sample, skill: dict[str, float], seeds: int = 2) -> list[experiment.Run]:
    """Runs of arms that know the labels that well, without training."""
    runs = []
    for name, knows in skill.items():
        for seed in range(seeds):
            rng = np.random.default_rng([seed, len(name)])
            answers = {}
            for head, classes in HEADS.items():
                scores = rng.normal(size=(len(sample), classes)) + knows * np.eye(classes)[sample.labels[head]]
                answers[head] = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            runs.append(experiment.Run(name, seed, {"test": answers}))
    return runs


def test_verdicts_name_what_is_compared_and_follow_from_interval_and_corrected_test(sample):
    test = sample("t", 200, 3)
    runs = _told(test, {"real": 2.0, "real_10": 0.3, "real_10_plus_100": 2.5, "real_plus_50": 2.0, "synthetic": -1.0})
    judged = experiment.judge(runs, TASKS, "test", test, 300, 0)
    for task in TASKS:
        verdicts = judged["verdicts"][task]
        assert {arm: verdict["against"] for arm, verdict in verdicts.items()} == {
            "real_10": "real", "real_10_plus_100": "real_10", "real_plus_50": "real", "synthetic": "real"
        }  # fmt: skip
        assert verdicts["real_10_plus_100"]["says"] == "helps"
        assert verdicts["real_plus_50"]["says"] == "no difference shown"
        assert verdicts["synthetic"]["says"] == "harms"
        for arm_, verdict in verdicts.items():
            assert verdict["difference"] == judged["difference"][task][arm_][verdict["figure"]]
            assert verdict["p_holm"] >= verdict["p"]
    referable, grade = (judged["figures"][task]["real"] for task in ("referable_dr", "dr_grade"))
    assert referable.keys() - grade.keys() == {"sensitivity", "specificity", "sensitivity_at_specificity"}
    assert referable["auc"].n == grade["auc"].n


def test_referable_retinopathy_is_grade_two_and_worse(sample):
    test = sample("t", 60, 3)
    runs = _told(test, {"real": 1.0})
    judged = experiment.judge(runs, TASKS, "test", test, 0, 0)
    areas = [
        roc_auc_score(test.labels["dr_grade"] >= 2, run.probabilities["test"]["dr_grade"][:, 2:].sum(1)) for run in runs
    ]
    assert judged["figures"]["referable_dr"]["real"]["auc"].value == pytest.approx(np.mean(areas))
    assert judged["confusion"]["referable_dr"]["real"].sum() == 2 * len(test)


def test_subgroups_have_their_own_figures_and_those_of_one_class_none(sample):
    test = sample("t", 120, 3)
    groups = np.where(np.arange(120) < 40, "a", np.where(np.arange(120) < 110, "b", "c"))
    glaucoma = np.where(groups == "c", 1, test.labels["glaucoma"])
    subgroups = {"clinic": groups, "source": np.full(120, "one")}
    test = replace(test, labels={**test.labels, "glaucoma": glaucoma}, subgroups=subgroups)
    runs = _told(test, {"real": 1.0, "synthetic": 0.0})
    judged = experiment.judge(runs, ("glaucoma",), "test", test, 50, 0)
    table = judged["subgroups"]["glaucoma"]
    assert table.keys() == {"clinic"}, "one source is no subgroup"
    assert table["clinic"].keys() == {"a", "b"}
    assert table["clinic"]["a"]["figures"]["real"].n == 40
    areas = [roc_auc_score(glaucoma[:40], run.probabilities["test"]["glaucoma"][:40, 1]) for run in runs[:2]]
    assert table["clinic"]["a"]["figures"]["real"].value == pytest.approx(np.mean(areas))
    assert table["clinic"]["a"]["difference"].keys() == {"synthetic"}


def test_findings_are_judged_together_and_one_by_one(sample):
    rng = np.random.default_rng(0)
    test = sample("t", 80, 3)
    known = np.arange(80) < 60
    truth = {f"finding_{code}": np.where(known, rng.integers(0, 2, 80), -1) for code in ("drusen", "cataract")}
    test = replace(test, labels={**test.labels, **truth, "finding_other": np.where(known, 0, -1)})
    runs = []
    for seed in range(2):
        second = {head: rng.random(80) for head in (*truth, "finding_other")}
        runs.append(experiment.Run("real", seed, {"test": {h: np.stack([1 - p, p], 1) for h, p in second.items()}}))
    judged = experiment.judge(runs, ("findings",), "test", test, 20, 0)
    areas = {
        head: np.mean([roc_auc_score(labels[known], run.probabilities["test"][head][known, 1]) for run in runs])
        for head, labels in truth.items()
    }
    assert judged["findings"].keys() == {"cataract", "drusen"}, "nobody in the set has the third"
    assert judged["findings"]["drusen"]["real"].value == pytest.approx(areas["finding_drusen"])
    together = judged["figures"]["findings"]["real"]["auc"]
    assert together.value == pytest.approx(np.mean(list(areas.values())))
    assert together.n == 60


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unreal", "is no mix"),
        ("real_10_plus", "is no mix"),
        ("synthetic_plus_50", "is no mix"),
        ("real_without_sleep", "one of augmentation, pretraining, balance"),
        ("real_0", "_0 of real is not from 1 to 99"),
        ("real_plus_101", "_101 of plus is not from 1 to 100"),
    ],
)
def test_names_of_mixes_that_cannot_be_are_refused(name, message):
    with pytest.raises(UsageError, match=message):
        parse(name)


def test_an_arm_without_a_part_of_the_recipe_is_trained_without_it(sample, small_config, monkeypatch):
    told = []

    def watched(images, labels, classes, config, *rest):
        told.append(config)
        raise DataError("seen")

    monkeypatch.setattr(experiment, "fit_grader", watched)
    real, test = sample("a", 20, 0), sample("t", 20, 1)
    for name in ("real", "real_without_augmentation"):
        with pytest.raises(DataError, match="seen"):
            experiment.train_arms(
                [arm(name, 20, 0)], [0], {"glaucoma": 2}, real, real, test, {"test": test}, small_config, 1
            )
    assert told[0] == small_config
    assert told[1] == small_config.model_copy(
        update={"rotation": 0.0, "zoom": 0.0, "brightness": 0.0, "colour": 0.0, "mirror": False}
    )
