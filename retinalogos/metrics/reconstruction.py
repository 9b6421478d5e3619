"""What an autoencoder keeps: of the whole picture, of vessels and of lesions."""

from collections.abc import Sequence

import cv2
import numpy as np


def psnr(original: np.ndarray, rebuilt: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, ``10·log₁₀(255² / mean squared error)``.

    Args:
        original: uint8, ...×3.
        rebuilt: of the same shape.
        mask: bool, ... : only there; nan where it is empty.
    """
    error = np.square(original.astype(np.float64) - rebuilt.astype(np.float64)).mean(-1)
    if mask is not None:
        error = error[mask]
    return float(10 * np.log10(255**2 / error.mean())) if error.size and error.mean() > 0 else float("nan")


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Green-channel contrast of a structure in grey levels: mean of a rim of three pixels less the mean within.

    Green, because blood absorbs it most; vessels and haemorrhages are positive, exudates negative. nan where the
    structure fills nothing or everything.

    Args:
        image: uint8, height × width × 3.
        mask: bool, height × width.
    """
    rim = (cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & ~mask
    if not mask.any() or not rim.any():
        return float("nan")
    green = image[..., 1].astype(np.float64)
    return float(green[rim].mean() - green[mask].mean())


def contrast_kept(pairs: Sequence[tuple[float, float]]) -> float:
    """Share of a structure's contrast that survives, over many images: 1 all, 0 none.

    The regression of the rebuilt on the original contrasts through zero, ``Σ original·rebuilt / Σ original²``: an image
    in which the structure hardly shows has little weight. nan where no image has both.

    Args:
        pairs: (original, rebuilt) contrast of each image, of :func:`contrast`.
    """
    known = np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2)
    power = float(np.square(known[:, 0]).sum())
    return float((known[:, 0] * known[:, 1]).sum() / power) if power > 0 else float("nan")
