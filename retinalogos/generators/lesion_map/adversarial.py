"""The loop that trains a generator against a discriminator, with the habits of the project's one training loop.

Whatever a step draws at random comes from generators seeded by (seed, step), so that a run that was killed and started
again ends with the same weights. Gradients are computed in pieces side by side, and averaged over processes.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from retinalogos.errors import DataError
from retinalogos.generators.lesion_map.configuration import AdversarialConfig
from retinalogos.progress import track
from retinalogos.training import checkpoints, distributed
from retinalogos.training.device import device
from retinalogos.training.loop import Gradients


class Objective(Protocol):
    """What is trained: two networks and what each tries."""

    @property
    def generator(self) -> nn.Module:
        """Draws."""

    @property
    def discriminator(self) -> nn.Module:
        """Tells what was drawn from what is real."""

    def discriminator_loss(self, discriminator: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Mean loss over these rows of the step's batch."""

    def generator_loss(self, generator: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Mean loss over these rows of the step's batch."""

    def after(self, step: int) -> dict[str, float]:
        """Called when both networks have made the step; figures to log."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the networks."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts back what :meth:`state` gave."""

    def sample(self, path: Path) -> None:
        """Draws a picture with the generator as it is now."""


def train(objective: Objective, config: AdversarialConfig, log: Path, checkpoint_folder: Path, what: str) -> None:
    """Trains both networks in place and leaves the generator's exponential moving average in it, in evaluation mode.

    Args:
        objective: its networks are moved to the accelerator where there is one.
        config: see :class:`AdversarialConfig`.
        log: folder for ``log.jsonl``, ``curves.json`` and ``samples/*.png``.
        checkpoint_folder: where checkpoints are kept; a run that finds one there goes on from it.
        what: name shown in the progress line.

    Raises:
        UsageError: the batch does not divide into equal pieces for each process.
        DataError: a gradient is not finite; the file named holds the step's number and the weights it began with.
    """
    where = device()
    distributed.join(where)
    first = distributed.rank() == distributed.FIRST
    networks = {"generator": objective.generator, "discriminator": objective.discriminator}
    losses = {"generator": objective.generator_loss, "discriminator": objective.discriminator_loss}
    rates = {"generator": config.generator_rate, "discriminator": config.discriminator_rate}
    for network in networks.values():
        # Convolutions run faster channels-last on every device.
        network.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=rates[name], betas=(config.beta1, config.beta2), fused=True)
        for name, network in networks.items()
    }
    gradients = {name: Gradients(network, losses[name], config, torch.float32) for name, network in networks.items()}
    average = {name: value.detach().clone() for name, value in objective.generator.state_dict().items()}
    records: list[dict[str, Any]] = []
    start = 0

    def state(done: int) -> dict[str, Any]:
        return {
            "step": done,
            "records": json.dumps(records),
            "networks": {name: network.state_dict() for name, network in networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
            "average": average,
            "objective": objective.state(),
        }

    saved = checkpoints.load_latest(checkpoint_folder)
    if saved is not None:
        for name, network in networks.items():
            network.load_state_dict(saved["networks"][name])
            optimizers[name].load_state_dict(saved["optimizers"][name])
        for name, value in saved["average"].items():
            average[name].copy_(value)
        objective.load(saved["objective"])
        records, start = json.loads(saved["records"]), saved["step"]
        print(f"{what}: going on from step {start} of {config.steps}", flush=True)

    for step in track(range(start, config.steps), what, unit="step"):
        record: dict[str, float] = {"step": step + 1}
        for name in ("discriminator", "generator"):
            for other, network in networks.items():
                network.requires_grad_(other == name)
            for group in optimizers[name].param_groups:
                group["lr"] = rates[name] * decay(step, config.steps, config.decay_share)
            value = gradients[name](step)
            found = [weight.grad for weight in networks[name].parameters() if weight.grad is not None]
            norm = nn.utils.get_total_norm(found)
            if not torch.isfinite(norm):
                _give_up(checkpoint_folder, step, name, networks, what)
            optimizers[name].step()
            record |= {f"{name}_loss": round(float(value), 6), f"{name}_gradient_norm": round(float(norm), 6)}
        _follow(average, objective.generator, min(config.ema_decay, (1 + step) / (10 + step)))
        record |= {name: round(value, 6) for name, value in objective.after(step).items()}
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            records.append(record)
        if done % config.sample_every == 0 or done == config.steps:
            _sample(objective, average, log / "samples" / f"step-{done:06d}.png", first)
        if done % config.checkpoint_every == 0 and done < config.steps:
            checkpoints.save(checkpoint_folder, done, state(done))
    for each in gradients.values():
        each.close()
    if first:
        log.mkdir(parents=True, exist_ok=True)
        (log / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        # The same for `dvc plots`, which wants a list whose entries have all keys.
        (log / "curves.json").write_text(json.dumps(records) + "\n")
    objective.generator.load_state_dict(average)
    for network in networks.values():
        network.requires_grad_(False).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def decay(step: int, steps: int, share: float) -> float:
    """Share of the learning rate: all of it, then linearly to zero in the last ``share`` of the steps."""
    return min(1.0, (steps - step) / (share * steps)) if share else 1.0


def _follow(average: dict[str, Tensor], network: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - keep)


def _sample(objective: Objective, average: dict[str, Tensor], path: Path, first: bool) -> None:
    kept = {name: value.clone() for name, value in objective.generator.state_dict().items()}
    objective.generator.load_state_dict(average)
    objective.generator.eval()
    if first:
        path.parent.mkdir(parents=True, exist_ok=True)
        objective.sample(path)
    objective.generator.load_state_dict(kept)
    objective.generator.train()


def _give_up(folder: Path, step: int, name: str, networks: dict[str, nn.Module], what: str) -> None:
    path = checkpoints.not_finite(folder, step)
    if distributed.rank() == distributed.FIRST:
        states = {other: network.state_dict() for other, network in networks.items()}
        checkpoints.write(path, {"step": step, "network": name, "networks": states})
    distributed.wait_for_all()
    raise DataError(
        f"{what}: the {name}'s gradient is not finite at step {step}; the weights it began with are in {path}, the "
        f"last whole checkpoint beside it; lower {what}.training.{name}_rate"
    )


def checkpoint_folder(parent: Path, settings: list[Any], data: list[np.ndarray]) -> Path:
    """Where a run keeps its checkpoints: the same for the same settings and data, so that a killed run goes on."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in data:
        digest.update(np.ascontiguousarray(array).tobytes())
    return parent / digest.hexdigest()[:16]
