import cv2
import numpy as np
import pytest

from retinalogos.metrics.reconstruction import contrast, contrast_kept, psnr


def vessel(depth):
    image = np.full((32, 32, 3), 120, np.uint8)
    image[:, 14:17] -= depth
    mask = np.zeros((32, 32), bool)
    mask[:, 14:17] = True
    return image, mask


def test_psnr_is_that_of_opencv():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert psnr(one, other) == pytest.approx(cv2.PSNR(one, other), abs=1e-6)
    assert np.isnan(psnr(one, one))
    assert np.isnan(psnr(one, other, np.zeros((16, 16), bool)))


def test_contrast_is_the_depth_and_what_is_kept_its_share():
    depths = (10, 40, 60)
    originals = [contrast(*vessel(depth)) for depth in depths]
    assert originals == list(depths)
    halves = [contrast(*vessel(depth // 2)) for depth in depths]
    assert contrast_kept(list(zip(originals, halves, strict=True))) == pytest.approx(0.5)
    assert contrast_kept([*zip(originals, originals, strict=True), (float("nan"), 3.0)]) == pytest.approx(1)
    assert np.isnan(contrast_kept([]))


def test_blur_loses_contrast():
    image, mask = vessel(40)
    assert contrast(cv2.GaussianBlur(image, (0, 0), 3), mask) < 0.5 * contrast(image, mask)
    assert np.isnan(contrast(image, np.zeros_like(mask)))
