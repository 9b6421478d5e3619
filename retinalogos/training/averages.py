"""Averages of any width after training: Karras et al., arXiv 2312.02696, section 3.

Two averages of the weights are tracked and saved from time to time. That of width ``γ`` at step t weighs the weights
after step k by ``(k^(γ+1) − (k−1)^(γ+1)) / t^(γ+1)``: a power function whose standard deviation is a fixed share of the
run so far, its relative width. Another width's weighing is nearly a sum of multiples of those of the snapshots, and its
average is then the same sum of the snapshots.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from retinalogos.errors import UsageError

# Relative widths that are tracked: section 3.2 of the paper.
TRACKED = (0.05, 0.10)
# That of γ = 0, the plain mean of all weights.
_WIDEST = 12**-0.5


def share_of_new(width: float, step: int) -> float:
    """Share of the weights after ``step`` (from 1) in the average: ``1 − (1 − 1/step)^(γ+1)``."""
    return float(1 - (1 - 1 / step) ** (_exponent(width) + 1))


def profile(width: float, step: int, steps: int) -> np.ndarray:
    """Shares, of sum 1, of the weights after each of ``steps`` steps in the average that was reached at ``step``."""
    reached = (np.minimum(np.arange(steps + 1), step) / step) ** (_exponent(width) + 1)
    return np.diff(reached)


def save_snapshots(folder: Path, step: int, averages: Mapping[float, Mapping[str, Tensor]]) -> None:
    """Writes the averages by width, each to ``step-N-width-W.safetensors``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, average in averages.items():
        path = folder / f"step-{step:08d}-width-{width}.safetensors"
        partial = path.with_suffix(".partial")
        tensors = {name: value.contiguous() for name, value in average.items()}
        save_file(tensors, partial, metadata={"profile": json.dumps([width, step])})
        os.replace(partial, path)


def reconstruct(folder: Path, width: float) -> tuple[dict[str, Tensor], float]:
    """The average of relative ``width`` at the last snapshot of a folder, by name of the weight, and how far off it is.

    The latter is the share (0-1) of its profile, as a root mean square, that no sum of the snapshots' profiles gives:
    near zero between the tracked widths; with 20 snapshots 0.03 at width 0.03, 0.06 at 0.25 and 0.25 at the plain mean.

    Args:
        folder: that of the snapshots, in the log of a run with ``snapshot_every``.
        width: standard deviation of the profile as a share of the run; above 0 and at most 0.288, the plain mean.

    Raises:
        UsageError: the folder holds no snapshot, or there is no average of this width.
    """
    paths = sorted(folder.glob("step-*.safetensors"))
    if not paths:
        raise UsageError(f"{folder} holds no snapshots of averages: train with snapshot_every above 0")
    files = [safe_open(path, "pt") for path in paths]
    made: list[tuple[float, int]] = [json.loads(file.metadata()["profile"]) for file in files]
    last = max(step for _, step in made)
    known = np.stack([profile(each, step, last) for each, step in made], 1)
    wanted = profile(width, last, last)
    factors = np.linalg.lstsq(known, wanted)[0]
    # Factors of both signs are far larger than what they add up to: float32 would lose digits.
    average = {
        name: sum(factor * file.get_tensor(name).double() for factor, file in zip(factors, files, strict=True)).float()
        for name in files[0].keys()  # noqa: SIM118 it is no mapping
    }
    return average, float(np.linalg.norm(known @ factors - wanted) / np.linalg.norm(wanted))


def _exponent(width: float) -> float:
    """γ of relative width σ: the largest root of ``(γ + 2)²(γ + 3) = (γ + 1) / σ²``."""
    if not 0 < width <= _WIDEST:
        raise UsageError(f"no average has the relative width {width}: it is above 0 and at most {_WIDEST:.3f}")
    return max(0.0, float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max()))
