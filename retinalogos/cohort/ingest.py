"""From a reader's records to a cohort: prepared in parallel, spooled, split, written as a stream.

Two passes over small things instead of two over the photographs: the workers prepare every image once and the rows go
to a spool on disk; patients, classes and hashes stay in memory (a few hundred bytes a row). When all rows are known
the split is drawn, and the spool is copied to the shards. So a cohort may be larger than memory.
"""

import csv
import hashlib
import itertools
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa

from retinalogos.cohort.cubes import FIELD
from retinalogos.cohort.deidentify import pseudonym
from retinalogos.cohort.duplicates import near_pairs
from retinalogos.cohort.prepare import Rejected, prepare
from retinalogos.cohort.readers.record import Record
from retinalogos.cohort.schema import SCHEMA, SPLITS
from retinalogos.cohort.shards import SHARD_BYTES, CohortWriter
from retinalogos.cohort.split import Groups, check_fractions, split_rows
from retinalogos.errors import DataError
from retinalogos.progress import track

# Records per piece of work: large enough that handing it over costs little, small enough that all cores end together.
_CHUNK = 32
_SPOOL_SCHEMA = pa.schema([field for field in SCHEMA if field.name not in ("split", "duplicate_group")])
_CUBE_SPOOL_SCHEMA = _SPOOL_SCHEMA.append(FIELD)
QUARANTINE_COLUMNS = ("row", "file", "patient_id", "eye", "reason", "detail")


@dataclass(frozen=True)
class Ingestion:
    """How to ingest.

    Attributes:
        size: side of the stored square images, pixels.
        jpeg_quality: 1-100; 100 is still lossy.
        fractions: split → share; sums to 1.
        seed: seed of the split.
        quarantine_share: largest share of unusable files, 0-1.
        near_distance: bits of :func:`~retinalogos.cohort.duplicates.perceptual_hash` up to which two images count as
            one picture.
        key: key of the pseudonyms.
        workers: processes; the result does not depend on it.
        shard_bytes: size at which a shard is closed.
        wavelengths: nm, of the bands of hyperspectral cubes; None for photographs.
    """

    size: int
    jpeg_quality: int
    fractions: Mapping[str, float]
    seed: int
    quarantine_share: float
    near_distance: int
    key: bytes
    workers: int = 1
    shard_bytes: int = SHARD_BYTES
    wavelengths: tuple[float, ...] | None = None

    @property
    def spooled(self) -> pa.Schema:
        """Columns of a row before it has a split."""
        return _SPOOL_SCHEMA if self.wavelengths is None else _CUBE_SPOOL_SCHEMA

    @property
    def chunk(self) -> int:
        """Records per piece of work: a cube is as large as a chunk of photographs."""
        return _CHUNK if self.wavelengths is None else 1

    def __post_init__(self) -> None:
        check_fractions(self.fractions)


@dataclass
class _Index:
    """What must be known of all rows before the first can be written."""

    image_ids: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    batches: int = 0


@dataclass(frozen=True)
class Summary:
    """What was done: counts by their name, mean quality."""

    rows: int
    quarantined: int
    duplicates: int
    splits: Mapping[str, int]
    classes: Mapping[str, int]
    quality: float


