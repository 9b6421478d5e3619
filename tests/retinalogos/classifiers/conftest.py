"""Drawn eyes whose labels can be seen, and a grader small enough for a test."""

import numpy as np
import pytest

from retinalogos.classifiers.configuration import GraderConfig


def draw_eyes(n: int, seed: int, size: int = 48) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Noisy orange discs: a bright disc on the side of the eye, large in glaucoma, and dark spots by grade 0-2."""
    rng = np.random.default_rng(seed)
    eye, glaucoma, grade = rng.integers(0, 2, n), rng.integers(0, 2, n), rng.integers(0, 3, n)
    images = np.array([150, 90, 50]) + rng.normal(0, 12, (n, size, size, 3))
    # Pixel centres: a mirrored left eye is exactly a right one.
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    for image, side, ill, load in zip(images, eye, glaucoma, grade, strict=True):
        away = np.hypot(x - (0.75 if side else 0.25), y - 0.5)
        image[away < (0.16 if ill else 0.07)] += 80
        for _ in range(6 * load):
            cx, cy = rng.uniform(0.1, 0.9, 2)
            image[np.hypot(x - cx, y - cy) < 0.05] -= 60
    return images.clip(0, 255).astype(np.uint8), {"dr_grade": grade, "glaucoma": glaucoma, "eye": eye}


@pytest.fixture(scope="session")
def eyes():
    """The function that draws them."""
    return draw_eyes


@pytest.fixture(scope="session")
def small_config() -> GraderConfig:
    return GraderConfig(
        backbone="small",
        size=48,
        widths=(16, 24),
        features=32,
        steps=120,
        batch_size=24,
        learning_rate=5e-3,
        weight_decay=0.05,
        validate_every=40,
        rotation=10,
        zoom=0.05,
        brightness=0.1,
        colour=0.1,
        flip_swaps={"eye": (1, 0)},
    )
