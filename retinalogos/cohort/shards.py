"""A cohort on disk: a folder of parquet shards and ``cohort.json``, written and read as a stream."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from retinalogos.cohort.cubes import CUBE, FIELD, Cube, decode_cube
from retinalogos.cohort.schema import ARROW_SCHEMA, PIXEL_COLUMNS, SCHEMA, SCHEMA_VERSION, TABLE_COLUMNS
from retinalogos.errors import DataError, UsageError

# Shards of 100-500 MB are what the Hugging Face hub and Spark both advise for parquet.
SHARD_BYTES = 256 * 2**20
# Rows per row group: what one reader holds in memory at a time (64 images of 512 px are about 10 MB).
ROW_GROUP_ROWS = 64
# Of a cohort of cubes a row group ends at this size too: a cube of 16 bands of 672 pixels is about 10 MB.
CUBE_GROUP_BYTES = 32 * 2**20


def _leaves(field: pa.Field) -> list[str]:
    """Names of the parquet columns that a column of the schema becomes."""
    if pa.types.is_struct(field.type):
        return [f"{field.name}.{child.name}" for child in field.type]
    return [f"{field.name}.list.element"] if pa.types.is_list(field.type) else [field.name]


# Encoded pictures cannot be compressed further, and no two are alike: to try it would cost most of the time of writing.
_WORDS = [leaf for field in SCHEMA for leaf in _leaves(field) if not leaf.endswith(".bytes")]
_PICTURES = [f"{name}.bytes" for name in PIXEL_COLUMNS]
_BANDS = [f"{CUBE}.bands.list.element"]
_COMPRESSION = {**dict.fromkeys(_WORDS, "zstd"), **dict.fromkeys(_PICTURES + _BANDS, "none")}


class CohortWriter:
    """Writes rows to ``folder`` shard by shard; memory is bounded by one row group.

    Use as a context manager: ``cohort.json`` is written when the block ends without an exception,
    so a folder without it is an unfinished cohort and is refused by :class:`Cohort`. With ``wavelengths`` (nm) the
    cohort has the further column ``cube``; without, it is what it was before there were cubes.
    """

    def __init__(
        self, folder: Path, name: str, shard_bytes: int = SHARD_BYTES, wavelengths: Sequence[float] | None = None
    ):
        self.folder, self.name, self.shard_bytes = Path(folder), name, shard_bytes
        self.wavelengths = None if wavelengths is None else [float(nm) for nm in wavelengths]
        self._schema = SCHEMA if wavelengths is None else SCHEMA.append(FIELD)
        self._rows: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self._pending = 0
        self._writer: pq.ParquetWriter | None = None
        self._shards: list[Path] = []
        self._written = 0
        self._counts: dict[str, int] = {}
        self._sources: dict[str, set[str]] = {}
        self._ids: set[str] = set()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Adds one row; columns left out become null.

        Raises:
            DataError: a column is not of the schema, or the image_id was written before.
        """
        unknown = row.keys() - set(self._schema.names)
        if unknown:
            raise DataError(f"row {row.get('image_id')}: columns {sorted(unknown)} are not in the cohort schema")
        self._register(row["image_id"], row["split"], row["source"], row.get("licence"))
        self._rows.append(row)
        if len(self._rows) == ROW_GROUP_ROWS or self.wavelengths is not None:
            self._pack()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Adds rows as an Arrow batch of the columns of the schema, which spares their way through Python.

        Raises:
            DataError: an image_id was written before.
        """
        columns = (batch[name].to_pylist() for name in ("image_id", "split", "source", "licence"))
        for image_id, split, source, licence in zip(*columns, strict=True):
            self._register(image_id, split, source, licence)
        self._pack()
        batch = batch.select(self._schema.names)
        self._append(batch if batch.schema.equals(self._schema) else batch.cast(self._schema))

    def _register(self, image_id: str, split: str, source: str, licence: str | None) -> None:
        if image_id in self._ids:
            raise DataError(f"row {image_id}: this image_id is in the cohort already")
        self._ids.add(image_id)
        self._counts[split] = self._counts.get(split, 0) + 1
        self._sources.setdefault(source, set()).add(licence or "not stated")

    def _pack(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._append(pa.RecordBatch.from_pylist(rows, schema=self._schema))

    def _append(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch.replace_schema_metadata(ARROW_SCHEMA.metadata))
        self._pending += batch.num_rows
        large = self.wavelengths is not None and sum(part.nbytes for part in self._batches) >= CUBE_GROUP_BYTES
        if self._pending >= ROW_GROUP_ROWS or large:
            self._flush()

    def _flush(self) -> None:
        if not self._batches:
            return
        schema = self._schema.with_metadata(ARROW_SCHEMA.metadata)
        if self._writer is None:
            path = self.folder / f"shard-{len(self._shards):05d}.parquet"
            self._shards.append(path)
            self._writer = pq.ParquetWriter(
                path, schema, compression=_COMPRESSION, use_dictionary=_WORDS, write_statistics=_WORDS
            )
            self._written = 0
        table = pa.Table.from_batches(self._batches, schema=schema)
        self._writer.write_table(table)
        self._written += table.nbytes
        self._batches, self._pending = [], 0
        if self._written >= self.shard_bytes:
            self._writer.close()
            self._writer = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._pack()
            self._flush()
        if self._writer is not None:
            self._writer.close()
        if kind is not None:
            return
        if not self._ids:
            raise DataError(f"cohort {self.name}: no usable image; see quarantine.csv for the reasons")
        meta = {
            "name": self.name,
            "schema_version": SCHEMA_VERSION,
            "rows": len(self._ids),
            "splits": dict(sorted(self._counts.items())),
            "sources": {source: sorted(licences) for source, licences in sorted(self._sources.items())},
            "shards": [shard.name for shard in self._shards],
            "content_sha256": content_sha256(self._shards),
        }
        if self.wavelengths is not None:
            meta["wavelengths_nm"] = self.wavelengths
        (self.folder / "cohort.json").write_text(json.dumps(meta, indent=2) + "\n")


def content_sha256(shards: Sequence[Path]) -> str:
    """Hash (hex) of the contents of shards, in their order."""
    digest = hashlib.sha256()
    for shard in shards:
        with shard.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Cohort:
    """Reads a cohort; pixels are only read when they are asked for.

    Args:
        folder: a folder with ``cohort.json`` and the shards that it names.

    Raises:
        UsageError: the folder is no finished cohort.
        DataError: cohort.json cannot be read, or a shard that it names is missing or no whole parquet file.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        try:
            self.meta: dict[str, Any] = json.loads((self.folder / "cohort.json").read_text())
        except FileNotFoundError:
            raise UsageError(f"{self.folder} is not a finished cohort: it has no cohort.json; run `ingest`") from None
        except ValueError as error:
            raise DataError(f"{self.folder}/cohort.json is damaged ({error}); run `ingest` again") from None
        if self.meta["schema_version"] != SCHEMA_VERSION:
            raise UsageError(
                f"{self.folder} has schema version {self.meta['schema_version']}, this code reads {SCHEMA_VERSION}"
            )
        self.shards = [self.folder / name for name in self.meta["shards"]]
        for shard in self.shards:
            try:
                pq.read_metadata(shard)
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{shard} is missing or damaged ({error}); run `ingest` again") from None

    def __len__(self) -> int:
        return int(self.meta["rows"])

    def table(self, columns: Sequence[str] = TABLE_COLUMNS, split: str | None = None) -> pa.Table:
        """The rows without pixels (or the ``columns`` given), of one split or of all."""
        wanted = list(dict.fromkeys([*columns, "split"]))
        parts = [pq.read_table(shard, columns=wanted) for shard in self.shards]
        whole = pa.concat_tables(parts)
        if split is not None:
            whole = whole.filter(pa.compute.equal(whole["split"], split))
        return whole.select(list(columns))

    def rows(self, columns: Sequence[str] = SCHEMA.names, split: str | None = None) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in the order written, one row group in memory at a time."""
        wanted = list(dict.fromkeys([*columns, "split"]))
        for shard in self.shards:
            for batch in pq.ParquetFile(shard).iter_batches(batch_size=ROW_GROUP_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    if split is None or row["split"] == split:
                        yield row

    def images(self, size: int | None = None, split: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """(image_id, uint8 array of height × width × 3), resized by area to ``size`` pixels where given."""
        for row in self.rows(("image_id", "image"), split):
            try:
                image = decode_image(row["image"]["bytes"], size)
            except UnidentifiedImageError:
                raise DataError(
                    f"{self.folder}: image {row['image_id']} is damaged; run `validate`, or `ingest` again"
                ) from None
            yield row["image_id"], image

    @property
    def wavelengths(self) -> list[float]:
        """Wavelengths, nm, of the bands of its cubes.

        Raises:
            UsageError: the cohort holds no cubes.
        """
        if "wavelengths_nm" not in self.meta:
            raise UsageError(f"{self.folder} holds no hyperspectral cubes; make such a cohort with `ingest_cubes`")
        return list(self.meta["wavelengths_nm"])

    def cubes(
        self, columns: Sequence[str] = (), split: str | None = None, bands: Sequence[int] | None = None
    ) -> Iterator[tuple[dict[str, Any], Cube]]:
        """Rows with ``image_id`` and the ``columns`` asked for, each with its cube; one row group in memory at a time.

        Args:
            columns: of the schema.
            split: only its rows.
            bands: indices of the bands to decode; None for all.

        Raises:
            UsageError: the cohort holds no cubes.
            DataError: a cube is damaged.
        """
        known = self.wavelengths
        wanted = list(dict.fromkeys(["image_id", "split", *columns, CUBE]))
        for shard in self.shards:
            file = pq.ParquetFile(shard)
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=wanted)
                for index in range(table.num_rows):
                    row = table.slice(index, 1).to_pylist()[0]
                    if split is not None and row["split"] != split:
                        continue
                    cell = row.pop(CUBE)
                    if len(cell["bands"]) != len(known):
                        raise DataError(
                            f"{self.folder}: cube {row['image_id']} has {len(cell['bands'])} bands, the cohort "
                            f"{len(known)}; run `ingest_cubes` again"
                        )
                    yield row, decode_cube(cell, bands)


def decode_image(data: bytes, size: int | None = None) -> np.ndarray:
    """Encoded image to uint8 RGB, height × width × 3; area-averaged to ``size`` × ``size`` where given."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BOX if size < image.width else Image.Resampling.LANCZOS)
    return np.asarray(image)


def decode_map(data: bytes) -> np.ndarray:
    """Encoded single-channel map (palette or grey PNG) to uint8, height × width."""
    image = Image.open(io.BytesIO(data))
    return np.asarray(image if image.mode in ("P", "L") else image.convert("L"))


def encode_png(array: np.ndarray) -> bytes:
    """uint8 map (height × width) or image (height × width × 3) to PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def encode_jpeg(array: np.ndarray, quality: int = 95) -> bytes:
    """uint8 image, height × width × 3, to JPEG bytes without metadata; 4:4:4, since lesions are red on orange."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return cv2.imencode(".jpg", cv2.cvtColor(array, cv2.COLOR_RGB2BGR), options)[1].tobytes()
