"""Latents and text features on disk: written as a stream, read a row at a time.

A folder holds ``latents-*.safetensors`` (``latents``: n×C×h×w float16), ``text-*.safetensors`` (``tokens``: N×D
float16, the captions one after another), where asked for ``representation-*.safetensors`` (``features`` of an encoder:
n×d×g×g float16, rows as those of the latents), ``images.parquet`` (a row per image: where its latents and captions
are), ``texts.parquet`` (a row per distinct caption) and ``latents.json``. A caption that many images share is stored
once.
The shards may lie in a bucket instead (:mod:`~retinalogos.generators.text.shards`); the folder then holds the rest.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from retinalogos.errors import UsageError
from retinalogos.generators.text.shards import BucketShards, FolderShards, Span

# About 25 MB of 32×16×16 latents and 50 MB of 384-wide tokens in a shard.
_IMAGES_PER_SHARD = 1536
_TOKENS_PER_SHARD = 65536
# Rows of the index that are Python objects at a time.
_ROWS_AT_ONCE = 4096


class LatentWriter:
    """Writes a latents folder; memory is bounded by one shard of each kind. Use as a context manager.

    Args:
        folder: of the index, and of the shards where they have no other place.
        meta: for ``latents.json``.
        shards_at: ``s3://bucket/prefix`` for the shards.
        images_per_shard: latents in a shard; the last may have fewer.
        tokens_per_shard: at most so many in a shard, but for a single longer caption.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        shards_at: str | None = None,
        images_per_shard: int = _IMAGES_PER_SHARD,
        tokens_per_shard: int = _TOKENS_PER_SHARD,
    ):
        self.folder, self.meta = Path(folder), meta
        self._images_per_shard, self._tokens_per_shard = images_per_shard, tokens_per_shard
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shards = BucketShards(shards_at) if shards_at else FolderShards(self.folder)
        self._latents: list[Tensor] = []
        self._representations: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._pending_tokens = 0
        self._written = {"latents": 0, "text": 0}
        self._images: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def add_text(self, text: str, tokens_nd: Tensor) -> int:
        """Adds a distinct caption's features, N×D; returns its number."""
        if self._pending_tokens and self._pending_tokens + len(tokens_nd) > self._tokens_per_shard:
            self._flush_tokens()
        self._texts.append(
            {"text": text, "shard": self._written["text"], "offset": self._pending_tokens, "length": len(tokens_nd)}
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
        representation_dgg: Tensor | None = None,
    ) -> None:
        """Adds an image's latents, its side (``left``, ``right``, ``None``) and the numbers of its captions.

        ``representation_dgg``: an encoder's features, of every image or of none.
        """
        self._images.append(
            {
                "image_id": image_id,
                "split": split,
                "eye": eye,
                "shard": self._written["latents"],
                "row": len(self._latents),
                "coarse": list(coarse),
                "fine": list(fine),
            }
        )
        self._latents.append(latents_chw.half())
        if representation_dgg is not None:
            self._representations.append(representation_dgg.half())
        if len(self._latents) == self._images_per_shard:
            self._flush_latents()

    def _flush_latents(self) -> None:
        if self._latents:
            self._shards.write("latents", "latents", torch.stack(self._latents))
            if self._representations:
                self._shards.write("representation", "features", torch.stack(self._representations))
            self._latents, self._representations = [], []
            self._written["latents"] += 1

    def _flush_tokens(self) -> None:
        if self._tokens:
            self._shards.write("text", "tokens", torch.cat(self._tokens))
            self._tokens, self._pending_tokens = [], 0
            self._written["text"] += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        if not self._images:
            raise UsageError("no image has a caption: nothing to encode")
        self._flush_latents()
        self._flush_tokens()
        pq.write_table(pa.Table.from_pylist(self._images), self.folder / "images.parquet")
        pq.write_table(pa.Table.from_pylist(self._texts), self.folder / "texts.parquet")
        meta = {**self.meta, "images": len(self._images), "texts": len(self._texts), **self._shards.meta}
        (self.folder / "latents.json").write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n")


class Rows:
    """Rows of a parquet file as Python dicts, made when asked for: kept as Arrow they take a fraction of the memory."""

    def __init__(self, file: Path):
        self._table = pq.read_table(file)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        # A slice, unlike Python's own sequences, would give an empty answer to a number out of range.
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        found: dict[str, Any] = self._table.slice(row, 1).to_pylist()[0]
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            yield from batch.to_pylist()

    def where(self, column: str, value: str) -> list[int]:
        """Numbers of the rows that have this value."""
        numbers: list[int] = np.flatnonzero(pc.equal(self._table[column], value)).tolist()
        return numbers


class Latents:
    """Reads a latents folder; shards are read row by row, on disk or from a bucket.

    So neither the time a row takes nor the memory depends on the number of shards (``benchmarks/loader.py``); what lies
    in memory is the index: of images, and of captions with their text.

    Raises:
        UsageError: the folder is no finished set of latents.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = json.loads((self.folder / "latents.json").read_text())
        except FileNotFoundError:
            raise UsageError(f"{folder} holds no finished latents: it has no latents.json; run `encode`") from None
        self.images = Rows(self.folder / "images.parquet")
        self.texts = Rows(self.folder / "texts.parquet")
        place = self.meta.get("shards_at")
        self._shards = BucketShards(place, self.meta["objects"]) if place else FolderShards(self.folder)

    def rows(self, split: str) -> list[int]:
        """Numbers of the images of a split."""
        return self.images.where("split", split)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C×h×w of one image's latents."""
        return self.meta["channels"], self.meta["latent_size"], self.meta["latent_size"]

    def latents(self, images: Sequence[int]) -> Tensor:
        """Latents of several images, B×C×h×w float32."""
        return self._of("latents", "latents", images)

    def representations(self, images: Sequence[int]) -> Tensor:
        """Features that an encoder has of several images, B×d×g×g float32, where `encode` was asked for them."""
        return self._of("representation", "features", images)

    def _of(self, kind: str, tensor: str, images: Sequence[int]) -> Tensor:
        rows = (self.images[image] for image in images)
        return torch.cat(self._shards.read(kind, tensor, [Span(row["shard"], row["row"], 1) for row in rows]))

    def tokens(self, texts: Sequence[int]) -> list[Tensor]:
        """Raw features of several captions, N×D float32 each."""
        rows = (self.texts[text] for text in texts)
        return self._shards.read("text", "tokens", [Span(row["shard"], row["offset"], row["length"]) for row in rows])

    def batch_tokens(self, texts: Sequence[int], width: int | None = None) -> tuple[Tensor, Tensor]:
        """Features of several captions, padded on the right: B×N×D float32 and mask B×N."""
        rows = self.tokens(texts)
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
