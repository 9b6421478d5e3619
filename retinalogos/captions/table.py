"""Captions on disk: ``captions.parquet``, ``captions.json`` and, where captions were dropped, ``dropped.csv``."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from retinalogos.errors import DataError, UsageError

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("granularity", pa.string(), nullable=False),  # coarse or fine
        pa.field("wording", pa.int16(), nullable=False),  # 0 ...
        pa.field("text", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),  # of the text encoder, special tokens included
        pa.field("engine", pa.string(), nullable=False),
        pa.field("prompt_version", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
    ]
)
# Columns that captions of an engine with a model have besides.
MODEL_FIELDS = (
    pa.field("model", pa.string(), nullable=False),  # name, with the revision where one was given
    pa.field("answer", pa.string(), nullable=False),  # what the model said, JSON by the schema of captions.structured
)
DROPPED_COLUMNS = ("image_id", "wording", "granularity", "rule", "detail")
# Captions held in memory before they are written; about 2 MB.
_GROUP = 8192


class CaptionWriter:
    """Writes a captions folder as a stream.

    Use as a context manager: ``captions.json`` is written when the block ends without an exception, so a folder
    without it is unfinished and is refused by the readers.

    Args:
        folder: made if it is not there.
        token_budget: that every caption keeps.
        text_encoder: whose tokens are counted: ``minilm`` or a hub name.
        of_model: whether the captions carry the columns of MODEL_FIELDS too.
    """

    def __init__(self, folder: Path, token_budget: int, text_encoder: str, of_model: bool = False):
        self.folder = Path(folder)
        self._schema = pa.schema([*SCHEMA, *MODEL_FIELDS]) if of_model else SCHEMA
        self._meta: dict[str, Any] = {"token_budget": token_budget, "text_encoder": text_encoder}
        self._rows: list[Mapping[str, Any]] = []
        self._counts: dict[str, int] = {}
        self._engines: set[tuple[str, str, str]] = set()
        self._wordings: dict[str, int] = {}  # image → one bit per caption that it has, so that memory stays small
        self._tokens, self._longest, self.dropped = 0, 0, 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._parquet = pq.ParquetWriter(self.folder / "captions.parquet", self._schema, compression="zstd")
        self._csv: Any = None
        return self

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one caption: the columns of SCHEMA.

        Raises:
            DataError: this wording of the image was written before.
        """
        key = (row["image_id"], row["granularity"], row["wording"])
        bit = 1 << (2 * row["wording"] + (row["granularity"] == "fine"))
        had = self._wordings.get(row["image_id"], 0)
        if had & bit:
            raise DataError(f"image {key[0]}: {key[1]} wording {key[2]} is captioned twice")
        self._wordings[row["image_id"]] = had | bit
        self._rows.append({name: row[name] for name in self._schema.names})
        self._engines.add((row["engine"], row["prompt_version"], row.get("model") or ""))
        self._counts[row["granularity"]] = self._counts.get(row["granularity"], 0) + 1
        self._tokens += row["tokens"]
        self._longest = max(self._longest, row["tokens"])
        self._digest.update(json.dumps([*key, row["text"]]).encode())
        if len(self._rows) == _GROUP:
            self._flush()

    def drop(self, image_id: str, granularity: str, wording: int, rule: str, detail: str) -> None:
        """Records a caption that is not in the table, and why."""
        if self._csv is None:
            self._file = (self.folder / "dropped.csv").open("w", newline="", encoding="utf-8")
            self._csv = csv.writer(self._file, lineterminator="\n")
            self._csv.writerow(DROPPED_COLUMNS)
        self._csv.writerow((image_id, wording, granularity, rule, detail))
        self.dropped += 1

    def _flush(self) -> None:
        if self._rows:
            self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._parquet.close()
        if self._csv is not None:
            self._file.close()
        if kind is not None:
            return
        total = sum(self._counts.values())
        if total == 0:
            raise DataError(f"{self.folder}: no caption was written; dropped.csv has the reasons")
        meta = {
            **self._meta,
            "engines": [
                {"engine": engine, "prompt_version": version, **({"model": model} if model else {})}
                for engine, version, model in sorted(self._engines)
            ],
            "captions": total,
            "granularities": dict(sorted(self._counts.items())),
            "images": len(self._wordings),
            "dropped": self.dropped,
            "mean_tokens": round(self._tokens / total, 3),
            "max_tokens": self._longest,
            "content_sha256": self._digest.hexdigest(),
        }
        (self.folder / "captions.json").write_text(json.dumps(meta, indent=2) + "\n")


def read_captions_meta(folder: Path | str) -> dict[str, Any]:
    """``captions.json``: token_budget, text_encoder, engines, counts, content_sha256.

    Raises:
        UsageError: the folder is no finished captions folder.
    """
    path = Path(folder) / "captions.json"
    try:
        meta: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(f"{folder} holds no finished captions: it has no captions.json; run `caption`") from None
    return meta


def read_captions(folder: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """The captions in the order written; all columns of SCHEMA, or those given.

    Raises:
        UsageError: the folder is no finished captions folder.
    """
    read_captions_meta(folder)
    return pq.read_table(Path(folder) / "captions.parquet", columns=None if columns is None else list(columns))
