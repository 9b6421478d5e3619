"""Checkpoints that survive a kill at any moment: written beside, verified by hash, renamed."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from retinalogos.training import distributed

# A damaged newest checkpoint falls back to the one before.
_KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any], sharded: bool = False) -> None:
    """Writes ``step-N.pt`` and, last, its hash ``step-N.json``; keeps the newest two. To be called in every process.

    A checkpoint counts only when its hash is there, so that a kill while writing leaves the one before in force.

    Args:
        folder: of the checkpoints.
        step: N.
        state: plain values and tensors.
        sharded: the tensors lie in shares on the processes: each writes its own into the folder ``step-N.shards``.
    """
    first = distributed.rank() == distributed.FIRST
    path = folder / f"step-{step:08d}{'.shards' if sharded else '.pt'}"
    if sharded:
        _save_shares(path, state)
    elif first:
        write(path, state)
    if not first:
        return
    note = path.with_suffix(".json")
    partial_note = note.with_suffix(".json.partial")
    partial_note.write_text(json.dumps({"step": step, "sha256": _sha256(path)}))
    os.replace(partial_note, note)
    for old in sorted(folder.glob("step-*.json"))[:-_KEPT]:
        _remove(old.with_suffix(path.suffix))
        old.unlink()


def _save_shares(path: Path, state: dict[str, Any]) -> None:
    import torch.distributed.checkpoint as dcp  # takes seconds, and few runs are sharded

    first = distributed.rank() == distributed.FIRST
    partial = path.with_suffix(".partial")
    if first:
        _remove(partial)
    distributed.wait_for_all()
    dcp.save(state, checkpoint_id=partial)
    if first:
        _remove(path)
        os.replace(partial, path)


def load_latest(folder: Path, sharded: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any] | None:
    """The newest whole checkpoint, or None; damaged ones are passed over with a warning.

    Args:
        folder: of the checkpoints.
        sharded: for a checkpoint in shares, gives a state like the one saved, which is loaded into.
    """
    for note in sorted(folder.glob("step-*.json"), reverse=True):
        path = note.with_suffix(".shards" if sharded else ".pt")
        if path.exists() and _sha256(path) == json.loads(note.read_text())["sha256"]:
            if not sharded:
                return torch.load(path, map_location="cpu", weights_only=True)
            import torch.distributed.checkpoint as dcp

            state = sharded()
            dcp.load(state, checkpoint_id=path)
            return state
        warnings.warn(f"checkpoint {path} is damaged; trying the one before", stacklevel=2)
    return None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def not_finite(folder: Path, step: int) -> Path:
    """Where a step that went wrong is kept, beside the checkpoints."""
    return folder / f"not-finite-step-{step:08d}.pt"


def write(path: Path, state: dict[str, Any]) -> None:
    """Writes for ``torch.load(path, weights_only=True)``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _sha256(path: Path) -> str:
    if path.is_dir():
        parts = [f"{part.name} {_sha256(part)}" for part in sorted(path.iterdir())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
