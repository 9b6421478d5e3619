"""Large pictures in overlapping tiles: at every step of drawing the tiles' predictions are blended, so no seam is left.

Blending predictions, not finished pictures, is what MultiDiffusion does (Bar-Tal et al., arXiv 2302.08113): all tiles
work on one picture and agree step by step.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.diffusion import Predict


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover ``length``, neighbours sharing at least ``overlap`` pixels.

    Raises:
        UsageError: the overlap is not smaller than the tile.
    """
    if not 0 <= overlap < tile:
        raise UsageError(f"tiles of {tile} pixels cannot overlap by {overlap}: choose an overlap from 0 to {tile - 1}")
    if length <= tile:
        return [0]
    count = 1 + -(-(length - tile) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def in_tiles(tile: int, overlap: int) -> Callable[[Predict], Predict]:
    """A wrapper for :func:`~.diffusion.draw` that runs the network on tiles of ``tile`` pixels, one at a time.

    Memory is that of one tile's network run, whatever the picture's size.
    """

    def wrap(predict: Predict) -> Predict:
        def blended(x: Tensor, t_b: Tensor, condition: Tensor, joined_b: Tensor | None) -> Tensor:
            height, width = x.shape[-2:]
            total, weight = x.new_zeros(()), x.new_zeros(height, width)
            for top in starts(height, tile, overlap):
                for left in starts(width, tile, overlap):
                    part = (..., slice(top, top + tile), slice(left, left + tile))
                    found = predict(x[part], t_b, condition[part], joined_b)
                    if not total.ndim:
                        total = found.new_zeros(len(x), found.shape[1], height, width)
                    window = torch.outer(*(_ramp(side, overlap).to(x) for side in found.shape[-2:]))
                    total[part] += window * found
                    weight[part] += window
            return total / weight

        return blended

    return wrap


def _ramp(side: int, overlap: int) -> Tensor:
    """Weight of a tile's pixels: from its edge it grows over the overlap; nowhere zero."""
    from_edge = torch.minimum(torch.arange(side), torch.arange(side).flip(0)) + 1.0
    return (from_edge / (overlap + 1)).clamp(max=1.0)


def seam(image_hwc: np.ndarray, tile: int, overlap: int) -> float:
    """How much stronger a picture's steps are at the edges of tiles than elsewhere: 1 is no seam.

    Mean absolute difference of neighbouring pixels across all edges of tiles, over the mean at all other places.

    Args:
        image_hwc: uint8.
        tile, overlap: of the drawing; a picture of one tile has no edge and gives nan.
    """
    at: list[np.ndarray] = []
    elsewhere: list[np.ndarray] = []
    for axis in (0, 1):
        steps = np.abs(np.diff(image_hwc.astype(np.float64), axis=axis)).mean(2)
        steps = steps if axis == 0 else steps.T
        length = image_hwc.shape[axis]
        begins = starts(length, tile, overlap)
        edges = np.unique([*begins[1:], *(begin + tile for begin in begins[:-1])]).astype(int) - 1
        at.append(steps[edges].ravel())
        elsewhere.append(np.delete(steps, edges, axis=0).ravel())
    edge, other = np.concatenate(at), np.concatenate(elsewhere)
    return float(edge.mean() / other.mean()) if edge.size and other.mean() > 0 else float("nan")
