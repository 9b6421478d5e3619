"""Training and use of a segmenter: images and maps in, probabilities of structures out."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from retinalogos.classifiers.grader import batches, random_moves, resize
from retinalogos.errors import DataError, UsageError
from retinalogos.progress import track
from retinalogos.segmenters.configuration import SegmenterConfig
from retinalogos.segmenters.loss import soft_dice
from retinalogos.segmenters.network import UNet
from retinalogos.segmenters.overlap import count, figures
from retinalogos.segmenters.structures import Targets

# Images per forward pass where no gradient is needed; bounds memory, does not change results.
PREDICT_BATCH = 16
# Initial weights come from torch's one global random state: segmenters trained side by side take turns.
_INITIALISING = threading.Lock()


class Segmenter:
    """A trained segmenter."""

    def __init__(self, network: UNet, structures: Sequence[str], config: SegmenterConfig):
        self.network, self.structures, self.config = network.eval(), tuple(structures), config

    def predict(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Probabilities, float32 b×structures×size×size, batch by batch: those of all images may not fit into memory.

        Args:
            images: uint8, n×h×w×3, any size.
        """
        where = next(self.network.parameters()).device
        for start in range(0, len(images), PREDICT_BATCH):
            batch = resize(images[start : start + PREDICT_BATCH], self.config.size)
            with torch.inference_mode():
                probabilities = self.network(_normalised(batch, where)).sigmoid().numpy(force=True)
            # Not within: a generator that waits would leave its caller in that mode.
            yield probabilities

    def save(self, folder: Path) -> None:
        """Writes ``segmenter.json`` and ``segmenter.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        meta = {"structures": self.structures, "config": self.config.model_dump(mode="json")}
        (folder / "segmenter.json").write_text(json.dumps(meta, indent=2) + "\n")
        weights = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        save_file(weights, folder / "segmenter.safetensors")

    @classmethod
    def load(cls, folder: Path) -> "Segmenter":
        """Reads what :meth:`save` wrote.

        Raises:
            UsageError: the folder holds no segmenter.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / "segmenter.json").read_text())
        except FileNotFoundError:
            raise UsageError(f"{folder} is not a segmenter: it has no segmenter.json") from None
        config = SegmenterConfig.model_validate(meta["config"])
        network = UNet(config.widths, len(meta["structures"]))
        network.load_state_dict(load_file(folder / "segmenter.safetensors"))
        return cls(network, meta["structures"], config)


def fit_segmenter(
    images: np.ndarray,
    targets: Targets,
    structures: Sequence[str],
    config: SegmenterConfig,
    seed: int,
    validation: tuple[np.ndarray, Targets] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Segmenter:
    """Trains one network for all structures at once, each a picture of its own: a lesion may lie on a vessel.

    The loss is cross entropy plus the soft Dice loss of the batch (Isensee et al., Nature Methods 2021), per structure;
    the first learns in every pixel, the second weighs a lesion of ten pixels as much as a disc. What was not looked for
    in an eye, and what lies outside of its field of view, adds nothing. With ``validation`` the state with the best
    mean Dice is kept, else the last.

    Deterministic on a CPU for a given number of threads; torch's global random state is left as it was.

    Args:
        images: uint8, n×h×w×3, of the size of the configuration or another.
        targets: their maps at the size of the configuration.
        structures: to learn.
        config: settings.
        seed: of initial weights, order and augmentation.
        validation: images and targets of the same form.
        on_step: called after each optimiser step; without it the progress is shown.

    Raises:
        DataError: no training image shows one of the structures, or the maps are of another size.
    """
    for structure in structures:
        if not targets.shown(structure).any():
            raise DataError(f"structure {structure}: no training image shows it; leave it out")
    if targets.inside.shape[1:] != (config.size, config.size):
        raise DataError(f"maps of {targets.inside.shape[1]} px for a segmenter of {config.size} px: read them anew")
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _INITIALISING, torch.random.fork_rng():
        torch.manual_seed(seed)
        network = UNet(config.widths, len(structures))
    network.start_at([_share(targets, structure) for structure in structures])
    network = network.to(where)
    segmenter = Segmenter(network, structures, config)
    images = resize(images, config.size)
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps + 1)
    order = batches(len(images), config.batch_size, rng)
    best, kept = -np.inf, None
    network.train()
    steps: Iterable[int] = range(1, config.steps + 1)
    for step in track(steps, "segmenter", unit="step") if on_step is None else steps:
        rows = next(order)
        truth, counted = _targets(targets.take(rows), structures, where)
        moved, truth, counted = _augment(_normalised(images[rows], where), truth, counted, config, rng)
        loss = _loss(network(moved), truth, counted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if validation is not None and (step % config.validate_every == 0 or step == config.steps):
            network.eval()
            score = _score(segmenter, *validation)
            network.train()
            if score > best:
                best, kept = score, {name: value.clone() for name, value in network.state_dict().items()}
        if on_step is not None:
            on_step()
    if kept is not None:
        network.load_state_dict(kept)
    network.eval()
    return segmenter


def _share(targets: Targets, structure: str) -> float:
    """Share of the pixels in which a structure was looked for that show it."""
    known = targets.known[structure]
    inside = targets.inside[known]
    return float(targets.mask(structure)[known][inside].mean())


def _normalised(images: np.ndarray, where: torch.device) -> torch.Tensor:
    return torch.from_numpy(images).to(where).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def _targets(targets: Targets, structures: Sequence[str], where: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Truth, and where it counts, float32 b×structures×h×h, 0 or 1."""
    truth = np.stack([targets.mask(structure) for structure in structures], 1)
    known = np.stack([targets.known[structure] for structure in structures], 1)
    counted = known[:, :, None, None] & targets.inside[:, None]
    return torch.from_numpy(truth).to(where).float(), torch.from_numpy(counted).to(where).float()


def _augment(
    x_bchw: torch.Tensor,
    truth: torch.Tensor,
    counted: torch.Tensor,
    config: SegmenterConfig,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same rotation, scale and mirror image of picture and maps; brightness and colour of the picture alone."""
    theta, gain, _ = random_moves(len(x_bchw), config, rng)
    grid = F.affine_grid(torch.from_numpy(theta).to(x_bchw.device), list(x_bchw.shape), align_corners=False)
    x_bchw = x_bchw * torch.from_numpy(gain).to(x_bchw.device)
    moved = F.grid_sample(x_bchw, grid, padding_mode="border", align_corners=False)
    # What a turned picture shows from beyond the edge is not known: zeros there do not count.
    truth, counted = (
        F.grid_sample(maps, grid, mode=mode, padding_mode="zeros", align_corners=False)
        for maps, mode in ((truth, "bilinear"), (counted, "nearest"))
    )
    return moved, truth, counted


def _loss(logits: torch.Tensor, truth: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Mean over the structures that count anywhere in the batch."""
    entropy = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * counted).sum((0, 2, 3))
    dice = soft_dice(logits.sigmoid(), truth, counted, (0, 2, 3))
    pixels = counted.sum((0, 2, 3))
    each = torch.where(pixels > 0, entropy / pixels.clamp(min=1) + 1 - dice, torch.zeros_like(dice))
    return each.sum() / (pixels > 0).sum().clamp(min=1)


def _score(segmenter: Segmenter, images: np.ndarray, targets: Targets) -> float:
    """Mean Dice over the structures that these images show; 0 where they show none."""
    counts = count(segmenter.predict(images), segmenter.structures, targets)
    found = [
        figures(counts[structure])["dice"].item()
        for structure in segmenter.structures
        if targets.shown(structure).any()
    ]
    return float(np.mean(found)) if found else 0.0
