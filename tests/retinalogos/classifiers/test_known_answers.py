"""The comparison itself, where the answer is known: real eyes help, noise does not, shuffled labels teach nothing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from retinalogos.classifiers import experiment, statistics
from retinalogos.classifiers.experiment import Arm, Sample
from retinalogos.classifiers.mixes import parse

HEADS = {"dr_grade": 5}
SEEDS = [0, 1, 2]
SCARCE = Arm(parse("real_5"), 6, 0)
HELPED = Arm(parse("real_5_plus_100"), 6, 120)


@pytest.fixture(scope="module")
def sample(eyes):
    def draw(name: str, n: int, seed: int) -> Sample:
        images, labels = eyes(n, seed)
        ids = np.array([f"{name}{row:04d}" for row in range(n)])
        patients = np.array([f"{name}-patient{row // 2}" for row in range(n)])
        synthetic = np.full(n, name == "synthetic")
        return Sample(ids, patients, ids, synthetic, images, {head: labels[head] for head in HEADS}, {})

    return draw


@pytest.fixture(scope="module")
def compare(sample, small_config):
    """A function: trains arms on 120 real eyes and these synthetic ones, and judges them on 160 others."""
    config = small_config.model_copy(update={"steps": 25, "flip_swaps": {}, "learning_rate": 0.01})
    test = sample("test", 160, 3)

    def call(arms: list[Arm], real: Sample, synthetic: Sample, seeds: Sequence[int] = SEEDS) -> list[experiment.Run]:
        nothing = sample("validation", 0, 2)
        runs, _ = experiment.train_arms(arms, list(seeds), HEADS, real, synthetic, nothing, {"test": test}, config, 2)
        return runs

    def judge(runs: list[experiment.Run]) -> dict:
        return experiment.judge(runs, tuple(HEADS), "test", test, 300, 0)

    return call, judge


@pytest.fixture(scope="module")
def scarce(compare, sample) -> list[experiment.Run]:
    """Runs on a twentieth of the real eyes."""
    call, _ = compare
    return call([SCARCE], sample("real", 120, 0), sample("synthetic", 0, 1))


def test_held_out_real_eyes_help_where_real_ones_are_scarce(compare, scarce, sample):
    call, judge = compare
    runs = call([HELPED], sample("real", 120, 0), sample("synthetic", 120, 1))
    verdicts = {task: judged["real_5_plus_100"] for task, judged in judge(scarce + runs)["verdicts"].items()}
    assert {verdict["says"] for verdict in verdicts.values()} == {"helps"}
    assert all(verdict["difference"].low > 0 and verdict["against"] == "real_5" for verdict in verdicts.values())


def test_noise_with_labels_by_lot_harms_or_makes_no_difference(compare, scarce, sample):
    call, judge = compare
    rng = np.random.default_rng(0)
    noise = replace(
        sample("synthetic", 120, 1),
        images=rng.integers(0, 256, (120, 48, 48, 3)).astype(np.uint8),
        labels={"dr_grade": rng.integers(0, 3, 120)},
    )
    runs = call([HELPED], sample("real", 120, 0), noise)
    says = {judged["real_5_plus_100"]["says"] for judged in judge(scarce + runs)["verdicts"].values()}
    assert says <= {"harms", "no difference shown"}


def test_shuffled_labels_give_a_kappa_of_about_zero_with_an_interval_that_covers_it(compare, sample):
    call, judge = compare
    real = sample("real", 120, 0)
    runs = []
    # Each training with an order of its own: one order of 120 labels has something to teach by chance.
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shuffled = replace(real, labels={head: rng.permutation(labels) for head, labels in real.labels.items()})
        runs += call([Arm(parse("real"), 120, 0)], shuffled, sample("synthetic", 0, 1), [seed])
    kappa = judge(runs)["figures"]["dr_grade"]["real"]["qwk"]
    assert abs(kappa.value) < 0.2
    assert kappa.low <= 0 <= kappa.high


def test_a_mix_against_itself_shows_no_difference(compare, scarce):
    _, judge = compare
    same = [replace(run, arm="real_5_plus_100") for run in scarce]
    for judged in judge(scarce + same)["verdicts"].values():
        verdict = judged["real_5_plus_100"]
        assert (verdict["p"], verdict["says"]) == (1, "no difference shown")
        assert verdict["difference"].low == verdict["difference"].high == 0


def test_answers_by_lot_have_a_kappa_whose_interval_covers_zero_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = []
    for trial in range(150):
        truth, patients = np.repeat(rng.integers(0, 5, 50), 2), np.repeat(np.arange(50), 2)
        answers = np.repeat(rng.dirichlet(np.ones(5), 50), 2, axis=0)
        found = statistics.replicate({"one": [(truth, [answers])]}, patients, 100, trial)["one"].estimates()["qwk"]
        covered.append(found.low <= 0 <= found.high)
    assert 0.87 < np.mean(covered) < 0.99
