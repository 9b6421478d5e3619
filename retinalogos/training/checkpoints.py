"""Checkpoints that survive a kill at any moment: written beside, verified by hash, renamed."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch

# A damaged newest checkpoint falls back to the one before.
_KEPT = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Writes ``step-N.pt`` and, last, its hash ``step-N.json``; keeps the newest two.

    A checkpoint counts only when its hash is there, so that a kill while writing leaves the one before in force.
    """
    path = folder / f"step-{step:08d}.pt"
    write(path, state)
    note = path.with_suffix(".json")
    partial_note = note.with_suffix(".json.partial")
    partial_note.write_text(json.dumps({"step": step, "sha256": _sha256(path)}))
    os.replace(partial_note, note)
    for old in sorted(folder.glob("step-*.json"))[:-_KEPT]:
        old.with_suffix(".pt").unlink(missing_ok=True)
        old.unlink()


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, or None; damaged ones are passed over with a warning."""
    for note in sorted(folder.glob("step-*.json"), reverse=True):
        path = note.with_suffix(".pt")
        if path.is_file() and _sha256(path) == json.loads(note.read_text())["sha256"]:
            return torch.load(path, map_location="cpu", weights_only=True)
        warnings.warn(f"checkpoint {path} is damaged; trying the one before", stacklevel=2)
    return None


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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
