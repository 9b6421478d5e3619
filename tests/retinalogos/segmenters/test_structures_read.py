"""What a segmenter sees in pictures without maps."""

from collections.abc import Iterator

import numpy as np
import pytest

from retinalogos.segmenters.reading import joined, read_structures


class Seeing:
    """A segmenter whose answers are given."""

    structures = ("disc", "cup", "haemorrhage")

    def __init__(self, probabilities: np.ndarray):
        self.probabilities = probabilities

    def predict(self, images: np.ndarray) -> Iterator[np.ndarray]:
        yield from (self.probabilities[:2], self.probabilities[2:])


def test_areas_disc_and_cup_are_read() -> None:
    answers = np.zeros((3, 3, 20, 20), np.float32)
    answers[0, 0, 5:15, 2:8] = 1  # a disc of 10 pixels' height on the left
    answers[0, 0, 0, 19] = 0.9  # and a speck that is none
    answers[0, 1, 8:12, 4:6] = 0.8  # a cup of 4
    answers[1, 0, 5:15, 12:18] = 1  # a disc without a cup
    answers[2, 2, :10] = 0.5  # no disc
    images = np.zeros((3, 20, 20, 3), np.uint8)
    seen = read_structures(Seeing(answers), images)
    assert seen.vcdr.tolist() == pytest.approx([0.4, 0, np.nan], nan_ok=True)
    assert seen.disc_x.tolist() == pytest.approx([0.25, 0.75, np.nan], nan_ok=True)
    assert seen.areas["haemorrhage"].tolist() == [0, 0, 0.25]
    twice = joined([seen, seen])
    assert twice.areas["disc"].tolist() == seen.areas["disc"].tolist() * 2
    assert len(twice.vcdr) == len(twice.disc_x) == 6
