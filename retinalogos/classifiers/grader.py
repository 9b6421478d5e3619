"""Training and use of the grader: images and labels in, probabilities and features out."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from retinalogos.classifiers.configuration import Augmentation, GraderConfig
from retinalogos.classifiers.network import (
    GraderNetwork,
    SmallBackbone,
    by_depth,
    describe_backbone,
    new_backbone,
    normalise,
    restore_backbone,
)
from retinalogos.errors import DataError, UsageError
from retinalogos.progress import track
from retinalogos.training.logistic import logistic_regression

Labels = dict[str, np.ndarray]
UNKNOWN = -1
# Images per forward pass where no gradient is needed; bounds memory, does not change results.
PREDICT_BATCH = 64
# Per squared weight, beside the sum of the losses: scikit-learn's C = 10. Measured on the phantom and on ODIR-5K: of
# C = 0.01, 0.1, 1 and 10 the best.
LOGISTIC_PENALTY = 0.05
# Initial weights come from torch's one global random state: graders trained side by side take turns.
_INITIALISING = threading.Lock()


class Grader:
    """A trained grader."""

    def __init__(self, network: GraderNetwork, classes: dict[str, int], config: GraderConfig):
        self.network = network.eval()
        self.classes = dict(classes)
        self.config = config

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities under equal class frequencies, float32 n×classes, of every task.

        Args:
            images: uint8, n×h×w×3, any size.
        """
        batches = [{task: logits.softmax(1) for task, logits in self.network(x).items()} for x in self._batches(images)]
        return {
            task: torch.cat([batch[task] for batch in batches]).numpy(force=True)
            if batches
            else np.zeros((0, count), np.float32)
            for task, count in self.classes.items()
        }

    def features(self, images: np.ndarray) -> np.ndarray:
        """Penultimate activations, float32 n×features, of uint8 images n×h×w×3."""
        batches = [self.network.features(x) for x in self._batches(images)]
        return torch.cat(batches).numpy(force=True) if batches else np.zeros((0, self.config.features), np.float32)

    def learn_more(self, images: np.ndarray, labels: Labels) -> None:
        """Adds tasks of two classes by logistic regression on the features; nothing else of the grader changes.

        Args:
            images: uint8, n×h×w×3.
            labels: task → 0 or 1 (n,), -1 where unknown; each task has both.
        """
        features = torch.from_numpy(self.features(images))
        mean, spread = features.mean(0), features.std(0).clamp(min=torch.finfo(features.dtype).eps)
        heads = self.network.heads
        for task, values in labels.items():
            known = torch.from_numpy(values != UNKNOWN)
            target = F.one_hot(torch.from_numpy(values.astype(np.int64))[known], 2)
            rows = (features[known] - mean) / spread
            weights, biases = logistic_regression(rows, target, LOGISTIC_PENALTY / len(rows))
            head = torch.nn.Linear(features.shape[1], 2)
            with torch.no_grad():
                head.weight.copy_(weights / spread)
                head.bias.copy_(biases - (weights / spread) @ mean - _log_prior(values, 2))
            heads[task] = head.to(next(self.network.parameters()).device)
            self.classes[task] = 2

    def _batches(self, images: np.ndarray) -> Iterator[torch.Tensor]:
        device = next(self.network.parameters()).device
        backbone: Any = self.network.backbone
        with torch.inference_mode():
            for start in range(0, len(images), PREDICT_BATCH):
                batch = resize(images[start : start + PREDICT_BATCH], self.config.size)
                yield normalise(batch, backbone, device)

    def save(self, folder: Path) -> None:
        """Writes ``grader.json`` and ``grader.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        backbone: Any = self.network.backbone
        meta = {
            "classes": self.classes,
            "config": self.config.model_dump(mode="json"),
            "backbone": describe_backbone(backbone),
        }
        (folder / "grader.json").write_text(json.dumps(meta, indent=2) + "\n")
        save_file(
            {k: v.cpu().contiguous() for k, v in self.network.state_dict().items()}, folder / "grader.safetensors"
        )

    @classmethod
    def load(cls, folder: Path) -> "Grader":
        """Reads what :meth:`save` wrote; needs neither the hub nor the backbone's own folder.

        Raises:
            UsageError: the folder holds no grader.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / "grader.json").read_text())
        except FileNotFoundError:
            raise UsageError(f"{folder} is not a grader: it has no grader.json") from None
        config = GraderConfig.model_validate(meta["config"])
        backbone = restore_backbone(meta["backbone"], config.widths)
        network = GraderNetwork(backbone, backbone.dimension, config.features, meta["classes"])
        network.load_state_dict(load_file(folder / "grader.safetensors"))
        return cls(network, meta["classes"], config)


