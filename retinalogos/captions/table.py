"""Captions on disk: ``captions.parquet``, ``captions.json`` and, where captions were dropped, ``dropped.csv``."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
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
# Of a caption's 64-bit key: four for the wording (16 at most), one for the granularity; the rest are its image's hash.
_KEY_BITS = 5


class CaptionWriter:
    """Writes a captions folder as a stream.

    Use as a context manager: ``captions.json`` is written when the block ends without an exception, so a folder
    without it is unfinished and is refused by the readers.

    Args:
        folder: made if it is not there.
        token_budget: that every caption keeps.
        text_encoder: whose tokens are counted: ``minilm`` or a hub name.
        of_model: whether the captions carry the columns of MODEL_FIELDS too.
        may_be_empty: a folder without any caption is no error.
    """

    def __init__(
        self,
        folder: Path,
        token_budget: int,
        text_encoder: str,
        of_model: bool = False,
        may_be_empty: bool = False,
    ):
        self.folder = Path(folder)
        self._schema = pa.schema([*SCHEMA, *MODEL_FIELDS]) if of_model else SCHEMA
        self._values = itemgetter(*self._schema.names)
        self._origin = ["engine", "prompt_version", *(["model"] if of_model else [])]
        self._meta: dict[str, Any] = {"token_budget": token_budget, "text_encoder": text_encoder}
        self._may_be_empty = may_be_empty
        self._rows: list[tuple[Any, ...]] = []
        self._tables: list[pa.Table] = []
        self._pending = 0
        self._counts: dict[str, int] = {}
        self._engines: set[tuple[str, ...]] = set()
        # Of all captions, sorted: eight bytes a caption, so that memory stays small.
        self._keys = np.empty(0, np.uint64)
        self._tokens, self._longest, self.dropped = 0, 0, 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._parquet = pq.ParquetWriter(self.folder / "captions.parquet", self._schema, compression="zstd")
        self._csv: Any = None
        return self

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one caption: the columns of SCHEMA, and of MODEL_FIELDS where it is a model's.

        Raises:
            DataError: a wording of an image was written before; told with a group of captions, or at the end.
        """
        self._rows.append(self._values(row))
        if len(self._rows) == _GROUP:
            self._pack()

    def add_table(self, table: pa.Table) -> None:
        """Adds captions as a table with the columns that :meth:`add` takes; raises as it does."""
        self._pack()
        self._append(table)

    def _pack(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*rows, strict=True), self._schema, strict=True)
            ]
            self._append(pa.Table.from_arrays(columns, schema=self._schema))

    def _append(self, table: pa.Table) -> None:
        self._count(table)
        self._tables.append(table)
        self._pending += table.num_rows
        while self._pending >= _GROUP:
            self._flush(_GROUP)

    def _count(self, table: pa.Table) -> None:
        """Keeps account of a table: hash, counts, and that no caption comes twice."""
        columns = [table[name].to_pylist() for name in ("image_id", "granularity", "wording", "text")]
        keys = np.empty(table.num_rows, np.uint64)
        image, image_key = None, 0
        for place, (image_id, granularity, wording) in enumerate(zip(*columns[:3], strict=True)):
            if image_id != image:
                image = image_id
                image_key = int.from_bytes(hashlib.blake2b(image.encode(), digest_size=8).digest(), "big")
                image_key = image_key >> _KEY_BITS << _KEY_BITS
            keys[place] = image_key | wording << 1 | (granularity == "fine")
        self._digest.update(b"".join(map(orjson.dumps, zip(*columns, strict=True))))
        known, times = np.unique(np.concatenate([self._keys, keys]), return_counts=True)
        if len(known) != len(self._keys) + len(keys):
            place = int(np.flatnonzero(np.isin(keys, known[times > 1]))[0])
            image_id, granularity, wording, _ = (column[place] for column in columns)
            raise DataError(f"image {image_id}: {granularity} wording {wording} is captioned twice")
        self._keys = known
        for name, count in Counter(columns[1]).items():
            self._counts[name] = self._counts.get(name, 0) + count
        for origin in table.group_by(self._origin).aggregate([]).to_pylist():
            self._engines.add(tuple(origin[name] for name in self._origin))
        tokens = table["tokens"].to_numpy()
        self._tokens += int(tokens.sum())
        self._longest = max([self._longest, *tokens.max(initial=0, keepdims=True).tolist()])

    def drop(self, image_id: str, granularity: str, wording: int, rule: str, detail: str) -> None:
        """Records a caption that is not in the table, and why."""
        if self._csv is None:
            self._file = (self.folder / "dropped.csv").open("w", newline="", encoding="utf-8")
            self._csv = csv.writer(self._file, lineterminator="\n")
            self._csv.writerow(DROPPED_COLUMNS)
        self._csv.writerow((image_id, wording, granularity, rule, detail))
        self.dropped += 1

    def _flush(self, rows: int) -> None:
        """Writes ``rows`` captions as a row group: all of the same size, however they came."""
        whole = pa.concat_tables(self._tables)
        self._parquet.write_table(whole.slice(0, rows).combine_chunks())
        self._tables = [whole.slice(rows)]
        self._pending -= rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._pack()
                if self._pending:
                    self._flush(self._pending)
        finally:
            self._parquet.close()
        if self._csv is not None:
            self._file.close()
        if kind is not None:
            return
        total = sum(self._counts.values())
        if total == 0 and not self._may_be_empty:
            raise DataError(f"{self.folder}: no caption was written; dropped.csv has the reasons")
        meta = {
            **self._meta,
            "engines": [dict(zip(self._origin, origin, strict=True)) for origin in sorted(self._engines)],
            "captions": total,
            "granularities": dict(sorted(self._counts.items())),
            "images": len(np.unique(self._keys >> np.uint64(_KEY_BITS))),
            "dropped": self.dropped,
            "mean_tokens": round(self._tokens / max(total, 1), 3),
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
    """The captions in the order written; all columns, or those given.

    Raises:
        UsageError: the folder is no finished captions folder.
    """
    read_captions_meta(folder)
    return pq.read_table(Path(folder) / "captions.parquet", columns=None if columns is None else list(columns))


def read_tables(folder: Path | str) -> Iterator[pa.Table]:
    """The captions in the order written, a row group in memory at a time.

    Raises:
        UsageError: the folder is no finished captions folder.
    """
    read_captions_meta(folder)
    file = pq.ParquetFile(Path(folder) / "captions.parquet")
    for group in range(file.num_row_groups):
        yield file.read_row_group(group)


def of_model(folder: Path | str) -> bool:
    """Whether the captions of a folder carry the columns of MODEL_FIELDS.

    Raises:
        UsageError: the folder is no finished captions folder.
    """
    read_captions_meta(folder)
    return MODEL_FIELDS[0].name in pq.read_schema(Path(folder) / "captions.parquet").names


def read_dropped(folder: Path | str) -> Iterator[dict[str, str]]:
    """The rows of ``dropped.csv``, by DROPPED_COLUMNS; none where nothing was dropped."""
    path = Path(folder) / "dropped.csv"
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)
