"""The one training loop: every generator of the project runs it.

Whatever a step draws at random comes from generators seeded by (seed, step), so a run that was killed and started again
ends with the same weights as one that was not (bit for bit on CPU). On several processes each takes its rows of every
batch and the gradients are averaged: the same step but for the order of a sum. The first process writes for all.
"""

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retinalogos.errors import DataError, UsageError
from retinalogos.progress import track
from retinalogos.training import averages, checkpoints, distributed
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import compute_dtype, device, reason_not_to_compile

# loss(model, step, rows): mean over these rows of the step's batch; loss(model, None, all rows): over the fixed
# validation batch and noise.
Loss = Callable[[nn.Module, int | None, slice], Tensor]
WHOLE = slice(None)
# sample(model, path) draws with the averaged model; called in every process, and the first writes the picture.
Sample = Callable[[nn.Module, Path], None]
# batch(step): the step's batch as plain values and tensors, for whoever looks into a step that went wrong.
Batch = Callable[[int], dict[str, Any]]
# after(model, step): changes what no gradient moves, such as a codebook, once a step's weights are known.
After = Callable[[nn.Module, int], None]
# measure(model): further figures of the averaged model for the log, by name.
Measure = Callable[[nn.Module], Mapping[str, float]]


def train(
    model: nn.Module,
    loss: Loss,
    config: TrainingConfig,
    log: Path,
    checkpoint_folder: Path,
    what: str,
    sample: Sample | None = None,
    batch: Batch | None = None,
    after: After | None = None,
    measure: Measure | None = None,
) -> nn.Module:
    """Trains ``model`` in place and returns its exponential moving average, in it or, sharded, in a model like it.

    Args:
        model: float32 weights; moved to the accelerator where there is one.
        loss: mean loss over rows of a step's batch; the batch is a function of the step's number alone.
        config: see :class:`TrainingConfig`.
        log: folder for ``log.jsonl``, ``curves.json``, ``samples/*.png`` and, with snapshots, ``averages/``.
        checkpoint_folder: where checkpoints are kept; a run that finds one there goes on from it.
        what: name shown in the progress line.
        sample: draws with the averaged model every ``sample_every`` steps.
        batch: tells what a step's batch was, for the file that is written when its gradient is not finite.
        after: called after every step without gradients, before the averages; a function of weights and step alone, and
            the same in every process.
        measure: logged beside the validation loss.

    Raises:
        UsageError: the batch does not divide into equal pieces for each process, one process is to share a model, or
            blocks are to be compiled where that does not run.
        DataError: a gradient is not finite. The file named holds the step's number, its batch and the weights that it
            began with, but for frozen ones: with them, ``loss(model, step, WHOLE)`` is the same again.
    """
    where = device()
    distributed.join(where)
    first = distributed.rank() == distributed.FIRST
    dtype = compute_dtype(config.precision, where)
    model.to(where).train()
    trained = model
    if config.compile_blocks and (reason := reason_not_to_compile()):
        raise UsageError(f"{what}.compile_blocks: torch.compile does not run here ({reason}); set it to false")
    if config.sharded:
        # The model itself is changed for good; a copy without memory takes up the outcome.
        trained = copy.deepcopy(model).to("meta")
        distributed.shard(model, where)
    else:
        # Convolutions run faster channels-last on every device; matrices are not touched by it. FSDP knows no such.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    blocks = distributed.blocks(model)
    if config.compile_blocks:
        # Blocks are alike: one compilation serves all of them, where a whole network takes many times as long.
        for block in blocks:
            block.forward = torch.compile(block.forward)
    if config.checkpoint_activations:
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
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

    def state(done: int) -> dict[str, Any]:
        return {
            "step": done,
            "records": json.dumps(records),
            "model": _changing(model),
            "averages": {"decaying": average} | {str(width): power for width, power in powers.items()},
            "optimizer": distributed.optimizer_state(model, optimizer),
        }

    saved = checkpoints.load_latest(checkpoint_folder, partial(state, 0) if config.sharded else None)
    if saved is not None:
        _put(model, saved["model"])
        distributed.load_optimizer_state(model, optimizer, saved["optimizer"])
        for values, of_checkpoint in zip((average, *powers.values()), saved["averages"].values(), strict=True):
            for name, value in of_checkpoint.items():
                values[name].copy_(value)
        records, start = json.loads(saved["records"]), saved["step"]
        print(f"{what}: going on from step {start} of {config.steps}", flush=True)

    # Views of the model's own tensors, which the optimiser changes in place.
    weights = list(_changing(model).values())
    running, images, clock = torch.zeros((), device=where), 0, time.perf_counter()
    gradients = Gradients(model, loss, config, dtype)
    for step in track(range(start, config.steps), what, unit="step"):
        rate = config.learning_rate * schedule(step, config.steps, config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = gradients(step)
        norm = distributed.whole(nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip))
        if not torch.isfinite(norm):
            began_with = distributed.all_whole(_changing(model))
            path = checkpoints.not_finite(checkpoint_folder, step)
            if first:
                said = {"step": step, "loss": float(value), "gradient_norm": float(norm), "model": began_with}
                checkpoints.write(path, said | {"batch": batch(step) if batch else {}})
            distributed.wait_for_all()
            raise DataError(
                f"{what}: the gradient is not finite at step {step}; its batch and weights are in {path}, the last "
                f"whole checkpoint beside it; lower {what}.learning_rate or {what}.gradient_clip, or look at that batch"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if after is not None:
            with torch.no_grad():
                after(model, step)
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
                if measure is not None:
                    found = _with_average(model, average, partial(measure, model))
                    record |= {name: round(float(value), 6) for name, value in found.items()}
            records.append(record)
            if done % (10 * config.log_every) == 0 or done == config.steps:
                text = " ".join(f"{key} {value:.4g}" for key, value in record.items())
                print(f"{what}: {text} images/s {images / seconds:.1f}", flush=True)
            running, images, clock = torch.zeros((), device=where), 0, time.perf_counter()
        if sample is not None and (done % config.sample_every == 0 or done == config.steps):
            _with_average(model, average, partial(sample, model, log / "samples" / f"step-{done:06d}.png"))
            clock = time.perf_counter()
        if powers and (done % config.snapshot_every == 0 or done == config.steps):
            of_width = {width: distributed.all_whole(power) for width, power in powers.items()}
            if first:
                averages.save_snapshots(checkpoint_folder / "averages", done, of_width)
        if done % config.checkpoint_every == 0 and done < config.steps:
            checkpoints.save(checkpoint_folder, done, state(done), config.sharded)
    gradients.close()
    if first:
        log.mkdir(parents=True, exist_ok=True)
        (log / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        # The same for `dvc plots`, which wants a list whose entries have all keys.
        whole = [{key: record.get(key) for key in records[-1]} for record in records]
        (log / "curves.json").write_text(json.dumps(whole) + "\n")
        if powers:
            shutil.copytree(checkpoint_folder / "averages", log / "averages", dirs_exist_ok=True)
    if config.compile_blocks or config.checkpoint_activations:
        for block in blocks:
            del block.forward
    if config.sharded:
        trained.load_state_dict(distributed.all_whole(average), assign=True)
    else:
        _put(model, average)
    trained.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return trained.eval().cpu()


class Batching(Protocol):
    """How a step's batch is cut, see :class:`TrainingConfig`."""

    @property
    def batch_size(self) -> int:
        """Images in a step."""

    @property
    def pieces(self) -> int:
        """Of a process's rows."""

    @property
    def sharded(self) -> bool:
        """Whether weights lie in shares on the processes."""


class Gradients:
    """Sets the gradients of a step's batch: of this process's rows, in pieces of equal size, then averaged over all.

    On a CPU the pieces run side by side, a thread each: two cores are then busy all the time, while two threads inside
    each operation wait for each other. On an accelerator they run one after the other, which is gradient accumulation.
    The sum does not depend on how many run at a time.

    Raises:
        UsageError: the batch does not divide into equal pieces for each process.
    """

    def __init__(self, model: nn.Module, loss: Loss, config: Batching, dtype: torch.dtype):
        self._model, self._loss, self._dtype = model, loss, dtype
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._where = self._weights[0].device.type
        share, rest = divmod(config.batch_size, distributed.count() * config.pieces)
        if rest:
            raise UsageError(
                f"batch_size {config.batch_size} is no multiple of {distributed.count()} processes with "
                f"{config.pieces} pieces each: choose others"
            )
        begin = distributed.rank() * config.pieces * share
        self._rows = [slice(begin + i * share, begin + (i + 1) * share) for i in range(config.pieces)]
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._sharded = config.sharded
        if self._where == "cpu" and not self._sharded and (side_by_side := min(config.pieces, self._threads)) > 1:
            threads = max(1, self._threads // side_by_side)
            self._pool = ThreadPoolExecutor(side_by_side, initializer=torch.set_num_threads, initargs=(threads,))

    def __call__(self, step: int) -> Tensor:
        """Adds nothing to what is there: gradients are set. Returns the mean loss, detached."""
        if self._pool:
            values, gradients = zip(*self._pool.map(partial(self._side_by_side, step), self._rows), strict=True)
            for weight, *parts in zip(self._weights, *gradients, strict=True):
                known = [part for part in parts if part is not None]
                weight.grad = sum(known[1:], known[0]) if known else None
        else:
            self._model.zero_grad(set_to_none=True)
            values = tuple(self._added(step, rows) for rows in self._rows)
        found = [weight.grad for weight in self._weights if weight.grad is not None]
        if len(self._rows) > 1:
            torch._foreach_div_(found, len(self._rows))
        value = torch.stack(values).mean()
        # Shares of a gradient are averaged over the processes as they are computed.
        distributed.average([value] if self._sharded else [value, *found])
        return value

    def close(self) -> None:
        """Ends the threads."""
        if self._pool:
            self._pool.shutdown()
        torch.set_num_threads(self._threads)

    def _value(self, step: int, rows: slice) -> Tensor:
        with torch.autocast(self._where, self._dtype, enabled=self._dtype != torch.float32):
            return self._loss(self._model, step, rows)

    def _side_by_side(self, step: int, rows: slice) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        value = self._value(step, rows)
        return value.detach(), torch.autograd.grad(value, self._weights, allow_unused=True)

    def _added(self, step: int, rows: slice) -> Tensor:
        value = self._value(step, rows)
        value.backward()
        return value.detach()


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


def _changing(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors that training changes: all but the frozen weights, which need no copy."""
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in _changing(model).items()}


def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in _changing(model).items():
        value.copy_(values[name])


def _with_average(model: nn.Module, average: dict[str, Tensor], work: Callable[[], Any]) -> Any:
    kept = _copy(model)
    _put(model, average)
    model.eval()
    try:
        with torch.no_grad():
            return work()
    finally:
        _put(model, kept)
        model.train()


def _evaluate(model: nn.Module, average: dict[str, Tensor], loss: Loss) -> float:
    return float(_with_average(model, average, lambda: loss(model, None, WHOLE)))
