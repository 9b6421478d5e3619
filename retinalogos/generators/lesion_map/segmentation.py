"""A small network that finds the classes of a lesion map in photographs: the judge of what was drawn."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import SegmenterConfig
from retinalogos.metrics.intervals import Estimate, bootstrap
from retinalogos.metrics.overlap import dice_of_counts
from retinalogos.progress import track
from retinalogos.segmenters.loss import soft_dice
from retinalogos.segmenters.network import UNet
from retinalogos.training.device import device

_BATCH = 32
# Of a class's frequency in its weight: rare lesions count more, without drowning all else (Eigen and Fergus, ICCV 2015,
# balance fully, which is the power 1).
_BALANCE = 0.5
# Share of the pixels that a class has at the start at least: one that is not marked is not ruled out.
_LEAST_SHARE = 1e-4


class Segmenter(UNet):
    """The U-Net, with a channel for each class; of a pixel one class is right.

    Args:
        widths: channels at full, half, … side, multiples of 8.
    """

    def __init__(self, widths: tuple[int, ...]):
        super().__init__(widths, len(maps.CLASSES))

    def start_at(self, shares: Sequence[float]) -> None:
        """As the U-Net's, of classes of which one is right; else hundreds of steps go into that most is retina."""
        nn.init.zeros_(self.head.weight)
        self.head.bias = nn.Parameter(torch.tensor(shares, dtype=torch.float32).clamp_min(_LEAST_SHARE).log())

    @torch.inference_mode()
    def find(self, images: np.ndarray) -> np.ndarray:
        """uint8 photographs n×h×w×3 to uint8 classes n×h×w."""
        where, found = next(self.parameters()).device, []
        for start in range(0, len(images), _BATCH):
            logits = self(_scaled(images[start : start + _BATCH], where))
            found.append(logits.argmax(1).to(torch.uint8).cpu().numpy())
        return np.concatenate(found)


def _scaled(images: np.ndarray, where: torch.device) -> Tensor:
    return torch.from_numpy(images).to(where).permute(0, 3, 1, 2).float() / 127.5 - 1


def partial_loss(logits_bchw: Tensor, candidates_bhw: Tensor, weights_c: Tensor) -> Tensor:
    """−log of the probability that a pixel is one of its candidates, weighted by their classes; plus soft Dice.

    With one candidate that is cross entropy. A pixel that may be anything adds nothing. Dice is taken over the pixels
    whose class is known.
    """
    bits = 1 << torch.arange(len(maps.CLASSES), device=logits_bchw.device)
    possible = (candidates_bhw[:, None] & bits[:, None, None]) > 0
    whole = torch.logsumexp(logits_bchw, 1)
    among = torch.logsumexp(logits_bchw.masked_fill(~possible, -torch.inf), 1)
    weight = torch.where(possible, weights_c[:, None, None], 0).amax(1)
    entropy = (weight * (whole - among)).sum() / weight.sum().clamp_min(1e-6)
    known = (possible.sum(1, keepdim=True) == 1).float()
    return entropy + (1 - soft_dice(logits_bchw.softmax(1), possible.float(), known, (0, 2, 3))).mean()


def fit_segmenter(
    candidates: np.ndarray,
    images: np.ndarray,
    config: SegmenterConfig,
    seed: int,
    start: Segmenter | None = None,
    what: str = "segmenter",
) -> Segmenter:
    """Trains a segmenter; eyes are mirrored and turned upside down at random.

    Args:
        candidates: uint8 n×h×w, a bit for each class that a pixel may be: what is not marked teaches nothing.
        images: uint8 n×h×w×3.
        config: settings.
        seed: of weights and draws.
        start: a trained network to go on from.
        what: name shown in the progress line.

    Returns:
        The network in evaluation mode.
    """
    where, rng = device(), np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Segmenter(config.widths)
    share = np.array([((candidates & (1 << c)) > 0).mean() for c in range(len(maps.CLASSES))])
    if start is None:
        network.start_at(share.tolist())
    else:
        network.load_state_dict(start.state_dict())
    network.to(where).train()
    weights = torch.tensor(np.where(share > 0, np.maximum(share, 1e-6) ** -_BALANCE, 0), dtype=torch.float32).to(where)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps + 1)
    for _ in track(range(config.steps), what, unit="step"):
        rows = rng.integers(len(images), size=config.batch_size)
        flips = tuple(axis for axis in (1, 2) if rng.random() < 0.5)
        chosen = [np.ascontiguousarray(np.flip(part[rows], flips)) for part in (images, candidates)]
        loss = partial_loss(network(_scaled(chosen[0], where)), torch.from_numpy(chosen[1]).to(where), weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def overlaps(found: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Of each lesion and of the disc, n×3: pixels in both, in ``found`` only and in ``truth`` only.

    Args:
        found: uint8 classes, n×h×w.
        truth: uint8 classes, n×h×w; pixels of unknown class are left out.
    """
    known = truth != maps.UNKNOWN
    result = {}
    for c in (*maps.LESIONS, maps.OD):
        a, b = (found == c) & known, truth == c
        result[maps.CLASSES[c]] = np.stack([(a & b).sum((1, 2)), (a & ~b).sum((1, 2)), (b & ~a).sum((1, 2))], 1)
    return result


def pooled_dice(pixels: np.ndarray) -> float:
    """Dice coefficient of all pixels of a set together, from n×3 of :func:`overlaps`; nan where there are none."""
    both, first, second = pixels.sum(0)
    return float(dice_of_counts(both, both + first, both + second))


def dice_of(
    found: np.ndarray, truth: np.ndarray, patients: np.ndarray, resamples: int, seed: int
) -> Mapping[str, Estimate]:
    """Dice of each lesion and of the disc, with bootstrap intervals over patients; see :func:`overlaps`."""
    return {
        name: bootstrap(pooled_dice, pixels, resamples=resamples, seed=seed, groups=patients)
        for name, pixels in overlaps(found, truth).items()
    }
