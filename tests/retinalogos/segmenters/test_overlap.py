"""Figures of segmentations against scikit-learn on the pixels themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from retinalogos.segmenters.overlap import count, figures
from retinalogos.segmenters.structures import MAPS, STRUCTURES, Targets

SIZE = 12


def targets(vessels: np.ndarray, known: np.ndarray, inside: np.ndarray) -> Targets:
    maps = {name: np.zeros_like(vessels) for name in MAPS} | {"vessels": vessels}
    return Targets(maps, dict.fromkeys(STRUCTURES, known), inside)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_all_pixels_of_all_images_that_count_are_one_set(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, SIZE, SIZE)) < 0.3).astype(np.uint8)
    truth[0, 0, 0], truth[0, 0, 1] = 1, 0
    known, inside = rng.random(n) < 0.7, rng.random((n, SIZE, SIZE)) < 0.8
    known[0], inside[0, 0, :2] = True, True
    # Probabilities of eight levels, so that each has a class of its own.
    level = rng.integers(0, 8, truth.shape) + 2 * truth
    probability = 1 / (1 + np.exp(-(level - 4.25) / 2))
    counts = count([probability[:, None].astype(np.float32)], ["vessel"], targets(truth, known, inside))["vessel"]
    assert counts.sum() == inside[known].sum()
    counted = known[:, None, None] & inside
    right, seen = truth[counted], probability[counted]
    found = {name: value.item() for name, value in figures(counts).items()}
    assert found == pytest.approx(
        {
            "dice": f1_score(right, seen > 0.5, zero_division=0),
            "iou": jaccard_score(right, seen > 0.5, zero_division=0),
            "auc": roc_auc_score(right, seen),
            "average_precision": average_precision_score(right, seen),
        }
    )


def test_an_image_counts_as_often_as_it_was_drawn_and_none_has_no_figure() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((3, SIZE, SIZE)) < 0.3).astype(np.uint8)
    whole = targets(truth, np.ones(3, bool), np.ones(truth.shape, bool))
    counts = count([rng.random((3, 1, SIZE, SIZE)).astype(np.float32)], ["vessel"], whole)["vessel"]
    drawn = figures(counts, np.array([[2.0, 0, 1], [0, 0, 0]]))
    twice = figures(counts[[0, 0, 2]])
    for name, values in drawn.items():
        assert values[0] == pytest.approx(twice[name].item())
        assert np.isnan(values[1])
