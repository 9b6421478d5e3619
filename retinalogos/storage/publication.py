"""Folders published to an object store and fetched from it: cohorts, captions, checkpoints, generators.

Under an address lie

    objects/<sha256>               contents of files
    manifests/<sha256>.json        a version: paths, sizes and hashes of its files
    versions/<number>-<sha256>     empty; the one with the highest number is current

Everything bears the hash of its content and is written in this order. So a version is seen whole or not at all, what
was sent before an upload was cut off counts when it is begun again, writers at the same time write nothing over, and
nothing rests on conditional writes, which some stores ignore.
"""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from retinalogos.errors import DataError, UsageError
from retinalogos.progress import transfer
from retinalogos.storage.bucket import AT_ONCE, Bucket, StoreError

FORMAT = 1
CACHE_VARIABLE = "RETINALOGOS_CACHE"
# Bytes sent and asked for at a time, AT_ONCE of them in memory. S3 wants 5 MiB at least and 10,000 parts at most.
PART = 16 * 2**20
_MOST_PARTS = 10_000
# How often an upload that another writer of the same object ended is looked at again.
_ROUNDS = 3

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Version:
    """A version of what is published at an address.

    Attributes:
        number: counts from 1.
        sha256: of its manifest, and so of names and contents of all files.
    """

    number: int
    sha256: str


@dataclass(frozen=True)
class File:
    """A file of a version: path relative to the folder, with slashes; size in bytes; hash (hex)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Source:
    """A file to send: where it lies, what it is, and the MD5 of each of its parts."""

    path: Path
    file: File
    parts: Sequence[bytes]


def publish(folder: Path, address: str) -> Version:
    """Sends a folder to ``s3://bucket/prefix``; what the store has already is not sent again.

    Returns:
        The version, which is the one that was current before if nothing has changed.

    Raises:
        UsageError: the address is none, or there is no folder or no file in it.
        StoreError: the store refused or did not answer; the same call goes on where this one stopped.
        DataError: a file changed meanwhile.
    """
    bucket = Bucket(address)
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    if not paths:
        raise UsageError(f"{folder} is no folder with files in it: name what should be published")
    with transfer("hash", sum(path.stat().st_size for path in paths)) as passed:
        sources = [_source(path, path.relative_to(folder).as_posix(), passed) for path in paths]
    manifest = json.dumps({"format": FORMAT, "files": [asdict(source.file) for source in sources]}, indent=1).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    distinct = {source.file.sha256: source for source in sources}.values()
    with transfer("publish", sum(source.file.size for source in distinct)) as passed, _threads() as threads:
        send = partial(_send, bucket, threads, passed)
        # Small files side by side; the parts of a large one are that by themselves.
        list(threads.map(send, (source for source in distinct if len(source.parts) == 1)))
        for source in distinct:
            if len(source.parts) > 1:
                send(source)
    bucket.ask("put_object", _manifest_name(digest), Body=manifest, ContentMD5=_base64(_md5(manifest)))
    return _numbered(bucket, digest)


def fetch(address: str, folder: Path, sha256: str | None = None) -> str:
    """Fetches what was published at ``s3://bucket/prefix`` into a new folder.

    It is gathered in a hidden folder beside and renamed when every file has its hash. Calls for the same folder, from
    other processes too, wait for each other.

    Args:
        address: see :func:`publish`.
        folder: must not exist, or hold just what is asked for.
        sha256: of the version; the current one if not given.

    Returns:
        The hash of the version.

    Raises:
        UsageError: nothing is published there, or the folder holds something else.
        StoreError: the store refused or did not answer; the same call goes on where this one stopped.
        DataError: what the store sends is not what was published.
    """
    bucket, folder = Bucket(address), Path(folder)
    if sha256 is None:
        known = _versions(bucket)
        if not known:
            raise UsageError(f"nothing is published at {address}; is the address right?")
        sha256 = known[-1].sha256
    files = _read_manifest(bucket, sha256)
    if _is_there(folder, files):
        return sha256
    gathered = folder.with_name(f".partial-{folder.name}-{sha256[:12]}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(gathered.with_name(f"{gathered.name}.lock")), transfer("fetch", sum(f.size for f in files)) as passed:
        if _is_there(folder, files):
            return sha256
        gathered.mkdir(exist_ok=True)
        with _threads() as threads:
            small = [file for file in files if file.size <= PART]
            list(threads.map(lambda file: _receive(bucket, file, gathered / file.path, map, passed), small))
            for file in files:
                if file.size > PART:
                    _receive(bucket, file, gathered / file.path, partial(_in_order, threads), passed)
        os.replace(gathered, folder)
    return sha256


def fetch_cached(address: str, sha256: str) -> Path:
    """The folder of a version, fetched once into ``RETINALOGOS_CACHE`` (or ``~/.cache/retinalogos``).

    Raises:
        DataError: see :func:`fetch`; also where the copy on this disk has been changed.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "retinalogos")
    folder = cache / sha256
    try:
        fetch(address, folder, sha256)
    except UsageError as error:
        raise DataError(str(error)) from None
    return folder


