"""A small network that finds arteries, veins and the optic nerve head in hyperspectral cubes.

Synthetic cubes have no truth maps. Trained on real cubes with theirs, the network finds the structures of real and of
synthetic cubes alike, so that what it does wrong it does wrong in both.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.cohort.cubes import FULL_SCALE
from retinalogos.cohort.shards import Cohort, decode_map
from retinalogos.errors import DataError
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.loop import train

BACKGROUND, ARTERY, VEIN, NERVE_HEAD = range(4)
STRUCTURES = {"arteries": ARTERY, "veins": VEIN, "nerve_head": NERVE_HEAD}
# Each layer sees twice as far as the last: 63 pixels in all.
_DILATIONS = (1, 2, 4, 8, 16)
_BATCH = 8


def structure_map(vessels: np.ndarray, disc_cup: np.ndarray) -> np.ndarray:
    """Classes of the pixels from a cohort's maps, uint8; crossings are left to the artery, which lies in front."""
    classes = np.zeros(vessels.shape, np.uint8)
    classes[vessels == 2] = VEIN
    classes[np.isin(vessels, (1, 3))] = ARTERY
    classes[disc_cup > 0] = NERVE_HEAD
    return classes


def structure_maps(cohort: Cohort, split: str) -> np.ndarray | None:
    """Classes of all cubes of a split in their order, n × size × size; None where a cube has no maps."""
    maps = []
    for row in cohort.rows(("vessels", "disc_cup"), split):
        if row["vessels"] is None or row["disc_cup"] is None:
            return None
        maps.append(structure_map(decode_map(row["vessels"]["bytes"]), decode_map(row["disc_cup"]["bytes"])))
    return np.stack(maps) if maps else None


class StructureNetwork(nn.Module):
    """Dilated convolutions at full resolution: vessels are a pixel wide.

    Args:
        scale: mean reflectance of each band inside the field.
        width: channels.
    """

    scale: Tensor

    def __init__(self, scale: np.ndarray, width: int):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).view(-1, 1, 1))
        self.first = nn.Conv2d(len(scale), width, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d) for d in _DILATIONS)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in _DILATIONS)
        self.last = nn.Conv2d(width, len(STRUCTURES) + 1, 1)

    def hidden(self, values: Tensor) -> Tensor:
        """Features B×width×H×W of cubes of uint16 values as float, B×bands×H×W."""
        x = F.relu(self.first((values / FULL_SCALE / self.scale).sqrt() - 1))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + F.relu(norm(layer(x)))
        return x

    def forward(self, values: Tensor) -> Tensor:
        """Logits of the classes, B×4×H×W."""
        logits: Tensor = self.last(self.hidden(values))
        return logits


@dataclass
class StructureFinder:
    """A trained network: :meth:`classes` of pixels, and :meth:`features` of whole cubes for a Fréchet distance."""

    network: StructureNetwork
    name: str = "structures"

    @torch.no_grad()
    def classes(self, values: np.ndarray) -> np.ndarray:
        """Class of each pixel of uint16 cubes n×bands×H×W: uint8 n×H×W."""
        parts = [self.network(_floats(values[i : i + _BATCH])).argmax(1) for i in range(0, len(values), _BATCH)]
        return torch.cat(parts).byte().numpy()

    @torch.no_grad()
    def features(self, values: np.ndarray) -> np.ndarray:
        """Mean and standard deviation of every channel over the cube: n × 2·width."""
        parts = []
        for start in range(0, len(values), _BATCH):
            hidden = self.network.hidden(_floats(values[start : start + _BATCH]))
            parts.append(torch.cat([hidden.mean((2, 3)), hidden.std((2, 3))], 1))
        return torch.cat(parts).numpy()


def _floats(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def train_finder(
    cubes: np.ndarray,
    classes: np.ndarray,
    validation: np.ndarray,
    validation_classes: np.ndarray,
    width: int,
    training: TrainingConfig,
    seed: int,
    log: Path,
    checkpoints: Path,
) -> StructureFinder:
    """Trains on cubes (uint16 n×bands×size×size, or a memory map of such) and their classes, n×size×size.

    Classes weigh as the inverse root of their frequency, so that a vessel is not outvoted by what lies around it.

    Raises:
        DataError: a structure occurs nowhere in the training maps.
    """
    counts = np.bincount(classes.ravel(), minlength=len(STRUCTURES) + 1)
    missing = [name for name, value in STRUCTURES.items() if not counts[value]]
    if missing:
        raise DataError(f"the truth maps of the training cubes show no {', no '.join(missing)}: ingest more cubes")
    weights = torch.tensor((counts / counts.sum()) ** -0.5, dtype=torch.float32)
    some = cubes[:: max(1, len(cubes) // 64)]
    inside = some.max(1) > 0
    scale = np.array([band[inside].mean() for band in np.moveaxis(some, 1, 0)]) / FULL_SCALE
    torch.manual_seed(seed)

    def loss(model: nn.Module, step: int | None, rows: slice) -> Tensor:
        if step is None:
            x, y = validation, validation_classes
        else:
            rng = np.random.default_rng([seed, step])
            places = rng.integers(0, len(cubes), training.batch_size)
            # Up-down mirrors too: vessels and disc look alike either way.
            axes = tuple(axis for axis in (-2, -1) if rng.random() < 0.5)
            x, y = (np.flip(np.stack([a[p] for p in places]), axes)[rows] for a in (cubes, classes))
        where = next(model.parameters()).device
        target = torch.from_numpy(np.ascontiguousarray(y)).long().to(where)
        return F.cross_entropy(model(_floats(x).to(where)).float(), target, weights.to(where))

    network = train(StructureNetwork(scale, width), loss, training, log, checkpoints, "judge_cubes.structures")
    assert isinstance(network, StructureNetwork)
    return StructureFinder(network)
