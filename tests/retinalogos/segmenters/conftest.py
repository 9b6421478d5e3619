"""Drawn structures, and a segmenter small enough for a test."""

import pytest
from drawn_structures import SIZE, draw_annotated

from retinalogos.segmenters.configuration import SegmenterConfig


@pytest.fixture(scope="session")
def annotated():
    """The function that draws them."""
    return draw_annotated


@pytest.fixture(scope="session")
def small_segmenter() -> SegmenterConfig:
    return SegmenterConfig(
        size=SIZE,
        widths=(8, 16),
        steps=60,
        batch_size=8,
        learning_rate=0.02,
        weight_decay=0.01,
        validate_every=20,
        rotation=10,
        zoom=0.05,
        brightness=0.05,
        colour=0.05,
    )