def versions(address: str) -> list[Version]:
    """What was published at ``s3://bucket/prefix``, oldest first; the last is current.

    Raises:
        UsageError: the address is none.
        StoreError: the store refused or did not answer.
    """
    return _versions(Bucket(address))


def _versions(bucket: Bucket) -> list[Version]:
    names = (re.fullmatch(r"versions/(\d{8})-([0-9a-f]{64})", name) for name in bucket.names("versions/"))
    found = [Version(int(name[1]), name[2]) for name in names if name]
    return sorted(found, key=lambda version: (version.number, version.sha256))


def _numbered(bucket: Bucket, sha256: str) -> Version:
    """Makes a version current.

    Two writers may take the same number; then the greater hash is current, which both see, and the other writer takes
    the next number. Whoever ends last is current, as if one had waited for the other.
    """
    known = _versions(bucket)
    while not known or known[-1].sha256 != sha256:
        mine = Version(known[-1].number + 1 if known else 1, sha256)
        bucket.ask("put_object", f"versions/{mine.number:08d}-{sha256}", Body=b"")
        known = _versions(bucket)
        if max((each for each in known if each.number == mine.number), key=lambda each: each.sha256) == mine:
            return mine
    return known[-1]


def _manifest_name(sha256: str) -> str:
    return f"manifests/{sha256}.json"


def _object_name(sha256: str) -> str:
    return f"objects/{sha256}"


def _read_manifest(bucket: Bucket, sha256: str) -> list[File]:
    name = _manifest_name(sha256)
    size = bucket.size(name)
    if size is None:
        raise UsageError(f"{bucket.address('')} has no version {sha256}; `retinalogos versions` lists those it has")
    data = bucket.read(name, 0, size)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{bucket.address(name)} is not what was published: remove it and publish again")
    content: dict[str, Any] = json.loads(data)
    if content["format"] != FORMAT:
        raise UsageError(f"{bucket.address(name)} has format {content['format']}, this version reads {FORMAT}")
    files = [File(**entry) for entry in content["files"]]
    for file in files:
        if PurePosixPath(file.path).is_absolute() or ".." in PurePosixPath(file.path).parts:
            raise DataError(f"{bucket.address(name)} names {file.path!r}, which lies outside the folder: not fetched")
    return files


def _source(path: Path, name: str, passed: Callable[[int], None]) -> _Source:
    step, whole, parts, size = _part_bytes(path.stat().st_size), hashlib.sha256(), list[bytes](), 0
    with path.open("rb") as file:
        while data := file.read(step):
            whole.update(data)
            parts.append(_md5(data))
            size += len(data)
            passed(len(data))
    return _Source(path, File(name, size, whole.hexdigest()), parts or [_md5(b"")])


