"""The one training loop: every generator of the project runs it.

Whatever a step draws at random comes from generators seeded by (seed, step), so a run that was killed and started again
ends with the same weights as one that was not (bit for bit on CPU).
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retinalogos.errors import DataError
from retinalogos.progress import track
from retinalogos.training import averages, checkpoints
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import compute_dtype, device

# loss(model, step, rows): mean over these rows of the step's batch; loss(model, None, all rows): over the fixed
# validation batch and noise.
Loss = Callable[[nn.Module, int | None, slice], Tensor]
WHOLE = slice(None)
# sample(model, path) writes a picture of what the averaged model draws now.
Sample = Callable[[nn.Module, Path], None]
# batch(step): the step's batch as plain values and tensors, for whoever looks into a step that went wrong.
Batch = Callable[[int], dict[str, Any]]


def train(
    model: nn.Module,
    loss: Loss,
    config: TrainingConfig,
    log: Path,
    checkpoint_folder: Path,
    what: str,
    sample: Sample | None = None,
    batch: Batch | None = None,
) -> nn.Module:
    """Trains ``model`` in place and returns its exponential moving average.

    Args:
        model: float32 weights; moved to the accelerator where there is one.
        loss: mean loss over rows of a step's batch; the batch is a function of the step's number alone.
        config: see :class:`TrainingConfig`.
        log: folder for ``log.jsonl``, ``samples/*.png`` and, where snapshots are wanted, ``averages/``.
        checkpoint_folder: where checkpoints are kept; a run that finds one there goes on from it.
        what: name shown in the progress line.
        sample: draws with the averaged model every ``sample_every`` steps.
        batch: tells what a step's batch was, for the file that is written when its gradient is not finite.

    Raises:
        DataError: a gradient is not finite. The file named holds the step's number, its batch and the weights that it
            began with: with them, ``loss(model, step, WHOLE)`` is the same again.
    """
    where = device()
    dtype = compute_dtype(config.precision, where)
    # Convolutions run faster channels-last on every device; matrices are not touched by it.
    model.to(where).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = _copy(model)
    # Further averages by relative width, see the module `averages`.
    powers = {width: _copy(model) for width in averages.TRACKED} if config.snapshot_every else {}
    optimizer = torch.optim.AdamW(
        _decayed(model, config.weight_decay),
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        fused=True,
    )
    records: list[dict[str, Any]] = []
    start = 0
    state = checkpoints.load_latest(checkpoint_folder)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for values, saved in zip((average, *powers.values()), (state["average"], *state["powers"]), strict=True):
            for name, value in saved.items():
                values[name].copy_(value)
        records, start = state["records"], state["step"]
        print(f"{what}: going on from step {start} of {config.steps}", flush=True)

    # Views of the model's own tensors, which the optimiser changes in place.
    weights = list(model.state_dict().values())
    running, images, clock = torch.zeros((), device=where), 0, time.perf_counter()
    gradients = Gradients(model, loss, config, dtype)
    for step in track(range(start, config.steps), what, unit="step"):
        rate = config.learning_rate * schedule(step, config.steps, config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = gradients(step)
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        if not torch.isfinite(norm):
            state = {"step": step, "loss": float(value), "gradient_norm": float(norm), "model": model.state_dict()}
            path = checkpoints.save_not_finite(checkpoint_folder, step, state | {"batch": batch(step) if batch else {}})
            raise DataError(
                f"{what}: the gradient is not finite at step {step}; its batch and weights are in {path}, the last "
                f"whole checkpoint beside it; lower {what}.learning_rate or {what}.gradient_clip, or look at that batch"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done = step + 1
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), weights, 1 - decay)
            for width, power in powers.items():
                torch._foreach_lerp_(list(power.values()), weights, averages.share_of_new(width, done))
        running += value
        images += config.batch_size
        if done % config.log_every == 0 or done == config.steps:
            seconds = time.perf_counter() - clock
            count = images // config.batch_size
            record = {
                "step": done,
                "loss": round(float(running) / count, 6),
                "learning_rate": rate,
                "gradient_norm": round(float(norm), 6),
            }
            if done % config.validate_every == 0 or done == config.steps:
                record["validation_loss"] = round(_evaluate(model, average, loss), 6)
            records.append(record)
            if done % (10 * config.log_every) == 0 or done == config.steps:
                text = " ".join(f"{key} {value:.4g}" for key, value in record.items())
                print(f"{what}: {text} images/s {images / seconds:.1f}", flush=True)
            running, images, clock = torch.zeros((), device=where), 0, time.perf_counter()
        if sample is not None and (done % config.sample_every == 0 or done == config.steps):
            _with_average(model, average, partial(sample, model, log / "samples" / f"step-{done:06d}.png"))
            clock = time.perf_counter()
        if powers and (done % config.snapshot_every == 0 or done == config.steps):
            averages.save_snapshots(checkpoint_folder / "averages", done, powers)
        if done % config.checkpoint_every == 0 and done < config.steps:
            checkpoints.save(
                checkpoint_folder,
                done,
                {
                    "step": done,
                    "model": model.state_dict(),
                    "average": average,
                    "powers": list(powers.values()),
                    "optimizer": optimizer.state_dict(),
                    "records": records,
                },
            )
    gradients.close()
    log.mkdir(parents=True, exist_ok=True)
    (log / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if powers:
        shutil.copytree(checkpoint_folder / "averages", log / "averages", dirs_exist_ok=True)
    model.load_state_dict(average)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model.eval().cpu()


class Gradients:
    """Sets the gradients of a step's batch, computed in pieces of equal size.

    On a CPU the pieces run side by side, a thread each: two cores are then busy all the time, while two threads inside
    each operation wait for each other. On an accelerator they run one after the other, which is gradient accumulation.
    The sum does not depend on how many run at a time.
    """

    def __init__(self, model: nn.Module, loss: Loss, config: TrainingConfig, dtype: torch.dtype):
        self._model, self._loss, self._dtype = model, loss, dtype
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._where = self._weights[0].device.type
        size = config.batch_size // config.pieces
        self._rows = [slice(start, start + size) for start in range(0, config.batch_size, size)]
        self._threads = torch.get_num_threads()
        side_by_side = min(config.pieces, self._threads) if self._where == "cpu" else 1
        share = max(1, self._threads // side_by_side)
        self._pool = ThreadPoolExecutor(side_by_side, initializer=torch.set_num_threads, initargs=(share,))

    def __call__(self, step: int) -> Tensor:
        """Adds nothing to what is there: gradients are set. Returns the mean loss, detached."""
        values, gradients = zip(*self._pool.map(partial(self._piece, step), self._rows), strict=True)
        for weight, *parts in zip(self._weights, *gradients, strict=True):
            known = [part for part in parts if part is not None]
            weight.grad = sum(known[1:], known[0]).div_(len(self._rows)) if known else None
        return torch.stack(values).mean()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()
        torch.set_num_threads(self._threads)

    def _piece(self, step: int, rows: slice) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        with torch.autocast(self._where, self._dtype, enabled=self._dtype != torch.float32):
            value = self._loss(self._model, step, rows)
        return value.detach(), torch.autograd.grad(value, self._weights, allow_unused=True)


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: linear warm-up, then a half cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _decayed(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; gains and biases do not (as in every published transformer recipe)."""
    weights = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _with_average(model: nn.Module, average: dict[str, Tensor], work: Callable[[], Any]) -> Any:
    kept = _copy(model)
    model.load_state_dict(average)
    model.eval()
    try:
        with torch.no_grad():
            return work()
    finally:
        model.load_state_dict(kept)
        model.train()


def _evaluate(model: nn.Module, average: dict[str, Tensor], loss: Loss) -> float:
    return float(_with_average(model, average, lambda: loss(model, None, WHOLE)))