def ingest(records: Iterable[Record], folder: Path, name: str, how: Ingestion, total: int | None = None) -> Summary:
    """Makes the cohort ``name`` in ``folder``, with ``quarantine.csv`` beside it.

    The order of the rows is that of ``records``; the result does not depend on the number of workers. Where ``total``,
    the number of records, is given, progress tells the time left.

    Raises:
        DataError: more than ``how.quarantine_share`` of the files are unusable, or all are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / "spool.arrow"
    try:
        index, rejected, quality = _prepare_all(records, spool, folder / "quarantine.csv", how, total)
        if not index.image_ids and not rejected:
            raise DataError(f"{name}: the data set has no image: its table is empty, or its folder")
        _check_share(rejected, len(index.image_ids), folder / "quarantine.csv", how.quarantine_share)
        pairs, group_of = _duplicates(index, how.near_distance)
        splits = split_rows(index.patients, index.classes, pairs, how.fractions, how.seed)
        with CohortWriter(folder, name, how.shard_bytes, how.wavelengths) as writer:
            start = 0
            for batch in track(_spooled(spool), "ingest: write", index.batches, "batch"):
                end = start + batch.num_rows
                groups = pa.array([group_of.get(row) for row in range(start, end)], pa.string())
                batch = batch.append_column(pa.field("split", pa.string(), nullable=False), pa.array(splits[start:end]))
                writer.add_batch(batch.append_column("duplicate_group", groups))
                start = end
    finally:
        spool.unlink(missing_ok=True)
    return Summary(
        rows=len(splits),
        quarantined=sum(rejected.values()),
        duplicates=len(group_of),
        splits={split: splits.count(split) for split in SPLITS},
        classes=dict(sorted(Counter(itertools.chain.from_iterable(index.classes)).items())),
        quality=quality / max(1, len(splits)),
    )


def _prepare_all(
    records: Iterable[Record], spool: Path, quarantine: Path, how: Ingestion, total: int | None
) -> tuple[_Index, Counter[str], float]:
    index, rejected, quality = _Index(), Counter[str](), 0.0
    seen: Counter[str] = Counter()
    with (
        quarantine.open("w", newline="", encoding="utf-8") as handle,
        pa.OSFile(str(spool), "wb") as sink,
        pa.ipc.new_stream(sink, how.spooled) as stream,
    ):
        bad = csv.DictWriter(handle, QUARANTINE_COLUMNS, lineterminator="\n")
        bad.writeheader()
        for chunk, place in track(_one_by_one(_work(records, how)), "ingest: prepare", total, "image"):
            if place > 0:
                continue
            bad.writerows(chunk.bad)
            rejected.update(row["reason"] for row in chunk.bad)
            batch = _own_ids(chunk.batch, seen)
            index.image_ids += batch["image_id"].to_pylist()
            index.patients += batch["patient_id"].to_pylist()
            index.classes += chunk.classes
            index.hashes += chunk.hashes
            quality += sum(batch["quality"].to_pylist())
            if batch.num_rows:
                stream.write_batch(batch)
                index.batches += 1
    return index, rejected, quality


def _own_ids(batch: pa.RecordBatch, seen: Counter[str]) -> pa.RecordBatch:
    """Gives a picture that was there before an id of its own: the source holds it twice, perhaps with other labels."""
    contents = batch["image_id"].to_pylist()
    before = []
    for content in contents:
        before.append(seen[content])
        seen[content] += 1
    if not any(before):
        return batch
    rows = batch.to_pylist()
    for row, times in zip(rows, before, strict=True):
        if times:
            row["image_id"] = hashlib.sha256(f"{row['image_id']}:{times}".encode()).hexdigest()[:16]
            row["image"]["path"] = f"{row['image_id']}.jpg"
    return pa.RecordBatch.from_pylist(rows, schema=batch.schema)


@dataclass(frozen=True)
class _Chunk:
    """What a worker makes of a few records: their rows, and of each row what the split and the search need."""

    size: int
    batch: pa.RecordBatch
    classes: list[tuple[str, ...]]
    hashes: list[int]
    bad: list[dict[str, Any]]


def _one_by_one(chunks: Iterator[_Chunk]) -> Iterator[tuple[_Chunk, int]]:
    """Each chunk once for each of its records, so that progress counts images."""
    for chunk in chunks:
        for place in range(chunk.size):
            yield chunk, place


def _work(records: Iterable[Record], how: Ingestion) -> Iterator[_Chunk]:
    """Prepared chunks in the order of their records; never more than a few per worker in memory."""
    source = enumerate(records, start=1)
    chunks = iter(lambda: list(itertools.islice(source, how.chunk)), [])
    if how.workers == 1:
        for chunk in chunks:
            yield _prepare_chunk(chunk, how)
        return
    context = get_context("forkserver")
    # Loaded once for all workers; pyarrow imports pandas at its first conversion, where pandas is installed.
    context.set_forkserver_preload([__name__, "pandas"])
    with ProcessPoolExecutor(how.workers, mp_context=context) as pool:
        waiting: deque[Future[_Chunk]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_prepare_chunk, chunk, how))
                if len(waiting) > 3 * how.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _prepare_chunk(chunk: list[tuple[int, Record]], how: Ingestion) -> _Chunk:
    rows, classes, hashes, bad = [], [], [], []
    for number, record in chunk:
        patient = patient_pseudonym(record, number, how.key)
        result = prepare(record, how.size, how.jpeg_quality)
        if isinstance(result, Rejected):
            bad.append(_quarantine_row(record, number, patient, result))
            continue
        rows.append(result.row | {"patient_id": patient})
        classes.append(classes_of(record))
        hashes.append(result.hash)
    return _Chunk(len(chunk), pa.RecordBatch.from_pylist(rows, schema=how.spooled), classes, hashes, bad)


def patient_pseudonym(record: Record, number: int, key: bytes) -> str:
    """Pseudonym of the record's patient; an image whose patient is not known is a patient of its own."""
    identifier = record.patient if record.patient is not None else f"{record.name}#{number}"
    return pseudonym(record.source, identifier, key)


