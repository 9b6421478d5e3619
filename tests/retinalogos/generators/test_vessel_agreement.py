"""Kinds of vessels that are found: artery or vein."""

import numpy as np
import pytest

from retinalogos.generators.vessel_map.agreement import kind_accuracy


def test_kind_accuracy_counts_found_pixels_alone() -> None:
    truth = np.zeros((2, 4, 4), bool)
    truth[0, 0], truth[1, 1] = True, True
    found = np.zeros((2, 4, 4), bool)
    found[0, 0], found[0, 1, :2] = True, True  # half of the vein is called an artery, half is missed
    assert kind_accuracy(found, truth) == pytest.approx(4 / 6)
