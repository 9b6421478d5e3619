"""A small file that stands for a published folder: what a model holds in place of gigabytes of weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from retinalogos.errors import DataError
from retinalogos.storage.publication import fetch_cached

# Found by this name among the files of a registered model.
NAME = "weights.json"


def write_note(folder: Path, address: str, sha256: str) -> Path:
    """Writes the note of a version into ``folder`` and returns its path."""
    path = folder / NAME
    path.write_text(json.dumps({"address": address, "sha256": sha256}, indent=2) + "\n", encoding="utf-8")
    return path


def follow(note: Path) -> Path:
    """The folder that a note stands for, fetched into the cache where it is not there yet.

    Raises:
        DataError: the note is none, the store does not answer, or what it sends has another hash.
    """
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        address, sha256 = content["address"], content["sha256"]
    except (ValueError, KeyError) as error:
        raise DataError(f"{note} is no note of published weights ({error!r}); register the model again") from None
    return fetch_cached(address, sha256)


def weights_of(artifacts: Mapping[str, str]) -> Path:
    """The folder of a registered model's weights: its artifact ``generator``, or what the note ``weights`` stands for.

    Raises:
        DataError: see :func:`follow`.
    """
    return Path(artifacts["generator"]) if "generator" in artifacts else follow(Path(artifacts["weights"]))