def fit_grader(
    images: np.ndarray,
    labels: Labels,
    classes: dict[str, int],
    config: GraderConfig,
    seed: int,
    validation: tuple[np.ndarray, Labels] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Grader:
    """Trains one network for all tasks at once.

    The loss is the balanced softmax (Ren et al., NeurIPS 2020; logit adjustment of Menon et al., ICLR 2021): cross
    entropy of ``logits + log class frequency``, so that the bare logits are those of equally frequent classes, and a
    rare class counts without the exploding weights of inverse frequency. Without ``config.balanced`` it is the cross
    entropy of the logits, from which the log frequencies are taken off at the end. Tasks are averaged; an unknown label
    adds nothing. With ``validation`` the state with the best mean AUC over the tasks is kept, else the last; with
    ``config.averaging`` it is the running mean of the weights that is looked at and kept.

    Deterministic on a CPU for a given number of threads; torch's global random state is left as it was.

    Args:
        images: uint8, n×h×w×3.
        labels: task → integers (n,), -1 where unknown.
        classes: task → number of classes.
        config: settings.
        seed: of initial weights, order and augmentation.
        validation: images and labels of the same form.
        on_step: called after each optimiser step, for a caller that shows the progress of several trainings; without
            it the progress of this one is shown.

    Raises:
        DataError: a label is out of range, or a task has no label at all.
    """
    for task, count in classes.items():
        check_labels(task, labels[task], count, len(images))
        if (labels[task] == UNKNOWN).all():
            raise DataError(f"task {task}: no training image has a label; leave the task out")
    for task, swap in config.flip_swaps.items():
        if task in classes and sorted(swap) != list(range(classes[task])):
            raise UsageError(f"flip_swaps.{task} = {list(swap)} is no permutation of {classes[task]} classes")
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _INITIALISING, torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = new_backbone(config.backbone, config.size, config.widths, config.pretrained)
        network = GraderNetwork(backbone, backbone.dimension, config.features, classes).to(where)
        # torch documents this call; its type stub lacks it.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = resize(images, config.size)
    _start(network, images, labels, classes, config)
    return _train(network, images, labels, classes, config, seed, validation, on_step, where)


def _start(
    network: GraderNetwork, images: np.ndarray, labels: Labels, classes: dict[str, int], config: GraderConfig
) -> None:
    """Starts from logistic regression on the features that the small backbone is given: in seconds, what they tell.

    Tasks that a mirror image changes are left out: these features do not know sides.
    """
    backbone: Any = network.backbone
    if not isinstance(backbone, SmallBackbone):
        return
    where = backbone.moments_mean.device
    parts = (images[start : start + PREDICT_BATCH] for start in range(0, len(images), PREDICT_BATCH))
    moments = backbone.standardise_moments(normalise(part, backbone, where) for part in parts).cpu()
    if not config.pretrained:
        return
    scores = {}
    for task in classes.keys() - config.flip_swaps.keys():
        known = labels[task] != UNKNOWN
        target = F.one_hot(torch.from_numpy(labels[task][known].astype(np.int64)), classes[task])
        weights, biases = logistic_regression(moments[torch.from_numpy(known)], target, LOGISTIC_PENALTY / known.sum())
        scores[task] = (weights, biases - config.balanced * _log_prior(labels[task], classes[task]))
    network.start_at(dict(sorted(scores.items())))


def _train(
    network: GraderNetwork,
    images: np.ndarray,
    labels: Labels,
    classes: dict[str, int],
    config: GraderConfig,
    seed: int,
    validation: tuple[np.ndarray, Labels] | None,
    on_step: Callable[[], None] | None,
    where: torch.device,
) -> Grader:
    grader = Grader(network, classes, config)
    backbone: Any = network.backbone
    rng = np.random.default_rng(seed)
    targets = {task: torch.from_numpy(labels[task].astype(np.int64)).to(where) for task in classes}
    log_prior = {task: _log_prior(labels[task], count).to(where) for task, count in classes.items()}
    swaps = {task: torch.tensor(swap, device=where) for task, swap in config.flip_swaps.items() if task in classes}
    if validation is not None:
        validation = (resize(validation[0], config.size), validation[1])
    groups = _groups(network, config)
    optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=config.steps + 1)
    order = batches(len(images), config.batch_size, rng)
    mean = None
    if config.averaging:
        mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.averaging), use_buffers=True)
        grader = Grader(cast(GraderNetwork, mean.module), classes, config)
    best, kept = -np.inf, None
    if validation is not None:
        best, kept = _score(grader, *validation), _state(grader.network)
    network.train()
    steps: Iterable[int] = range(1, config.steps + 1)
    for step in track(steps, "grader", unit="step") if on_step is None else steps:
        rows = next(order)
        moved, unmoved, flipped = _augment(normalise(images[rows], backbone, where), config, rng)
        loss = torch.zeros((), device=where)
        for task, logits in network(moved, unmoved).items():
            target = targets[task][rows]
            if task in swaps:
                target = torch.where(flipped & (target != UNKNOWN), swaps[task][target.clamp(min=0)], target)
            known = target != UNKNOWN
            if known.any():
                found = logits[known] + config.balanced * log_prior[task]
                entropy = F.cross_entropy(found, target[known], label_smoothing=config.label_smoothing)
                loss = loss + entropy / len(classes)
        if loss.requires_grad:
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            if mean is not None:
                mean.update_parameters(network)
        schedule.step()
        if validation is not None and (step % config.validate_every == 0 or step == config.steps):
            grader.network.eval()
            score = _score(grader, *validation)
            network.train()
            if score > best:
                best, kept = score, _state(grader.network)
        if on_step is not None:
            on_step()
    if kept is not None:
        grader.network.load_state_dict(kept)
    if not config.balanced:
        heads: Any = grader.network.heads
        with torch.no_grad():
            for task, prior in log_prior.items():
                heads[task].bias -= prior
    grader.network.eval()
    return grader