def _part_bytes(size: int) -> int:
    """A function of the size alone, so that whoever goes on with an upload cuts the file as who began it."""
    return max(PART, -(-size // _MOST_PARTS))


def _send(bucket: Bucket, threads: ThreadPoolExecutor, passed: Callable[[int], None], source: _Source) -> None:
    name = _object_name(source.file.sha256)
    if bucket.size(name) == source.file.size:
        passed(source.file.size)
        return
    if len(source.parts) == 1:
        bucket.ask("put_object", name, Body=_part(source, 0), ContentMD5=_base64(source.parts[0]))
        passed(source.file.size)
        if bucket.size(name) == source.file.size:
            return
    else:
        for attempt in range(1, _ROUNDS + 1):
            try:
                _send_parts(bucket, threads, passed if attempt == 1 else _silent, source)
            except StoreError as error:
                # Another writer of the same bytes completed or ended the upload, or sent a part of another size. There
                # are stores that have no word for it and answer 500: then what counts is whether the object is there.
                other_writer = error.code in ("NoSuchUpload", "InvalidPart")
                if not other_writer and (not error.code or bucket.size(name) != source.file.size):
                    raise
            if bucket.size(name) == source.file.size:
                return
    raise DataError(
        f"{bucket.address(name)}: the store did not keep what it was sent ({source.path}): is it full? Make room there "
        "and do the same again"
    )


def _send_parts(bucket: Bucket, threads: ThreadPoolExecutor, passed: Callable[[int], None], source: _Source) -> None:
    name = _object_name(source.file.sha256)
    upload, known = _begin_or_go_on(bucket, name)

    def send(index: int) -> dict[str, Any]:
        data, number = _part(source, index), index + 1
        etag = source.parts[index].hex()
        # The ETag of a part is its MD5, except under some kinds of encryption, where it is sent again.
        if known.get(number) != (len(data), etag):
            md5 = _base64(source.parts[index])
            sent = bucket.ask("upload_part", name, UploadId=upload, PartNumber=number, Body=data, ContentMD5=md5)
            etag = sent["ETag"]
        passed(len(data))
        return {"PartNumber": number, "ETag": etag}

    parts = list(threads.map(send, range(len(source.parts))))
    bucket.ask("complete_multipart_upload", name, UploadId=upload, MultipartUpload={"Parts": parts})


def _begin_or_go_on(bucket: Bucket, name: str) -> tuple[str, dict[int, tuple[int, str]]]:
    """An upload of an object and the parts that it has; any upload of this name is one of these bytes."""
    for upload in bucket.unfinished_uploads(name):
        with contextlib.suppress(StoreError):  # another writer has ended it since
            return upload, bucket.parts(name, upload)
    return str(bucket.ask("create_multipart_upload", name)["UploadId"]), {}


def _part(source: _Source, index: int) -> bytes:
    step = _part_bytes(source.file.size)
    with source.path.open("rb") as file:
        file.seek(index * step)
        data = file.read(step)
    if _md5(data) != source.parts[index]:
        raise DataError(f"{source.path} changed while it was being published; wait until it is whole and do it again")
    return data


def _receive(
    bucket: Bucket,
    file: File,
    path: Path,
    each: Callable[[Callable[[int], bytes], Iterable[int]], Iterable[bytes]],
    passed: Callable[[int], None],
) -> None:
    """Fetches a file from where an earlier call stopped; ``each`` maps over the places where its parts begin."""
    name = _object_name(file.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    for resumed in (path.exists(), False):
        digest = hashlib.sha256()
        with path.open("r+b" if resumed else "wb") as target:
            if resumed:
                while data := target.read(PART):
                    digest.update(data)
                    passed(len(data))
            starts = range(target.tell(), file.size, PART)
            for data in each(lambda start: bucket.read(name, start, min(PART, file.size - start)), starts):
                target.write(data)
                digest.update(data)
                passed(len(data))
        if digest.hexdigest() == file.sha256:
            return
        path.unlink()
        if not resumed:
            raise DataError(
                f"{bucket.address(name)} ({file.path}) is not what was published: remove that object and publish again"
            )


def _is_there(folder: Path, files: Sequence[File]) -> bool:
    """Whether the folder holds these files and no others; whether there is one at all.

    Raises:
        UsageError: it holds something else.
    """
    if not folder.exists():
        return False
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    same = found == sorted(file.path for file in files)
    if not same or any(_source(folder / file.path, file.path, _silent).file != file for file in files):
        raise UsageError(f"{folder} is there and holds something else: remove it, or name another folder")
    return True


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; the lock is removed by the one that succeeds, and whoever waited finds its work done."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="storage")
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _in_order(threads: ThreadPoolExecutor, call: Callable[[Item], T], items: Iterable[Item]) -> Iterator[T]:
    """Results in order, AT_ONCE of them at most under way or waiting to be taken: memory stays bounded."""
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(threads.submit(call, item))
        if len(waiting) == AT_ONCE:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _silent(_: int) -> None:
    """Bytes that were counted before."""


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
