"""The evaluation itself on sets whose judgement is known: it must not see what is not there, nor miss what is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from retinalogos.metrics import assessment
from retinalogos.metrics.alignment import structure
from retinalogos.metrics.features import RandomConv
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.memorisation import pixel_descriptor
from retinalogos.metrics.observation import TASKS, Asked, Observed

SETTINGS = assessment.Settings(
    resamples=200,
    distance_resamples=30,
    extrapolation_points=3,
    extrapolation_resamples=5,
    kernel_subsets=5,
    kernel_subset_size=30,
    neighbours=5,
    memorised_neighbours=20,
    memorised_quantile=0.02,
    rare_share=0.1,
    seed=0,
)
SPACE = RandomConv(seed=0, channels=4)


def pictures(seed: int, n: int) -> np.ndarray:
    """Smooth random pictures, each its own: of one distribution whatever the seed."""
    coarse = np.random.default_rng(seed).uniform(40, 220, (n, 12, 12, 3)).astype(np.float32)
    smooth = [cv2.resize(c, (64, 64), interpolation=cv2.INTER_CUBIC) for c in coarse]
    return np.stack(smooth).clip(0, 255).astype(np.uint8)


def observed(images: np.ndarray, name: str, seed: int) -> Observed:
    """What `assess` sees of pictures whose labels are drawn at random."""
    rng = np.random.default_rng(seed)
    ids = [f"{name}{i}" for i in range(len(images))]
    codes = {task: rng.integers(0, len(classes), len(images)) for task, classes in TASKS.items()}
    asked = Asked(ids, ids, codes, np.full(len(images), np.nan), ["any"] * len(images))
    features = {SPACE.name: SPACE.features(images)}
    return Observed(asked, features, pixel_descriptor(images, 24), structure(images), {}, None, {})


@pytest.fixture(scope="module")
def train() -> Observed:
    return observed(pictures(0, 120), "train", 0)


@pytest.fixture(scope="module")
def test_set() -> Observed:
    return observed(pictures(1, 60), "test", 1)


@pytest.fixture(scope="module")
def held_out() -> Observed:
    return observed(pictures(2, 60), "held out", 2)


def test_the_training_images_themselves_are_at_no_distance_and_all_are_copies(
    train: Observed, test_set: Observed
) -> None:
    figures = assessment.realism(train, train, test_set, SETTINGS)
    floor = figures["frechet"]["floor"].value
    assert figures["frechet"]["all"].value == pytest.approx(0, abs=1e-3 * floor)
    assert floor > 0
    copies = assessment.copies(train, test_set, train, SETTINGS)
    assert copies.figures["share"].value == 1
    assert len(copies.flagged) == len(train)
    assert all(pair.image_id == pair.train_id for pair in copies.flagged)
    for space in ("pixels", "features"):
        assert copies.figures[space]["membership_auc"].low > 0.9
        assert copies.figures[space]["authenticity"].value == 0
    assert copies.figures["rare"]["patients_copied"] == copies.figures["rare"]["training_images"] == 12


def test_held_out_images_score_as_the_floor_does_and_raise_no_alarm(
    train: Observed, test_set: Observed, held_out: Observed
) -> None:
    figures = assessment.realism(train, held_out, test_set, SETTINGS)
    for distance in ("frechet", "kernel", "gaussian"):
        synthetic, floor = figures[distance]["synthetic"], figures[distance]["floor"]
        assert synthetic.low < floor.high
        assert floor.low < synthetic.high
    assert figures["kernel"]["synthetic"].low < 0 < figures["kernel"]["synthetic"].high
    copies = assessment.copies(train, test_set, held_out, SETTINGS)
    assert copies.figures["share"].value <= 0.1
    for space in ("pixels", "features"):
        auc = copies.figures[space]["membership_auc"]
        assert auc.low < 0.5
        assert copies.figures[space]["authenticity"].value > 0.2


def test_an_alarm_names_the_copies_among_honest_images(train: Observed, test_set: Observed, held_out: Observed) -> None:
    originals = pictures(0, 120)[:3]
    altered = np.stack([cv2.resize(image[2:62, 2:62], (64, 64))[:, ::-1] for image in originals])
    mixed = observed(np.concatenate([pictures(2, 60)[:57], altered]), "made", 3)
    copies = assessment.copies(train, test_set, mixed, SETTINGS)
    worst = copies.pairs[:3]
    assert {pair.image_id for pair in worst} == {"made57", "made58", "made59"}
    assert {pair.train_id for pair in worst} == {"train0", "train1", "train2"}
    assert all(pair.ratio < 1 for pair in worst)
    assert len(copies.flagged) <= 3 + 6


def test_noise_is_far_from_real(train: Observed, test_set: Observed) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
    figures = assessment.realism(train, observed(noise, "noise", 4), test_set, SETTINGS)
    for distance in ("frechet", "frechet_infinity", "kernel", "gaussian"):
        assert figures[distance]["synthetic"].low > figures[distance]["floor"].high
    assert figures["manifold"]["synthetic"].precision.value == 0
    assert figures["manifold"]["floor"].precision.value > 0.5


def sure_of(codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A judge that is sure of these classes."""
    return {task: np.eye(len(TASKS[task]))[codes[task]] * 0.98 + 0.02 / len(TASKS[task]) for task in TASKS}


def test_true_labels_agree_wholly_and_shuffled_ones_by_chance() -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    eyes = observed(images, "eye", 0)
    few = replace(SETTINGS, resamples=60)
    figures = assessment.judged(replace(eyes, seen=sure_of(eyes.asked.codes)), None, few)
    assert [figures["dr_grade"][name].value for name in ("kappa", "rank")] == pytest.approx([1, 1])
    assert figures["glaucoma"]["auc"].value == pytest.approx(1)
    rng = np.random.default_rng(1)
    chance: dict[str, list[Estimate]] = {"kappa": [], "rank": [], "auc": []}
    for _ in range(16):
        shuffled = {task: rng.permutation(codes) for task, codes in eyes.asked.codes.items()}
        figures = assessment.judged(replace(eyes, seen=sure_of(shuffled)), None, few)
        chance["kappa"].append(figures["dr_grade"]["kappa"])
        chance["rank"].append(figures["dr_grade"]["rank"])
        chance["auc"].append(figures["glaucoma"]["auc"])
    for name, level in (("kappa", 0.0), ("rank", 0.0), ("auc", 0.5)):
        # An interval of 95 % misses now and then; of 16 more than four misses would not be by chance.
        assert sum(estimate.low < level < estimate.high for estimate in chance[name]) >= 12
        assert np.mean([estimate.value for estimate in chance[name]]) == pytest.approx(level, abs=0.06)
