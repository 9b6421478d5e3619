"""Where the shards of latents and text features lie: beside their index, or as objects in a bucket.

Both are safetensors files of one tensor each. An object is called by the sha256 of its bytes: the index that names it
is thereby a statement of what was encoded, two runs never write over each other, and a shard that is there already is
not sent again.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from retinalogos.errors import DataError
from retinalogos.storage.bucket import AT_ONCE, Bucket

# The header of a file with one tensor has about a hundred bytes, after eight that tell its length.
_HEADER_BYTES = 1024
_FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Span:
    """Rows of a shard."""

    shard: int
    first: int
    count: int


class Shards(Protocol):
    """Float16 tensors of many rows, of the kinds ``latents``, ``text`` and ``representation``, each counted from 0."""

    def write(self, kind: str, tensor: str, rows: Tensor) -> None:
        """Adds the next shard of a kind."""

    def read(self, kind: str, tensor: str, spans: Sequence[Span]) -> list[Tensor]:
        """Rows as float32, an answer for each span."""


class FolderShards:
    """Files ``<kind>-<number>.safetensors`` of a folder; one is open only while rows of it are read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.meta: dict[str, Any] = {"shards": {"latents": 0, "text": 0}}

    def write(self, kind: str, tensor: str, rows: Tensor) -> None:
        """See :class:`Shards`."""
        number = self.meta["shards"].setdefault(kind, 0)
        save_file({tensor: rows}, self.folder / f"{kind}-{number:05d}.safetensors")
        self.meta["shards"][kind] += 1

    def read(self, kind: str, tensor: str, spans: Sequence[Span]) -> list[Tensor]:
        """See :class:`Shards`."""
        return [self._read(kind, tensor, span) for span in spans]

    def _read(self, kind: str, tensor: str, span: Span) -> Tensor:
        # As arrays, for torch's own way takes twice as long.
        with safe_open(self.folder / f"{kind}-{span.shard:05d}.safetensors", framework="numpy") as file:
            rows: np.ndarray = file.get_slice(tensor)[span.first : span.first + span.count].astype(np.float32)
        return torch.from_numpy(rows)


class BucketShards:
    """Objects of a bucket; of one that is read only the bytes of the rows asked for are sent.

    Args:
        place: ``s3://bucket/prefix``.
        objects: names by kind, as an index has them.

    Raises:
        UsageError: the place is no such address.
    """

    def __init__(self, place: str, objects: dict[str, list[str]] | None = None):
        self._bucket = Bucket(place)
        self.meta: dict[str, Any] = {"shards_at": place, "objects": objects or {"latents": [], "text": []}}
        self._headers: dict[str, tuple[int, list[int]]] = {}

    def write(self, kind: str, tensor: str, rows: Tensor) -> None:
        """See :class:`Shards`."""
        data = save({tensor: rows.contiguous()})
        name = f"{hashlib.sha256(data).hexdigest()}.safetensors"
        if self._bucket.size(name) != len(data):
            self._bucket.ask("put_object", name, Body=data)
        self.meta["objects"].setdefault(kind, []).append(name)

    def read(self, kind: str, tensor: str, spans: Sequence[Span]) -> list[Tensor]:
        """See :class:`Shards`."""
        return list(self._threads.map(lambda span: self._read(self.meta["objects"][kind][span.shard], span), spans))

    def _read(self, name: str, span: Span) -> Tensor:
        start, shape = self._header(name)
        row = _FLOAT16_BYTES * int(np.prod(shape[1:]))
        data = self._bucket.read(name, start + span.first * row, span.count * row)
        rows = np.frombuffer(data, np.float16).reshape(span.count, *shape[1:])
        return torch.from_numpy(rows.astype(np.float32))

    def _header(self, name: str) -> tuple[int, list[int]]:
        """Where the tensor of an object begins, and its shape."""
        if name not in self._headers:
            data = self._bucket.read(name, 0, _HEADER_BYTES)
            length = int.from_bytes(data[:8], "little")
            try:
                (entry,) = (value for key, value in json.loads(data[8 : 8 + length]).items() if key != "__metadata__")
            except ValueError:
                raise DataError(f"{self._bucket.address(name)} is no shard of ours; run `encode` again") from None
            self._headers[name] = 8 + length, entry["shape"]
        return self._headers[name]

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shards")
