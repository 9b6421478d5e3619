"""The comparison of segmenters where the answer is known: real maps help, maps that lie elsewhere do not."""

from dataclasses import replace

import numpy as np
import pytest

from retinalogos.classifiers.experiment import Arm
from retinalogos.classifiers.mixes import parse
from retinalogos.segmenters import experiment

STRUCTURES = ["disc", "cup"]
TASKS = ["disc_cup"]
SEEDS = [0, 1]
REAL, BOTH = Arm(parse("real"), 24, 0), Arm(parse("real_plus_100"), 24, 24)


@pytest.fixture(scope="module")
def test_set(annotated):
    return annotated("test", 30, 3)


@pytest.fixture(scope="module")
def compare(annotated, small_segmenter, test_set):
    nothing = annotated("validation", 0, 0)
    few = small_segmenter.model_copy(update={"steps": 40})

    def call(arms, real, synthetic, structures=STRUCTURES):
        return experiment.train_arms(arms, SEEDS, structures, real, synthetic, nothing, {"test": test_set}, few, 2)

    return call


@pytest.fixture(scope="module")
def negatives(annotated):
    """Real eyes of a camera whose pictures are negatives: what they teach is wrong of those that are judged."""
    drawn = annotated("real", 24, 0)
    return replace(drawn, eyes=replace(drawn.eyes, images=255 - drawn.eyes.images))


@pytest.fixture(scope="module")
def alone(compare, negatives, annotated):
    return compare([REAL], negatives, annotated("synthetic", 24, 1))[0]


def test_eyes_of_the_kind_that_is_judged_help_where_there_are_none(compare, alone, negatives, annotated, test_set):
    runs, skipped = compare([BOTH], negatives, annotated("synthetic", 24, 1))
    assert not skipped
    found = experiment.judge(alone + runs, TASKS, "test", test_set, 200, 0)
    verdict = found["verdicts"]["disc_cup"]["real_plus_100"]
    assert (verdict["says"], verdict["against"], verdict["figure"]) == ("helps", "real", "dice")
    figures = found["figures"]["disc_cup"]["real_plus_100"]
    assert figures.keys() == {"dice", "iou", "auc", "average_precision"}
    assert found["subgroups"]["disc_cup"]["sex"].keys() == {"female", "male"}
    assert found["seeds"]["disc_cup"]["real"].keys() == {"seed_0", "seed_1"}
    each = [found["structures"][name]["real_plus_100"]["dice"].value for name in ("disc", "cup")]
    assert figures["dice"].value == pytest.approx(np.mean(each))


def test_maps_that_lie_elsewhere_harm_or_make_no_difference(compare, annotated, test_set):
    drawn = annotated("synthetic", 24, 1)
    elsewhere = {name: np.roll(values, 16, axis=1) for name, values in drawn.targets.maps.items()}
    displaced = replace(drawn, targets=replace(drawn.targets, maps=elsewhere))
    runs, _ = compare([REAL, BOTH], annotated("real", 24, 0), displaced)
    verdicts = experiment.judge(runs, TASKS, "test", test_set, 200, 0)["verdicts"]
    assert {of_task["real_plus_100"]["says"] for of_task in verdicts.values()} <= {"harms", "no difference shown"}


def test_a_mix_against_itself_shows_no_difference(alone, test_set):
    same = [replace(run, arm="real_plus_100") for run in alone]
    for of_task in experiment.judge(alone + same, TASKS, "test", test_set, 50, 0)["verdicts"].values():
        assert (of_task["real_plus_100"]["p"], of_task["real_plus_100"]["says"]) == (1, "no difference shown")


def test_what_an_arm_does_not_show_is_left_out_of_it_with_the_reason(compare, annotated, test_set):
    drawn = annotated("synthetic", 6, 1)
    blank = {name: values * (name == "vessels") for name, values in drawn.targets.maps.items()}
    synthetic = replace(drawn, targets=replace(drawn.targets, maps=blank))
    assert experiment.usable_structures(["lesions", "vessels"], test_set, test_set, synthetic, 10) == (
        ["vessel"],
        {"lesions": "no synthetic image has a map of lesions: images that are drawn from captions have none"},
    )
    assert (
        "in 99 training images"
        in experiment.usable_structures(["vessels"], test_set, test_set, drawn, 99)[1]["vessels"]
    )
    without, other = Arm(parse("synthetic"), 0, 6), Arm(parse("real_without_balance"), 24, 0)
    runs, skipped = compare([without, other], annotated("real", 24, 0), synthetic, ["vessel", "disc"])
    assert skipped == {
        "synthetic": {"disc": "no training image of this arm shows it"},
        "real_without_balance": {"all": "the recipe of a segmenter has no balance"},
    }
    found = experiment.judge(runs, ["vessels", "disc_cup"], "test", test_set, 0, 0)
    assert list(found["figures"]) == ["vessels"]
    assert "disc_cup" in found["skipped"]
