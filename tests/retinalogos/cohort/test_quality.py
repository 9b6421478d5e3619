import cv2
import numpy as np
import pytest
from drawn_eye import draw_eye

from retinalogos.cohort.quality import assess_quality

# Fainter than drawn, so that no measure is full.
EYE = cv2.GaussianBlur(cv2.resize(draw_eye(4, 512), (256, 256), interpolation=cv2.INTER_AREA), (0, 0), 2)
EYE = (EYE * 0.3 + 70 * (EYE > 0)).astype(np.uint8)


def score(image: np.ndarray, coverage: float = 1.0) -> float:
    return assess_quality(image, coverage).score


@pytest.mark.parametrize(
    ("what", "worse"),
    [
        ("sharpness", cv2.GaussianBlur(EYE, (0, 0), 8)),
        ("contrast", (EYE * 0.2 + 90 * (EYE > 0)).astype(np.uint8)),
        ("illumination", (EYE * np.linspace(0.05, 1, 256)[None, :, None]).astype(np.uint8)),
    ],
)
def test_each_defect_lowers_its_own_measure_and_the_score(what: str, worse: np.ndarray) -> None:
    assert getattr(assess_quality(worse, 1.0), what) < getattr(assess_quality(EYE, 1.0), what)
    assert score(worse) < score(EYE)


def test_coverage_lowers_the_score() -> None:
    assert score(EYE, 0.5) == pytest.approx(score(EYE) * 0.5**0.25)


def test_scores_lie_between_zero_and_one() -> None:
    rng = np.random.default_rng(0)
    for image in (EYE, np.zeros_like(EYE), np.full_like(EYE, 255), rng.integers(0, 256, EYE.shape, np.uint8)):
        assert 0 <= score(image) <= 1


def test_quality_hardly_depends_on_the_stored_size() -> None:
    big = draw_eye(4, 512)
    assert score(cv2.resize(big, (256, 256), interpolation=cv2.INTER_AREA)) == pytest.approx(score(big), abs=0.03)
