"""Latents and text features on disk: written as a stream, read as a memory map.

A folder holds ``latents-*.safetensors`` (``latents``: n×C×h×w float16), ``text-*.safetensors`` (``tokens``: N×D
float16, the captions one after another), ``images.parquet`` (a row per image: where its latents and captions are),
``texts.parquet`` (a row per distinct caption) and ``latents.json``. A caption that many images share is stored once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from retinalogos.errors import UsageError

# About 25 MB of 32×16×16 latents and 50 MB of 384-wide tokens in a shard.
_IMAGES_PER_SHARD = 1536
_TOKENS_PER_SHARD = 65536


class LatentWriter:
    """Writes a latents folder; memory is bounded by one shard of each kind. Use as a context manager."""

    def __init__(self, folder: Path, meta: dict[str, Any]):
        self.folder, self.meta = Path(folder), meta
        self.folder.mkdir(parents=True, exist_ok=True)
        self._latents: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._pending_tokens = 0
        self._shards = {"latents": 0, "text": 0}
        self._images: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def add_text(self, text: str, tokens_nd: Tensor) -> int:
        """Adds a distinct caption's features, N×D; returns its number."""
        if self._pending_tokens and self._pending_tokens + len(tokens_nd) > _TOKENS_PER_SHARD:
            self._flush_tokens()
        self._texts.append(
            {"text": text, "shard": self._shards["text"], "offset": self._pending_tokens, "length": len(tokens_nd)}
        )
        self._tokens.append(tokens_nd.half())
        self._pending_tokens += len(tokens_nd)
        return len(self._texts) - 1

    def add_image(
        self,
        image_id: str,
        split: str,
        eye: str | None,
        latents_chw: Tensor,
        coarse: Sequence[int],
        fine: Sequence[int],
    ) -> None:
        """Adds an image's latents, its side (``left``, ``right``, ``None``) and the numbers of its captions."""
        self._images.append(
            {
                "image_id": image_id,
                "split": split,
                "eye": eye,
                "shard": self._shards["latents"],
                "row": len(self._latents),
                "coarse": list(coarse),
                "fine": list(fine),
            }
        )
        self._latents.append(latents_chw.half())
        if len(self._latents) == _IMAGES_PER_SHARD:
            self._flush_latents()

    def _flush_latents(self) -> None:
        if self._latents:
            save_file(
                {"latents": torch.stack(self._latents)},
                self.folder / f"latents-{self._shards['latents']:05d}.safetensors",
            )
            self._latents = []
            self._shards["latents"] += 1

    def _flush_tokens(self) -> None:
        if self._tokens:
            save_file({"tokens": torch.cat(self._tokens)}, self.folder / f"text-{self._shards['text']:05d}.safetensors")
            self._tokens, self._pending_tokens = [], 0
            self._shards["text"] += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if not self._images:
            raise UsageError("no image has a caption: nothing to encode")
        self._flush_latents()
        self._flush_tokens()
        pq.write_table(pa.Table.from_pylist(self._images), self.folder / "images.parquet")
        pq.write_table(pa.Table.from_pylist(self._texts), self.folder / "texts.parquet")
        meta = {**self.meta, "images": len(self._images), "texts": len(self._texts), "shards": self._shards}
        (self.folder / "latents.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")


class Latents:
    """Reads a latents folder; shards are memory-mapped, so that only what is used is read.

    Raises:
        UsageError: the folder is no finished set of latents.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = json.loads((self.folder / "latents.json").read_text())
        except FileNotFoundError:
            raise UsageError(f"{folder} holds no finished latents: it has no latents.json; run `encode`") from None
        shards = self.meta["shards"]
        self._latents = [
            load_file(self.folder / f"latents-{i:05d}.safetensors")["latents"] for i in range(shards["latents"])
        ]
        self._tokens = [load_file(self.folder / f"text-{i:05d}.safetensors")["tokens"] for i in range(shards["text"])]
        self.images: list[dict[str, Any]] = pq.read_table(self.folder / "images.parquet").to_pylist()
        self.texts: list[dict[str, Any]] = pq.read_table(self.folder / "texts.parquet").to_pylist()

    def rows(self, split: str) -> list[int]:
        """Numbers of the images of a split."""
        return [i for i, image in enumerate(self.images) if image["split"] == split]

    def latent(self, image: int) -> Tensor:
        """Latents of one image, C×h×w float32."""
        row = self.images[image]
        return self._latents[row["shard"]][row["row"]].float()

    def tokens(self, text: int) -> Tensor:
        """Raw features of one caption, N×D float32."""
        row = self.texts[text]
        return self._tokens[row["shard"]][row["offset"] : row["offset"] + row["length"]].float()

    def batch_tokens(self, texts: Sequence[int], width: int | None = None) -> tuple[Tensor, Tensor]:
        """Features of several captions, padded on the right: B×N×D float32 and mask B×N."""
        rows = [self.tokens(text) for text in texts]
        width = width or max(len(row) for row in rows)
        padded = torch.zeros(len(rows), width, rows[0].shape[1])
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
            mask[i, : len(row)] = 1
        return padded, mask

    def captions(self, image: int, granularity: str) -> list[int]:
        """Numbers of the captions of an image; those of the other granularity where it has none of this."""
        row = self.images[image]
        other = "fine" if granularity == "coarse" else "coarse"
        return row[granularity] or row[other]


def mirrored_words(text: str) -> str:
    """A caption of the mirrored picture: left and right change places, all else stays."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "OD": "OS", "OS": "OD"}
    pieces = []
    word = ""
    for letter in text + " ":
        if letter.isalpha():
            word += letter
        else:
            pieces.append(swap.get(word, word) + letter)
            word = ""
    return "".join(pieces)[:-1]


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation that depends on nothing but the seed and the epoch's number."""
    return np.random.default_rng([seed, epoch]).permutation(rows)
