"""Noise by which neighbouring pixels are drawn alike, so that drawn lesions are as large as those of training maps.

Where each pixel's class is drawn on its own, smooth probabilities give dust: many lesions of one pixel. Here the noise
of a class is a smoothed normal field brought to Gumbel's distribution (a Gaussian copula): how often a pixel has a
class stays what its probabilities say, and how wide its regions are is a matter of the smoothing.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Keeps the logarithms of uniform noise finite.
_LEAST_UNIFORM = 1e-6
# Smoothing reaches an eighth of the side: wider lesions are the network's own affair.
_REACH = 8
# Halvings of the interval that the smoothing is looked for in: to a hundredth of it.
_HALVINGS = 7


def gumbel_noise(normal_bchw: Tensor, grain_c: Tensor) -> Tensor:
    """Gumbel noise b×c×s×s from normal noise of that shape, smoothed around the edges.

    Args:
        normal_bchw: independent, of unit variance.
        grain_c: standard deviation of each channel's smoothing, pixels; 0 leaves pixels independent.
    """
    channels, side = normal_bchw.shape[1:3]
    reach = max(1, side // _REACH)
    away = torch.arange(-reach, reach + 1, device=grain_c.device)
    weights = torch.exp(-0.5 * (away / grain_c.clamp_min(1e-3)[:, None]) ** 2)
    weights = F.normalize(weights, dim=1)[:, None]
    x = F.pad(normal_bchw, (reach,) * 4, mode="circular")
    x = F.conv2d(x, weights[:, :, None], groups=channels)
    x = F.conv2d(x, weights[..., None], groups=channels)
    uniform = torch.special.ndtr(x).clamp(_LEAST_UNIFORM, 1 - _LEAST_UNIFORM)
    return -(-uniform.log()).log()


def fit_grain(area: float, odds_nhw: Tensor, seed: int, others: float | None = None) -> float:
    """The smoothing at which the regions of a class that are drawn by its odds have this mean area.

    Args:
        area: of a connected region, pixels; nan for a class that there is none of.
        odds_nhw: logarithms of the odds of the class against all others, of n maps.
        seed: of the draws.
        others: smoothing of the other classes' noise; None for the one that is looked for.

    Returns:
        Standard deviation in pixels, at most a third of the reach of the smoothing; 0 for an ``area`` of nan.
    """
    if np.isnan(area):
        return 0.0
    shape = (len(odds_nhw), 2, *odds_nhw.shape[1:])
    normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(odds_nhw)
    low, high = 0.0, max(1, odds_nhw.shape[1] // _REACH) / 3
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        grain = torch.tensor([middle, middle if others is None else others]).to(odds_nhw)
        of_class, of_others = gumbel_noise(normal, grain).unbind(1)
        # Where nothing is drawn (nan), less smoothing does no harm.
        larger = mean_area((odds_nhw + of_class > of_others).numpy(force=True)) < area
        low, high = (middle, high) if larger else (low, middle)
    return (low + high) / 2


def mean_area(masks_nhw: np.ndarray) -> float:
    """Mean area of the connected regions of bool masks, pixels; nan where there is none."""
    regions = sum(cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in masks_nhw)
    return float(masks_nhw.sum() / regions) if regions else float("nan")
