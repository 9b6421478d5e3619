"""A segmenter learns what can be seen, and says what it cannot learn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import DataError, UsageError
from retinalogos.phantom import draw, sample_records
from retinalogos.segmenters.network import UNet
from retinalogos.segmenters.overlap import count, figures
from retinalogos.segmenters.segmenter import Segmenter, fit_segmenter
from retinalogos.segmenters.structures import read_annotated

LEARNT = ("vessel", "disc", "cup", "haemorrhage")


@pytest.fixture(scope="module")
def trained(annotated, small_segmenter):
    train, validation = annotated("train", 48, 0), annotated("validation", 12, 1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    segmenter = fit_segmenter(
        train.eyes.images, train.targets, LEARNT, small_segmenter, 0, (validation.eyes.images, validation.targets)
    )
    assert torch.equal(before, torch.get_rng_state())
    return segmenter


def test_it_finds_structures_in_other_pictures(trained, annotated):
    test = annotated("test", 24, 2)
    counts = count(trained.predict(test.eyes.images), LEARNT, test.targets)
    dice = {structure: figures(counts[structure])["dice"].item() for structure in LEARNT}
    assert min(dice.values()) > 0.4, dice
    assert dice["disc"] > 0.7


def test_it_is_the_same_after_saving(trained, annotated, tmp_path):
    trained.save(tmp_path)
    assert json.loads((tmp_path / "segmenter.json").read_text())["structures"] == list(LEARNT)
    again = Segmenter.load(tmp_path)
    images = annotated("test", 3, 2).eyes.images
    assert np.array_equal(next(again.predict(images)), next(trained.predict(images)))
    with pytest.raises(UsageError, match="is not a segmenter"):
        Segmenter.load(tmp_path / "elsewhere")


def test_what_was_not_looked_for_teaches_nothing(annotated, small_segmenter):
    few = small_segmenter.model_copy(update={"steps": 3})
    train = annotated("train", 8, 0)
    half = np.arange(8) < 4
    known = replace(train.targets, known={name: half & seen for name, seen in train.targets.known.items()})
    wiped = {name: values * half[:, None, None].astype(np.uint8) for name, values in train.targets.maps.items()}
    answers = [
        next(fit_segmenter(train.eyes.images, targets, LEARNT, few, 0).predict(train.eyes.images))
        for targets in (known, replace(known, maps=wiped))
    ]
    assert np.array_equal(*answers)


def test_what_cannot_be_learnt_is_said(annotated, small_segmenter):
    train = annotated("train", 4, 0)
    with pytest.raises(DataError, match="structure drusen: no training image shows it"):
        fit_segmenter(train.eyes.images, train.targets, ("drusen",), small_segmenter, 0)
    larger = small_segmenter.model_copy(update={"size": 48})
    with pytest.raises(DataError, match="maps of 32 px for a segmenter of 48 px"):
        fit_segmenter(train.eyes.images, train.targets, ("disc",), larger, 0)
    with pytest.raises(UsageError, match="multiple of 8"):
        UNet((12,), 1)


def test_maps_of_a_cohort_are_read_at_the_size_asked_for(tmp_path):
    records = sample_records(6, seed=0)
    with CohortWriter(tmp_path, "eyes") as writer:
        for number, (record, eye) in enumerate(zip(records, draw(records, 64), strict=True)):
            row = record.cohort_row() | {"image_id": str(number), "split": "train", "sha256": "", "width": 64}
            row |= {"height": 64, "source": "one" if number < 4 else "other"}
            row["image"] = {"bytes": encode_png(eye.image), "path": ""}
            if number != 0:
                row["vessels"] = {"bytes": encode_png(eye.vessels), "path": ""}
                row["fov"] = {"bytes": encode_png(eye.fov), "path": ""}
            if number in (1, 4):
                # The other source marks soft exudates alone.
                marked = np.where(np.arange(64)[:, None] < 4, 4, eye.lesions if number == 1 else 0).astype(np.uint8)
                row["lesions"] = {"bytes": encode_png(np.broadcast_to(marked, (64, 64)).copy()), "path": ""}
            writer.add(row)
    found = read_annotated(Cohort(tmp_path), "train", 32)
    assert found.eyes.image_id.tolist() == ["1", "2", "3", "4", "5"]
    assert found.eyes.images.shape == (5, 32, 32, 3)
    assert found.targets.known["vessel"].all()
    assert found.targets.known["soft_exudate"].tolist() == [True, False, False, True, False]
    assert not found.targets.known["disc"].any()
    assert not found.targets.known["exudate"].any()
    assert not found.targets.inside[:, 0, 0].any()
    share = found.targets.mask("vessel")[found.targets.inside].mean()
    assert 0.02 < share < 0.3
