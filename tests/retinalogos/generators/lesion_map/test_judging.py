"""The judges: segmentation with partial truth, lesions counted, grades read back, edits measured."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retinalogos.generators.lesion_map import judging, maps
from retinalogos.generators.lesion_map.configuration import SegmenterConfig
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.segmentation import (
    Segmenter,
    dice_of,
    fit_segmenter,
    overlaps,
    partial_loss,
    pooled_dice,
)


def test_what_is_not_marked_teaches_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 7, 4, 4, requires_grad=True)
    anything = torch.full((2, 4, 4), maps.bits(tuple(range(7))), dtype=torch.uint8)
    (slope,) = torch.autograd.grad(partial_loss(logits, anything, torch.ones(7)), logits)
    assert slope.abs().max() < 1e-6


def test_with_one_candidate_it_is_cross_entropy_and_dice() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 7, 4, 4), torch.randint(0, 7, (2, 4, 4))
    candidates = (1 << classes).to(torch.uint8)
    target = F.one_hot(classes, 7).permute(0, 3, 1, 2).float()
    probabilities = logits.softmax(1)
    overlap = (2 * (probabilities * target).sum((0, 2, 3)) + 1) / ((probabilities + target).sum((0, 2, 3)) + 1)
    wanted = F.cross_entropy(logits, classes) + (1 - overlap).mean()
    assert torch.allclose(partial_loss(logits, candidates, torch.ones(7)), wanted, atol=1e-5)


def test_either_of_two_candidates_is_right() -> None:
    """A pixel that is hard or soft exudate: mass on either is as good, mass elsewhere is not."""
    candidates = torch.full((1, 2, 2), maps.bits((maps.EX, maps.SE)), dtype=torch.uint8)
    losses = []
    for c in (maps.EX, maps.SE, maps.HE):
        logits = torch.zeros(1, 7, 2, 2)
        logits[:, c] = 8
        losses.append(float(partial_loss(logits, candidates, torch.ones(7))))
    assert losses[0] == pytest.approx(losses[1])
    assert losses[2] > losses[0] + 1


def test_a_segmenter_finds_what_stands_out() -> None:
    rng = np.random.default_rng(0)
    classes = np.stack([maps.template(16) for _ in range(12)])
    for each in classes:
        top, left = rng.integers(4, 9, 2)
        each[top : top + 4, left : left + 4] = maps.HE
    images = maps.to_rgb(classes)
    candidates = (1 << classes).astype(np.uint8)
    config = SegmenterConfig(widths=(8, 8), steps=60, batch_size=4, learning_rate=0.02, weight_decay=0.0)
    network = fit_segmenter(candidates[:8], images[:8], config, 0)
    found = dice_of(network.find(images[8:]), classes[8:], np.arange(4), 20, 0)
    assert found["HE"].value > 0.8
    assert np.isnan(found["MA"].value), "there is none to be found"
    more = fit_segmenter(candidates[:8], images[:8], config.model_copy(update={"steps": 1}), 0, start=network)
    assert dice_of(more.find(images[8:]), classes[8:], np.arange(4), 0, 0)["HE"].value > 0.6, (
        "it goes on from what it was given"
    )


def test_an_untrained_segmenter_sees_classes_as_often_as_they_are() -> None:
    torch.manual_seed(0)
    network = Segmenter((8, 8))
    network.start_at([0.2, 0.001, 0.01, 0.0, 0.0, 0.02, 0.769])
    with torch.no_grad():
        told = network(torch.randn(2, 3, 16, 16)).softmax(1)
    assert torch.allclose(told.mean((0, 2, 3)), torch.tensor([0.2, 0.001, 0.01, 1e-4, 1e-4, 0.02, 0.769]), atol=1e-3)


def test_eyes_of_a_patient_are_drawn_together() -> None:
    """Two eyes that are alike in every patient tell no more than one: the interval is as wide."""
    rng = np.random.default_rng(0)
    truth = np.full((30, 4, 4), maps.VB, np.uint8)
    truth[:, :2, :2] = maps.EX
    found = np.where(rng.random(truth.shape) < 0.3, np.uint8(maps.EX), truth)
    one = dice_of(found, truth, np.arange(30), 200, 0)["EX"]
    both = dice_of(found.repeat(2, 0), truth.repeat(2, 0), np.arange(30).repeat(2), 200, 0)["EX"]
    assert both.value == pytest.approx(one.value)
    assert both.high - both.low == pytest.approx(one.high - one.low, rel=0.3)


def test_dice_by_hand() -> None:
    truth = np.full((1, 2, 4), maps.VB, np.uint8)
    truth[0, 0] = [maps.EX, maps.EX, maps.EX, maps.UNKNOWN]
    found = np.full((1, 2, 4), maps.EX, np.uint8)
    found[0, 1, 2:] = maps.VB
    pixels = overlaps(found, truth)["EX"]
    assert pixels.tolist() == [[3, 2, 0]], "unknown pixels are left out"
    assert pooled_dice(pixels) == pytest.approx(6 / 8)


def test_lesions_are_counted_and_measured() -> None:
    classes = maps.template(16)[None].copy()
    classes[0, 4:6, 4:6] = maps.HE
    classes[0, 8, 8] = classes[0, 9, 9] = maps.HE  # touch at a corner: one lesion
    classes[0, 12, 6] = maps.MA
    found = judging.lesion_measures(classes)
    assert found["counts"].tolist() == [[0, 2, 0, 1]]
    field = (classes != maps.BG).sum()
    assert found["areas"][0] == pytest.approx([0, 6 / field, 0, 1 / field])


def test_distances_by_grade_grow_with_what_is_wrong(eyes) -> None:
    def shifted(lesions: int) -> Examples:
        changed = eyes.candidates.copy()
        changed[:, 5 : 5 + lesions, 8] = maps.bits((maps.HE,))
        return Examples(changed, eyes.images, eyes.grades, eyes.patients, eyes.ids)

    same = judging.compare_lesions(eyes, eyes, eyes, 10, 0)
    near, far = (judging.compare_lesions(eyes, shifted(n), eyes, 10, 0) for n in (1, 5))
    assert same, "some grade has two eyes"
    for grade in same:
        area = [found[grade]["areas"]["HE"]["drawn"].value for found in (same, near, far)]
        assert area[0] == 0 < area[1] < area[2]
        assert near[grade]["areas"]["HE"]["floor"].value == 0
    assert set(same) == {str(g) for g in range(5) if (eyes.grades == g).sum() > 1}


def test_erasing_takes_the_largest_region_of_a_lesion() -> None:
    classes = maps.template(16)
    classes[3:5, 6:8] = maps.EX
    classes[10, 6] = maps.EX
    erased = judging.erase(classes, maps.EX)
    assert (erased == maps.EX).sum() == 1
    assert (judging.erase(classes, maps.MA) == classes).all()


def test_edits_are_judged(pipeline) -> None:
    classes = np.stack([maps.template(16)] * 2)
    classes[0, 6:9, 6:9] = maps.HE
    report = judging.judge_edits(pipeline, classes, [0, 1], 2, 10, 0)
    assert report.kept.n == 1, "a map without a lesion is passed over"
    assert report.kept.value == 1
    assert report.inside.value > 0
    nothing = judging.judge_edits(pipeline, classes[1:], [1], 2, 10, 0)
    assert np.isnan(nothing.kept.value)


def test_colours_are_held_against_those_of_the_reference(eyes) -> None:
    taken_over = judging.judge_style(eyes, np.roll(eyes.images, -1, 0), 5, 0)
    left_alone = judging.judge_style(eyes, eyes.images, 5, 0)
    assert left_alone.after.value == left_alone.before.value > 0
    # Fields of two eyes differ in shape, so that a photograph has other means in another's.
    assert taken_over.after.value < 0.5 * taken_over.before.value


def test_a_map_in_another_eyes_style_is_rendered_by_its_own_classes(pipeline, eyes) -> None:
    found = judging.restyled(pipeline, eyes.take([0, 1]))
    styles = pipeline.style_of(eyes.images[[1, 0]])
    assert (found == pipeline.render(eyes.classes[[0, 1]], styles=styles)).all()
