"""Objects of a bucket: their addresses, a client that is patient, and errors that say what to do."""

import contextlib
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from retinalogos.errors import DataError, UsageError

SCHEME = "s3://"
# Requests under way at once: an object store answers in some ten milliseconds and serves many.
AT_ONCE = 16
# Attempts with growing pauses, two minutes in all: a store that is busy or starts anew ends no training of days.
ATTEMPTS = 10
_LONGEST_PAUSE = 20.0  # seconds; botocore's own limit
_REMEDIES = {
    "NoSuchBucket": "create the bucket first, or correct the address",
    "NoSuchKey": "it was never there, or was removed",
    "": "is the server of AWS_ENDPOINT_URL up, has it room, and are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set?",
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"),
        "make room in the store, or have the quota raised, and do the same again: what was sent is kept",
    ),
}
# Of errors that the store calls its own (5xx): so answers one whose disk is full and that has no word for it.
_ITS_OWN_REMEDY = "see the log of the store: is its disk full? Then do the same again: what was sent is kept"
_OTHER_REMEDY = (
    "is the address right, and do AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL fit the store?"
)


class StoreError(DataError):
    """The store refused a request, or did not answer.

    Attributes:
        code: of S3, as ``NoSuchKey``; empty where there was no answer.
    """

    def __init__(self, message: str, code: str):
        super().__init__(message)
        self.code = code


class Bucket:
    """The objects under ``s3://bucket/prefix``.

    Who may read and where the store is, boto3 knows from its own settings (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …).

    Args:
        place: the address.

    Raises:
        UsageError: it is none.
    """

    def __init__(self, place: str):
        self._bucket, _, prefix = place.removeprefix(SCHEME).partition("/")
        if not place.startswith(SCHEME) or not self._bucket:
            raise UsageError(f"{place!r} is no address of a bucket: expected s3://bucket/prefix")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def address(self, name: str) -> str:
        """Where an object lies, for people."""
        return f"{SCHEME}{self._bucket}/{self._prefix}{name}"

    def ask(self, what: str, name: str, **arguments: Any) -> dict[str, Any]:
        """Calls the method ``what`` of boto3's client for an object.

        Raises:
            StoreError: the store refused, or did not answer in :data:`ATTEMPTS` attempts.
        """
        with self._explained(name):
            answer: dict[str, Any] = getattr(self._client, what)(
                Bucket=self._bucket, Key=self._prefix + name, **arguments
            )
        return answer

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response["Error"]["Code"])
            other = _ITS_OWN_REMEDY if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500 else _OTHER_REMEDY
            raise StoreError(f"{self.address(name)}: {error}; {_REMEDIES.get(code, other)}", code) from None
        except BotoCoreError as error:
            raise StoreError(f"{self.address(name)}: {error}; {_REMEDIES['']}", "") from None

    def size(self, name: str) -> int | None:
        """Bytes of an object; ``None`` where there is none.

        Raises:
            StoreError: the store did not answer.
        """
        try:
            return int(self.ask("head_object", name)["ContentLength"])
        except StoreError as error:
            # 403 is what one who may not list a bucket is told of objects that do not exist.
            if error.code in ("404", "NoSuchKey", "403"):
                return None
            raise

    def read(self, name: str, first: int, count: int) -> bytes:
        """Bytes ``first`` to ``first + count`` of an object; a connection that breaks is tried again.

        Raises:
            StoreError: the store refused, or did not send them in :data:`ATTEMPTS` attempts.
        """
        from botocore.exceptions import BotoCoreError

        for attempt in range(1, ATTEMPTS + 1):
            answer = self.ask("get_object", name, Range=f"bytes={first}-{first + count - 1}")
            try:
                data: bytes = answer["Body"].read()
            except BotoCoreError as error:
                if attempt == ATTEMPTS:
                    raise StoreError(f"{self.address(name)}: {error}; {_REMEDIES['']}", "") from None
                time.sleep(min(2.0**attempt / 10, _LONGEST_PAUSE))
            else:
                break
        return data

    def names(self, start: str) -> list[str]:
        """Names that begin with ``start``, in order.

        Raises:
            StoreError: the store refused, or did not answer.
        """
        found = self._pages("list_objects_v2", "Contents", start, Prefix=self._prefix + start)
        return [entry["Key"].removeprefix(self._prefix) for entry in found]

    def unfinished_uploads(self, name: str) -> list[str]:
        """Identifiers of the uploads of an object that were begun and not completed, the newest first."""
        key = self._prefix + name
        try:
            found = list(self._pages("list_multipart_uploads", "Uploads", name, Prefix=key))
        except StoreError as error:
            if error.code != "NoSuchUpload":  # what rclone's server says where there is none
                raise
            return []
        newest_first = sorted(found, key=lambda each: each["Initiated"], reverse=True)
        return [each["UploadId"] for each in newest_first if each["Key"] == key]

    def parts(self, name: str, upload: str) -> dict[int, tuple[int, str]]:
        """Size and ETag, by number, of the parts of an upload that the store has."""
        found = self._pages("list_parts", "Parts", name, Key=self._prefix + name, UploadId=upload)
        return {part["PartNumber"]: (part["Size"], part["ETag"].strip('"')) for part in found}

    def _pages(self, what: str, entries: str, name: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        with self._explained(name):
            for page in self._client.get_paginator(what).paginate(Bucket=self._bucket, **arguments):
                yield from page.get(entries, [])

    @property
    def _client(self) -> Any:
        return _client(ATTEMPTS, frozenset(item for item in os.environ.items() if item[0].startswith("AWS_")))


@lru_cache(maxsize=1)  # to make one takes half a second
def _client(attempts: int, _settings: frozenset[tuple[str, str]]) -> Any:
    """A client for the settings of the environment, which boto3 reads itself."""
    import boto3
    from botocore.config import Config

    retries: Any = {"mode": "standard", "max_attempts": attempts}
    config = Config(
        retries=retries,
        max_pool_connections=AT_ONCE,
        # boto3's own default sends checksums that stores other than Amazon's refuse or misread; what is sent here
        # carries the older Content-MD5, and what is read is held against the hash that it is called by.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # A session of its own: the one that boto3 shares keeps the credentials it was first asked with.
    return boto3.Session().client("s3", config=config)
