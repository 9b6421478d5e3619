"""Captions of a cohort shard by shard: side by side, killed and started again, on one machine or on many.

A shard of the cohort becomes a part: a captions folder of its own. Parts in the order of their shards make the whole,
so that the result does not depend on which process wrote which. While a cohort is captioned, its work lies in a folder
named by a hash of all that decides on the result; a run that is started again finds there what was finished.
"""

import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retinalogos.captions.engine import CaptionEngine, CaptionRequest, CaptionResult
from retinalogos.captions.journal import Journal, captioned_once
from retinalogos.captions.statistics import CaptionStatistics
from retinalogos.captions.table import CaptionWriter, of_model, read_dropped, read_tables
from retinalogos.captions.template import GRANULARITIES
from retinalogos.cohort.deidentify import deidentify_text
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.progress import track

# What an engine may know of an eye: no pseudonym, no hash, nothing of the data set's own.
RECORD_COLUMNS = (
    "image_id",
    "eye",
    "age",
    "sex",
    "dr_grade",
    "dme",
    "glaucoma",
    "vcdr",
    "findings",
    "report",
    "labels",
    "quality",
    "source",
    "truth",
)
# Row groups read at once, without their pictures: about a thousand rows.
_GROUPS = 16
# Free text of the source.
_TEXTS = ("report", "labels")


@dataclass(frozen=True)
class Captioning:
    """What is written of a cohort.

    Attributes:
        cohort: its folder.
        engine: makes the engine, in each process that captions; must be picklable.
        wordings: granularity → captions of an image.
        seed: of all captions.
        token_budget, text_encoder: of :class:`~retinalogos.captions.tokens.TokenBudget`.
        of_model: the engine asks a model. Its captions carry the columns of MODEL_FIELDS, and since each costs money
            or time it is written down as soon as it is there, and a finished part is taken from an earlier run.
    """

    cohort: Path
    engine: Callable[[], CaptionEngine]
    wordings: Mapping[str, int]
    seed: int
    token_budget: int
    text_encoder: str
    of_model: bool


