"""Arteries and veins on photographs: a small U-Net labels cohorts without vessel maps, and judges drawn pictures."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, logsigmoid

from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.configuration import SegmenterConfig
from retinalogos.generators.vessel_map.examples import Examples, has_vessels, joined, read_examples
from retinalogos.generators.vessel_map.maps import to_channels
from retinalogos.segmenters.loss import soft_dice
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import device
from retinalogos.training.loop import train

# Photographs at a time: bounds memory.
_BATCH = 16
_THRESHOLD = 0.5
# Standard deviation, in shares of the side, of the surroundings that light and pigment are taken from: well above the
# widest vessel, well below the field.
_SURROUNDINGS = 0.06
_JITTER = 0.25  # relative change of contrast, either way, by lot


class Segmenter(Protocol):
    """Finds arteries and veins."""

    size: int

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """uint8 n×h×w×3 to float32 n×2×h×w: artery and vein."""


def levelled(images_nhwc: np.ndarray) -> Tensor:
    """n×3×h×w: each channel less its surroundings, over their spread: cameras and pigment fall away.

    Args:
        images_nhwc: uint8.
    """
    found = []
    for image in np.asarray(images_nhwc):
        values = image.astype(np.float32)
        sigma = _SURROUNDINGS * image.shape[0]
        mean = cv2.GaussianBlur(values, (0, 0), sigma)
        spread = np.sqrt(np.maximum(cv2.GaussianBlur((values - mean) ** 2, (0, 0), 2 * sigma), 1.0))
        found.append((values - mean) / spread)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


class UNetSegmenter:
    """The project's own, see :func:`train_segmenter`."""

    def __init__(self, network: UNet2DModel):
        self.network, self.size = network, int(network.config.sample_size)

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """See :class:`Segmenter`."""
        where = next(self.network.parameters()).device
        found = [
            torch.sigmoid(_logits(self.network, levelled(images[start : start + _BATCH]).to(where))).cpu().numpy()
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(found) if found else np.zeros((0, 2, *images.shape[1:3]), np.float32)

    def save(self, folder: Path) -> None:
        """Writes diffusers' folder."""
        self.network.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> "UNetSegmenter":
        """Loads what :meth:`save` wrote.

        Raises:
            UsageError: the folder holds none.
        """
        try:
            network = UNet2DModel.from_pretrained(str(folder))
        except OSError as error:
            raise UsageError(f"{folder} holds no vessel segmenter ({str(error).splitlines()[0]})") from None
        return cls(network.eval().requires_grad_(False).to(device()))


def _logits(network: nn.Module, seen_bchw: Tensor) -> Tensor:
    # diffusers' U-Net also wants a time: here always zero.
    return network(seen_bchw, torch.zeros(len(seen_bchw), device=seen_bchw.device), return_dict=False)[0]


def found(probabilities_n2hw: np.ndarray) -> np.ndarray:
    """Bool n×2×h×w: artery and vein where they are likelier than not."""
    return probabilities_n2hw >= _THRESHOLD


@dataclass
class Segmentation:
    """Cross-entropy and soft Dice loss (Milletari et al., 3DV 2016), per kind; within the field of view.

    Eyes whose map does not tell the kinds teach where a vessel is: of them the probability that either is there counts.

    Args:
        eyes: training eyes.
        validation: eyes of the fixed validation batch; where there are none, training eyes.
        batch_size: eyes of a step.
        seed: of order and augmentation.
    """

    eyes: Examples
    validation: Examples
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not len(self.eyes):
            raise UsageError("no training eye has a vessel map: a segmenter has nothing to learn from")

    def __call__(self, model: nn.Module, step: int | None, rows: slice = slice(None)) -> Tensor:
        """Loss over ``rows`` of a training step's batch, or of the validation batch where ``step`` is None."""
        where = next(model.parameters()).device
        drawn = {name: value[rows].to(where) for name, value in self.batch(step).items()}
        logits = _logits(model, drawn["seen"]).float()
        told = torch.sigmoid(logits)
        # log((1 − a)(1 − v)) is finite where the product itself rounds to zero.
        either = 1 - torch.exp(logsigmoid(-logits).sum(1, keepdim=True))
        truth, known, field = drawn["truth"], drawn["known"].view(-1, 1, 1, 1), drawn["field"]
        both = _error(told, truth, field)
        one = _error(either, truth.amax(1, keepdim=True), field)
        return (known * both.mean(1).view(-1, 1, 1, 1) + (1 - known) * one.view(-1, 1, 1, 1)).mean()

    def batch(self, step: int | None) -> dict[str, Tensor]:
        """What a step shows: ``seen`` (B×3×h×w), ``truth`` (B×2×h×w), ``field`` (B×1×h×w) and ``known`` (B)."""
        eyes = self.eyes if step is not None or not len(self.validation) else self.validation
        if step is None:
            chosen = np.arange(len(eyes))[:: max(1, len(eyes) // 32)][:32]
        else:
            chosen = np.array(
                [
                    _order(len(eyes), self.seed, epoch)[place]
                    for epoch, place in (
                        divmod(position, len(eyes))
                        for position in range(step * self.batch_size, (step + 1) * self.batch_size)
                    )
                ]
            )
        seen = levelled(eyes.images[chosen])
        truth = torch.from_numpy(np.stack([to_channels(one) for one in eyes.maps[chosen]])).float()
        field = torch.from_numpy(np.asarray(eyes.fields[chosen])).float()[:, None]
        if step is not None:
            draw = np.random.default_rng([self.seed, step])
            contrast = 1 + draw.uniform(-_JITTER, _JITTER, (len(chosen), 3, 1, 1))
            seen = seen * torch.from_numpy(contrast).float()
            flips = [axis for axis in (2, 3) if draw.random() < 0.5]
            seen, truth, field = (torch.flip(one, flips) for one in (seen, truth, field))
        return {"seen": seen, "truth": truth, "field": field, "known": torch.from_numpy(eyes.known[chosen]).float()}


def _error(told_bchw: Tensor, truth_bchw: Tensor, field_b1hw: Tensor) -> Tensor:
    """B×C: cross-entropy and 1 − soft Dice."""
    with torch.autocast(told_bchw.device.type, enabled=False):
        entropy = binary_cross_entropy(told_bchw.clamp(1e-6, 1 - 1e-6), truth_bchw, reduction="none") * field_b1hw
    dice = soft_dice(told_bchw, truth_bchw, field_b1hw, (2, 3))
    return entropy.sum((2, 3)) / field_b1hw.sum((2, 3)).clamp(min=1) + 1 - dice


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 2]).permutation(n)


def fit(
    eyes: Examples,
    validation: Examples,
    config: SegmenterConfig,
    training: TrainingConfig,
    seed: int,
    checkpoints: Path,
    log: Path,
    what: str = "vessel segmenter",
    keep: bool = False,
) -> UNetSegmenter:
    """Trains a segmenter with the project's loop; checkpoints are removed when it has ended well.

    With ``keep`` the trained one stays there in their place, and is taken if the same is asked for again: for whoever
    trains many and is killed between them.
    """
    torch.manual_seed(seed)
    try:
        network = UNet2DModel(sample_size=config.size, in_channels=3, out_channels=2, **config.unet)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: the U-Net refuses its arguments {config.unet}: {error}") from None
    about = [config.model_dump(), training.model_dump(), seed, eyes.ids, validation.ids, what]
    folder = checkpoints / hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    finished = folder.with_name(f"{folder.name}-finished")
    if keep and finished.is_dir():
        print(f"{what}: trained before", flush=True)
        return UNetSegmenter.load(finished)
    loss = Segmentation(eyes, validation, training.batch_size, seed)
    trained = train(network, loss, training, log, folder, what, batch=loss.batch)
    segmenter = UNetSegmenter(trained.requires_grad_(False).to(device()))
    if keep:
        partial = folder.with_name(f"{folder.name}-partial")
        segmenter.save(partial)
        partial.rename(finished)
    shutil.rmtree(folder, ignore_errors=True)
    return segmenter


def train_segmenter(
    cohorts: Sequence[Cohort],
    config: SegmenterConfig,
    training: TrainingConfig,
    seed: int,
    checkpoints: Path,
    log: Path,
) -> tuple[UNetSegmenter, int]:
    """Trains on the training split of all cohorts together; returns the segmenter and the number of its eyes."""
    with tempfile.TemporaryDirectory() as scratch:
        eyes, validation = (
            joined(
                [
                    read_examples(cohort, split, config.size, Path(scratch) / f"{split}{i}", has_vessels)
                    for i, cohort in enumerate(cohorts)
                ]
            )
            for split in ("train", "validation")
        )
        return fit(eyes, validation, config, training, seed, checkpoints, log), len(eyes)


def predictions(segmenter: Segmenter, eyes: Examples) -> Iterator[tuple[int, np.ndarray]]:
    """Index and probabilities 2×h×w of each eye, a batch in memory at a time."""
    for start in range(0, len(eyes), _BATCH):
        yield from enumerate(segmenter.probabilities(np.asarray(eyes.images[start : start + _BATCH])), start)
