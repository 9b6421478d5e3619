"""The judge: what it reads from the pixels of eyes that it was not calibrated on."""

import json
import math

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from retinalogos.errors import UsageError
from retinalogos.phantom import draw, measure, sample_records
from retinalogos.phantom.measure import true_loads


@pytest.fixture(scope="module")
def fresh() -> tuple[np.ndarray, list[dict], list[dict]]:
    records = sample_records(120, seed=77)
    rows = [record.cohort_row() for record in records]
    images = np.stack([eye.image for eye in draw(records, 128)])
    return images, rows, [json.loads(row["truth"]) for row in rows]


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_disc_cup_and_load_are_read_back(fresh: tuple[np.ndarray, list[dict], list[dict]], sigma: float) -> None:
    images, rows, truth = fresh
    if sigma:
        images = np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])
    found = measure(images)
    assert np.mean([f["disc_side"] == row["eye"] for f, row in zip(found, rows, strict=True)]) >= 0.98
    seen = [(f, t) for f, t in zip(found, truth, strict=True) if f["disc_side"] is not None]
    assert len(seen) >= 0.98 * len(found)
    off = [math.hypot(f["disc_x"] - t["disc_x"], f["disc_y"] - t["disc_y"]) for f, t in seen]
    assert np.median(off) < 0.012
    away = [math.hypot(f["fovea_x"] - t["fovea_x"], f["fovea_y"] - t["fovea_y"]) for f, t in seen]
    assert np.median(away) < 0.02
    vcdr = np.array([(f["vcdr"], t["vcdr"]) for f, t in seen])
    assert np.abs(vcdr[:, 0] - vcdr[:, 1]).mean() < 0.06
    assert np.corrcoef(vcdr.T)[0, 1] > 0.90
    loads = np.array([true_loads(t["lesion_areas"]) for _, t in seen])
    assert spearmanr([f["dark_load"] for f, _ in seen], loads[:, 0])[0] > 0.75
    assert spearmanr([f["bright_load"] for f, _ in seen], loads[:, 1])[0] > 0.75


def test_severe_eyes_have_more_dark_load_than_healthy_ones(fresh: tuple[np.ndarray, list[dict], list[dict]]) -> None:
    images, rows, _ = fresh
    dark = np.array([f["dark_load"] for f in measure(images)])
    grade = np.array([row["dr_grade"] for row in rows])
    assert np.nanmin(dark[grade == 3]) > np.nanpercentile(dark[grade == 0], 95)


def test_a_picture_is_read_alone_and_at_any_size(fresh: tuple[np.ndarray, list[dict], list[dict]]) -> None:
    images, _, truth = fresh
    assert measure(images[5:6]) == [measure(images[:8])[5]]
    large = np.stack([cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC) for image in images[:8]])
    for found, t in zip(measure(large), truth, strict=False):
        assert found["disc_side"] == t["disc_side"]


def test_where_there_is_no_disc_nothing_is_read() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (4, 128, 128, 3), dtype=np.uint8)
    flat = np.stack([np.full((128, 128, 3), level, np.uint8) for level in (0, 128, 255)])
    for found in measure(np.concatenate([noise, flat])):
        assert found.pop("disc_side") is None
        assert all(math.isnan(value) for value in found.values())


def test_wrong_arrays_are_refused() -> None:
    for wrong in (
        np.zeros((2, 64, 64), np.uint8),
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((1, 64, 32, 3), np.uint8),
    ):
        with pytest.raises(UsageError, match="uint8"):
            measure(wrong)
    assert measure(np.zeros((0, 64, 64, 3), np.uint8)) == []