def work_key(cohort: Cohort, settings: Mapping[str, Any]) -> str:
    """Name of the work folder: the same for the same cohort and settings, in any process."""
    text = json.dumps([cohort.meta["content_sha256"], settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def requests_of(
    shard: Path, wordings: Mapping[str, int], seed: int, columns: Sequence[str] = RECORD_COLUMNS
) -> Iterator[CaptionRequest]:
    """The captions to be written of a shard; a few row groups in memory at a time, pictures only where asked for.

    Free text is de-identified here once more, whatever the cohort was ingested with.
    """
    file = pq.ParquetFile(shard)
    for first in range(0, file.num_row_groups, _GROUPS):
        groups = range(first, min(first + _GROUPS, file.num_row_groups))
        places = (
            (pictures, row)
            for group in groups
            for pictures in [_Pictures(shard, group)]
            for row in range(file.metadata.row_group(group).num_rows)
        )
        records = file.read_row_groups(list(groups), columns=list(columns)).to_pylist()
        for record, (pictures, row) in zip(records, places, strict=True):
            for name in _TEXTS:
                if record.get(name):
                    record[name] = deidentify_text(record[name])
            for granularity in GRANULARITIES:
                for wording in range(wordings.get(granularity, 0)):
                    image = partial(pictures.encoded, row)
                    yield CaptionRequest(record["image_id"], record, granularity, wording, seed, image)


class _Pictures:
    """The encoded pictures of a row group, read when the first is asked for."""

    def __init__(self, shard: Path, group: int):
        self._read = cache(lambda: pq.ParquetFile(shard).read_row_group(group, columns=["image"])["image"])

    def encoded(self, row: int) -> bytes:
        picture: bytes = self._read()[row]["bytes"].as_py()
        return picture


def caption_shard(job: Captioning, engine: CaptionEngine, shard: Path, work: Path, show: bool = True) -> Path:
    """Captions one shard into its part below ``work``, which is whole or not there; returns the part.

    Raises:
        UsageError: another process captions this shard.
    """
    part = work / shard.stem
    if part.exists():
        return part
    making = work / f".partial-{shard.stem}"
    shutil.rmtree(making, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)

    def requests() -> Iterator[CaptionRequest]:
        return requests_of(shard, job.wordings, job.seed, getattr(engine, "columns", RECORD_COLUMNS))

    def shown(results: Iterable[CaptionResult]) -> Iterable[CaptionResult]:
        total = pq.read_metadata(shard).num_rows * sum(job.wordings.values())
        return track(results, f"caption {shard.stem}", total, "caption") if show else results

    if job.of_model:
        with Journal(work / f"{shard.stem}.jsonl") as journal:
            deque(shown(captioned_once(engine, requests(), journal)), maxlen=0)
            keys = ((r.image_id, r.granularity, r.wording) for r in requests())
            _write(job, journal.results(keys), making)
            for file in making.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            making.rename(part)
            journal.path.unlink()
    else:
        _write(job, shown(engine.caption(requests())), making)
        making.rename(part)
    return part


def _write(job: Captioning, results: Iterable[CaptionResult], folder: Path) -> None:
    with CaptionWriter(folder, job.token_budget, job.text_encoder, job.of_model, may_be_empty=True) as writer:
        for result in results:
            if result.error is None:
                writer.add(vars(result))
            else:
                writer.drop(result.image_id, result.granularity, result.wording, "engine", result.error)


def caption_shards(job: Captioning, work: Path, numbers: Sequence[int], jobs: int) -> Iterator[Path]:
    """Captions shards of a cohort, ``jobs`` at a time, and yields their parts in the order of ``numbers``.

    Args:
        job: what is written.
        work: folder of the parts and journals, see :func:`work_key`.
        numbers: of the shards.
        jobs: processes, each with an engine of its own; the parts do not depend on it.

    Raises:
        UsageError: there is no such shard.
    """
    shards = Cohort(job.cohort).shards
    for number in numbers:
        if not 0 <= number < len(shards):
            raise UsageError(f"shard {number}: {job.cohort} has {len(shards)}, counted from 0")
    chosen = [shards[number] for number in numbers]
    if not job.of_model:
        for shard in chosen:  # others may be at work on theirs
            shutil.rmtree(work / shard.stem, ignore_errors=True)
    if jobs == 1 or len(chosen) == 1:
        engine = job.engine()
        for shard in chosen:
            yield caption_shard(job, engine, shard, work)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(min(jobs, len(chosen)), context, _start, (job,)) as pool:
        parts: list[Future[Path]] = [pool.submit(_caption_shard, job, shard, work) for shard in chosen]
        try:
            for part in track(parts, "caption", len(parts), "shard"):
                yield part.result()
        finally:
            for part in parts:
                part.cancel()


def remove_parts(cohort: Cohort, work: Path) -> None:
    """Removes the work on a cohort whose captions stand in an output now; others may have removed it."""
    for shard in cohort.shards:
        shutil.rmtree(work / shard.stem, ignore_errors=True)
    with suppress(OSError):
        work.rmdir()


_ENGINE: list[CaptionEngine] = []  # of a worker process: a model is loaded once and not for every shard


def _start(job: Captioning) -> None:
    _ENGINE[:] = [job.engine()]


def _caption_shard(job: Captioning, shard: Path, work: Path) -> Path:
    return caption_shard(job, _ENGINE[0], shard, work, show=False)


def merge(
    parts: Iterable[Path], folder: Path, token_budget: int, text_encoder: str, may_be_empty: bool = False
) -> CaptionStatistics:
    """Parts, in the order of their shards, to one captions folder; returns its statistics.

    Args:
        parts: captions folders of one cohort and engine, as of :func:`caption_shards` or of pods that captioned a shard
            each.
        folder: of the whole; made if it is not there.
        token_budget, text_encoder: of the parts.
        may_be_empty: a folder without any caption is no error.

    Raises:
        DataError: two parts hold the same caption, or none holds any.
    """
    statistics, parts = CaptionStatistics(), iter(parts)
    first = next(parts)
    with CaptionWriter(folder, token_budget, text_encoder, of_model(first), may_be_empty) as writer:
        for part in itertools.chain([first], parts):
            for table in read_tables(part):
                writer.add_table(table)
                statistics.add(table)
            for row in read_dropped(part):
                writer.drop(row["image_id"], row["granularity"], int(row["wording"]), row["rule"], row["detail"])
    return statistics
