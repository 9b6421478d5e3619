"""Answers on disk: a file for each reader, a line for each answer, written before the reader is told so."""

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retinalogos.errors import DataError, UsageError
from retinalogos.reader_study.design import ANSWERS, ROLES, Kind, Study, Trial, reader_key, reader_name

Score = Literal[1, 2, 3]
Line = TypeVar("Line", "Reader", "Answer")
_MUCH = 2**16  # bytes, of which a line has a few hundred


class Ratings(BaseModel):
    """A score for each aspect; None where it cannot be judged or is not there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    disc: Score | None
    macula: Score | None
    vessels: Score | None
    nerve_fibre_layer: Score | None
    lesions: Score | None
    overall: Score


class Answer(BaseModel):
    """What a reader said of a picture.

    Attributes:
        trial: its place in the reader's order, from 0.
        picture: its name.
        repeat: whether the reader had seen it before.
        judged: what the reader takes it for.
        ratings: see there.
        seconds: from the first sight of the page to the answer; None where the server was started anew in between.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trial: int
    picture: str
    repeat: bool
    judged: Kind
    ratings: Ratings
    seconds: float | None = Field(default=None, ge=0)


class Reader(BaseModel):
    """First line of a reader's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    name: str
    role: Literal["ophthalmologist", "trainee", "grader", "other"]

    @property
    def key(self) -> str:
        """As in :func:`reader_key`."""
        return reader_key(self.name)


@dataclass
class Book:
    """A reader's file: who reads, in which order, and the answers so far (those of the first trials of the order).

    ``end`` is the byte behind the last whole line.
    """

    path: Path
    reader: Reader
    order: list[Trial]
    answers: list[Answer]
    end: int

    def add(self, answer: Answer) -> None:
        """Appends an answer; when this returns the disk has it.

        Raises:
            ValueError: it is not of the next trial.
            OSError: it could not be written; the file is as it was.
        """
        if answer.trial != len(self.answers):
            raise ValueError(f"trial {answer.trial} is not the next of {self.path}")
        self.end = _append(self.path, answer.model_dump_json(), self.end)
        self.answers.append(answer)


def path_of(folder: Path, key: str) -> Path:
    """Where the answers of a reader lie in the folder of a study."""
    return folder / ANSWERS / f"{key}.jsonl"


def start_book(folder: Path, study: Study, name: str, role: str) -> Book:
    """Begins the file of a new reader.

    Raises:
        UsageError: no such name or role can be.
        DataError: the reader has a file already.
        OSError: the file could not be written.
    """
    if role not in ROLES:
        raise UsageError(f"the role must be one of {', '.join(ROLES)}")
    reader = Reader.model_validate({"study": study.identity, "name": reader_name(name), "role": role})
    path = path_of(folder, reader.key)
    end = _append(path, reader.model_dump_json(), 0)
    _sync_folder(path.parent)
    return Book(path, reader, study.order(reader.key), [], end)


def read_books(folder: Path, study: Study) -> list[Book]:
    """All readers of a study with their answers, in the order of their names.

    Half a line at the end of a file, as a power cut may leave it, is passed over: nobody was told that it was kept.

    Raises:
        DataError: a file belongs to another study, or a line is damaged; nothing is guessed.
    """
    books = (_read(path, study) for path in sorted((folder / ANSWERS).glob("*.jsonl")))
    return sorted((book for book in books if book is not None), key=lambda book: book.reader.name.casefold())


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keeps every other server away from the answers of a study until the block ends, or the process.

    Raises:
        UsageError: another has them.
    """
    lock = os.open(folder / ANSWERS, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder} is served by another process already; end that first") from None
        yield
    finally:
        os.close(lock)


def _read(path: Path, study: Study) -> Book | None:
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        warnings.warn(f"{path}: half a line at its end is passed over", stacklevel=3)
    lines = data[:end].splitlines()
    if not lines:
        return None
    reader = _parsed(Reader, path, 1, lines[0])
    if reader.study != study.identity:
        raise DataError(f"{path} holds answers to another study ({reader.study}, not {study.identity})")
    order = study.order(reader.key)
    answers = []
    for number, line in enumerate(lines[1:]):
        answer = _parsed(Answer, path, number + 2, line)
        if number >= len(order) or (answer.trial, Trial(answer.picture, answer.repeat)) != (number, order[number]):
            raise DataError(f"{path}, line {number + 2} answers another picture than was asked; restore it from a copy")
        answers.append(answer)
    return Book(path, reader, order, answers, end)


def _parsed(model: type[Line], path: Path, number: int, line: bytes) -> Line:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"]))
        raise DataError(f"{path}, line {number} is damaged: {place}: {what['msg']}; restore it from a copy") from None


def _append(path: Path, line: str, end: int) -> int:
    """Writes one line behind byte ``end``, whatever stood there; the byte behind it, once the disk has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if b"\n" in os.pread(file, _MUCH, end):
            raise DataError(f"{path} was changed by someone else while it was served; end the server and look at it")
        os.ftruncate(file, end)  # half a line of a write that failed
        try:
            left = memoryview(line.encode() + b"\n")
            at = end
            while left:  # a full disk or a signal may cut a write short
                written = os.pwrite(file, left, at)
                left, at = left[written:], at + written
            os.fsync(file)
        except OSError:
            os.ftruncate(file, end)
            raise
        return at
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    """Makes the disk keep the name of a new file."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