def _groups(network: GraderNetwork, config: GraderConfig) -> list[dict[str, Any]]:
    """What is learnt at which rate: the heads at that of the recipe, the backbone's blocks at less the deeper they lie.

    Raises:
        UsageError: blocks should differ and the backbone has none.
    """
    depths = by_depth(network.backbone)
    if config.layer_decay < 1 and len(depths) < 3:
        raise UsageError(f"layer_decay {config.layer_decay:g}: backbone {config.backbone!r} has no numbered blocks")
    rate = config.learning_rate * config.backbone_rate
    groups = [{"params": values, "lr": rate * config.layer_decay**depth} for depth, values in depths.items() if values]
    own = set(map(id, network.backbone.parameters()))
    rest = [value for value in network.parameters() if id(value) not in own]
    return [*groups, {"params": rest, "lr": config.learning_rate}]


def _state(network: GraderNetwork) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 n×h×w×3 to n×size×size×3; smaller by area average, larger by cubic interpolation."""
    if images.shape[1:3] == (size, size):
        return images
    method = cv2.INTER_AREA if size < images.shape[1] else cv2.INTER_CUBIC
    resized = np.empty((len(images), size, size, 3), np.uint8)
    for source, target in zip(images, resized, strict=True):
        target[:] = cv2.resize(source, (size, size), interpolation=method)
    return resized


def check_labels(task: str, values: np.ndarray, classes: int, rows: int) -> None:
    """Raises DataError where ``values`` are not ``rows`` integers of -1 … classes - 1."""
    if values.shape != (rows,):
        raise DataError(f"task {task}: {values.shape} labels for {rows} images; give one per image, -1 for unknown")
    wrong = np.flatnonzero((values < UNKNOWN) | (values >= classes))
    if wrong.size:
        raise DataError(
            f"task {task}, image {wrong[0]}: label {values[wrong[0]]} is not one of -1 (unknown) … {classes - 1}"
        )


def _log_prior(values: np.ndarray, classes: int) -> torch.Tensor:
    """Log frequency of every class; one count is added to each, so that an absent class stays finite."""
    counts = np.bincount(values[values != UNKNOWN], minlength=classes) + 1
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def batches(n: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of row numbers: every row once per pass, in a new order each pass."""
    rest = np.empty(0, np.int64)
    while True:
        while len(rest) < batch:
            rest = np.concatenate([rest, rng.permutation(n)])
        yield rest[:batch]
        rest = rest[batch:]


def random_moves(n: int, config: Augmentation, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random rotation, scale and mirror image, and random gains.

    Returns:
        Affine maps from new to old places n×2×3 as ``torch.nn.functional.affine_grid`` takes them, gains n×3×1×1 of the
        channels, both float32, and which are mirrored, bool (n,).
    """
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation, n))
    scale = 1 + rng.uniform(-config.zoom, config.zoom, n)
    flipped = (rng.random(n) < 0.5) & config.mirror
    gain = 1 + rng.uniform(-config.colour, config.colour, (n, 3, 1, 1))
    gain *= 1 + rng.uniform(-config.brightness, config.brightness, (n, 1, 1, 1))
    mirror = np.where(flipped, -1.0, 1.0)
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) * scale * mirror, -np.sin(angle) * scale
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * scale * mirror, np.cos(angle) * scale
    return theta, gain.astype(np.float32), flipped


def _augment(
    x_bchw: torch.Tensor, config: GraderConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random rotation, scale, mirror image, brightness and colour.

    Returns the images, the same without rotation, scale and mirror image, and which were mirrored.
    """
    theta, gain, flipped = random_moves(len(x_bchw), config, rng)
    # Images are centred on zero here: gains act as contrast about mid grey, which is what cameras differ in.
    tinted = x_bchw * torch.from_numpy(gain).to(x_bchw.device)
    grid = F.affine_grid(torch.from_numpy(theta).to(x_bchw.device), list(x_bchw.shape), align_corners=False)
    moved = F.grid_sample(tinted, grid, padding_mode="border", align_corners=False)
    return moved, tinted, torch.from_numpy(flipped).to(x_bchw.device)


def _score(grader: Grader, images: np.ndarray, labels: Labels) -> float:
    """Mean over tasks of the mean one-against-rest AUC of the classes present; 0 where no task has two."""
    probabilities = grader.predict(images)
    areas = []
    for task, values in probabilities.items():
        known = labels[task] != UNKNOWN
        present = np.unique(labels[task][known])
        if len(present) > 1:
            areas.append(np.mean([roc_auc_score(labels[task][known] == c, values[known, c]) for c in present]))
    return float(np.mean(areas)) if areas else 0.0
