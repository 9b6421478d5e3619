"""What an autoencoder keeps: of the whole picture, of vessels and of lesions."""

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


def contrast_kept(original: np.ndarray, rebuilt: np.ndarray, mask: np.ndarray) -> float:
    """Share of a structure's green-channel contrast that survives: 1 all, 0 none.

    Contrast is the mean of a rim of three pixels around the structure less the mean within it. Green, because blood
    absorbs it most. nan where the structure fills nothing or everything.

    Args:
        original: uint8, height × width × 3.
        rebuilt: of the same shape.
        mask: bool, height × width.
    """
    rim = (cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0) & ~mask
    if not mask.any() or not rim.any():
        return float("nan")
    contrasts = [float(image[..., 1][rim].mean()) - float(image[..., 1][mask].mean()) for image in (original, rebuilt)]
    return contrasts[1] / contrasts[0] if abs(contrasts[0]) > 1 else float("nan")