def _quarantine_row(record: Record, number: int, patient: str, why: Rejected) -> dict[str, Any]:
    # A file's name often holds the patient's number; it is then replaced by the pseudonym. A 1 within 101 is not it.
    name = record.name
    if record.patient:
        ends = [r"\d" if end.isdigit() else r"[^\W\d_]" for end in (record.patient[0], record.patient[-1])]
        name = re.sub(f"(?<!{ends[0]}){re.escape(record.patient)}(?!{ends[1]})", patient, name)
    return dict(zip(QUARANTINE_COLUMNS, (number, name, patient, record.eye, why.reason, why.detail), strict=True))


def classes_of(record: Record) -> tuple[str, ...]:
    """Classes that the split keeps in proportion: grade, glaucoma, findings."""
    classes = [f"finding:{code}" for code in record.findings or ()]
    if record.dr_grade is not None:
        classes.append(f"dr_grade:{record.dr_grade}")
    if record.glaucoma is not None:
        classes.append(f"glaucoma:{record.glaucoma}")
    return tuple(classes)


def _check_share(rejected: Counter[str], kept: int, quarantine: Path, allowed: float) -> None:
    bad = sum(rejected.values())
    if bad > allowed * (bad + kept):
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common())
        raise DataError(
            f"{bad} of {bad + kept} files are unusable ({reasons}), which is more than the share of {allowed:g} that "
            f"`quarantine_share` allows; {quarantine} lists them"
        )


def _duplicates(index: _Index, distance: int) -> tuple[list[tuple[int, int]], dict[int, str]]:
    """Pairs of rows that show the same picture, and the group of each row that is in one.

    Equal hashes are tied to the first of them, so that one picture many times over does not cost all its pairs.
    """
    first: dict[int, int] = {}
    equal = [(first[value], row) for row, value in enumerate(index.hashes) if first.setdefault(value, row) != row]
    unique = list(first)
    near = [(first[unique[one]], first[unique[other]]) for one, other in near_pairs(unique, distance)]
    pairs = equal + near
    groups = Groups(len(index.hashes))
    for one, other in pairs:
        groups.join(one, other)
    members = sorted({row for pair in pairs for row in pair})
    return pairs, {row: index.image_ids[groups.find(row)] for row in members}


def _spooled(spool: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(spool), "rb") as source, pa.ipc.open_stream(source) as stream:
        yield from stream
