"""Finished captions of one shard on disk, a line each from the moment they are there."""

import fcntl
import json
import os
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from retinalogos.captions.engine import CaptionEngine, CaptionRequest, CaptionResult
from retinalogos.errors import UsageError

Key = tuple[str, str, int]

# A line outlives its process as soon as it is written; for a power cut the disk is told to keep it, which may take
# tens of milliseconds and is therefore done for all lines of a second together.
_SYNC_SECONDS = 1.0


class Journal:
    """Results by request, in a file of JSON lines that is only ever appended to.

    What a kill or a power cut left half written is passed over, and asked for again. One process at a time has the
    file; threads of it may add at once. Memory is that of the keys; texts are read from the file.

    Args:
        path: of the file; made where it is not there.

    Raises:
        UsageError: another process has it.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UsageError(f"{self.path}: another process captions this shard; wait for it or end it") from None
        self._lock = threading.Lock()
        self._finished: dict[Key, int] = {}  # where their lines begin
        self._failed: dict[Key, int] = {}
        self._synced = time.monotonic()
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def _read(self) -> None:
        self._end = place = 0
        with self.path.open("rb") as lines:
            for line in lines:
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("it has no end")
                    self._note(_parse(line), place)
                except (ValueError, TypeError) as error:
                    warnings.warn(f"{self.path}: the line at byte {place} is passed over ({error})", stacklevel=3)
                else:
                    self._end = place + len(line)
                place += len(line)
        # Nothing is appended to half a line.
        os.truncate(self.path, self._end)
        # An answer that failed in an earlier run is asked for again; one of this run is final.
        self._failed.clear()

    def _note(self, result: CaptionResult, place: int) -> None:
        key = (result.image_id, result.granularity, result.wording)
        (self._finished if result.error is None else self._failed)[key] = place

    def __len__(self) -> int:
        """Number of finished captions."""
        return len(self._finished)

    def __contains__(self, key: object) -> bool:
        """Whether the caption of (image_id, granularity, wording) is finished."""
        return key in self._finished

    def add(self, result: CaptionResult) -> None:
        """Writes one result; one that is there already is not written twice."""
        with self._lock:
            key = (result.image_id, result.granularity, result.wording)
            if key in self._finished or (result.error is not None and key in self._failed):
                return
            line = json.dumps(asdict(result), ensure_ascii=False).encode() + b"\n"
            start, left = self._end, memoryview(line)
            while left:  # a full disk or a signal may cut a write short
                left = left[self._file.write(left) or 0 :]
            self._end = start + len(line)
            self._note(result, start)
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def results(self, keys: Iterable[Key]) -> Iterator[CaptionResult]:
        """The results of ``keys``, in their order."""
        with self.path.open("rb") as lines:
            for key in keys:
                lines.seek(self._finished[key] if key in self._finished else self._failed[key])
                yield _parse(lines.readline())


def _parse(line: bytes) -> CaptionResult:
    return CaptionResult(**json.loads(line))


def finished(path: Path) -> set[Key]:
    """The captions that a journal holds, read beside the process that may be writing it."""
    found: set[Key] = set()
    with path.open("rb") as lines:
        for line in lines:
            with suppress(ValueError, TypeError):
                result = _parse(line)
                if result.error is None:
                    found.add((result.image_id, result.granularity, result.wording))
    return found


def captioned_once(
    engine: CaptionEngine, requests: Iterable[CaptionRequest], journal: Journal
) -> Iterator[CaptionResult]:
    """Asks ``engine`` for what ``journal`` has not, and yields each answer when it is safe on disk.

    An engine that has answers before it may hand them over in order (a server with many requests at once) calls its
    attribute ``finished`` with each, where it has one; such an answer is kept even if the process is killed before its
    turn.
    """
    if hasattr(engine, "finished"):
        engine.finished = journal.add
    for result in engine.caption(r for r in requests if (r.image_id, r.granularity, r.wording) not in journal):
        journal.add(result)
        yield result
