"""An S3 server for tests, and a road to it on which accidents happen.

The server is the one that RETINALOGOS_TEST_S3_ENDPOINT names (with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), else
moto's, which keeps everything in memory and accepts any key.
"""

import functools
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

ENDPOINT = "RETINALOGOS_TEST_S3_ENDPOINT"
_BLOCK = 64 * 2**10


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """The environment that leads to the server."""
    if ENDPOINT in os.environ:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        yield {"AWS_ENDPOINT_URL": os.environ[ENDPOINT], **{name: os.environ[name] for name in names}}
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with _uploads_that_ended_have_their_name():
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
        finally:
            server.stop()


@contextmanager
def _uploads_that_ended_have_their_name() -> Iterator[None]:
    """moto 5.2 answers 500 to a part of an upload that has ended, where S3 says NoSuchUpload."""
    from moto.s3.exceptions import NoSuchUpload
    from moto.s3.models import S3Backend

    def named(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def answer(self: Any, bucket_name: str, multipart_id: str, *arguments: Any, **others: Any) -> Any:
            if multipart_id not in self.get_bucket(bucket_name).multiparts:
                raise NoSuchUpload(upload_id=multipart_id)
            return method(self, bucket_name, multipart_id, *arguments, **others)

        return answer

    methods = ("upload_part", "complete_multipart_upload")
    with patch.multiple(S3Backend, **{name: named(getattr(S3Backend, name)) for name in methods}):
        yield


@contextmanager
def s3_server_on_disk(program: str, disk: Path) -> Iterator[dict[str, str]]:
    """The environment that leads to a server of its own process, which keeps what it is sent on a disk.

    Args:
        program: ``moto``, or ``rclone`` (1.65 or newer), which checks signatures.
        disk: an empty folder.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    access, secret, objects = "access", "secretsecret", disk / "objects"
    objects.mkdir()
    listens = ["--addr", f"{host}:{port}", "--auth-key", f"{access},{secret}", "--temp-dir", str(disk)]
    command = {
        # moto keeps in memory what is smaller than a part, and everything else in files without a name.
        "moto": [sys.executable, "-m", "moto.server", "--host", host, "--port", str(port)],
        "rclone": ["rclone", "serve", "s3", str(objects), *listens],
    }[program]
    with (disk.parent / f"{program}.log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(disk)}, stdout=log, stderr=log)
    try:
        while True:
            assert process.poll() is None, Path(log.name).read_text()
            with socket.socket() as one:
                if one.connect_ex((host, port)) == 0:
                    break
            time.sleep(0.05)
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
        }
    finally:
        process.terminate()
        process.wait()


def new_bucket() -> tuple[Any, str]:
    """A client of the server that the environment names, and an empty bucket of a new name."""
    client = _client(os.environ["AWS_ENDPOINT_URL"])
    name = f"test-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return client, name


@functools.cache  # to make one takes half a second
def _client(endpoint: str) -> Any:
    config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    return boto3.Session().client("s3", config=config, endpoint_url=endpoint)


@dataclass
class Road:
    """What passes between client and server, and what befalls it.

    Attributes:
        url: for the client.
        asked: method and path of each request that the server answered.
        killed_after: bytes of bodies after which every connection breaks and none is taken, as when the server is
            killed; ``None``: never.
        down_for: seconds until the server is back.
        full_after: bytes of bodies after which there is no room for more; ``None``: never.
        rate: bytes of bodies a second on each connection; ``None``: as fast as they come.
        cut_answers: how many of the next answers with a body end in its middle.
    """

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    killed_after: int | None = None
    down_for: float = 1.0
    full_after: int | None = None
    rate: float | None = None
    cut_answers: int = 0
    passed: int = 0
    dead_until: float = 0.0

    def sent(self, method: str) -> list[str]:
        """Paths of the requests of a method that the server answered."""
        return [path for asked, path in self.asked if asked == method]


FULL = b"<Error><Code>InsufficientStorage</Code><Message>no space left</Message></Error>"


@contextmanager
def road_to(endpoint: str) -> Iterator[Road]:
    """Runs until the block ends. The Host header passes as it comes, since the signature covers it."""
    road, lock = Road(), threading.Lock()
    server_at = urlsplit(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_expect_100(self) -> bool:
            return True  # the answer comes when the body has been let through

        def pass_on(self) -> None:
            if time.monotonic() < road.dead_until:
                self.close_connection = True
                return
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            body = self.body()
            if body is None:
                return
            if self.command in ("PUT", "POST") and road.full_after is not None and road.passed > road.full_after:
                self.answer(507, {"Content-Type": "application/xml"}, FULL)
                return
            connection = http.client.HTTPConnection(str(server_at.hostname), server_at.port, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            try:
                with suppress(ConnectionError):  # a server that fails may answer before it has read all
                    connection.endheaders(body or None)
                answer = connection.getresponse()
                data = answer.read()
            except (ConnectionError, http.client.HTTPException):
                self.close_connection = True
                return
            finally:
                connection.close()
            with lock:
                road.asked.append((self.command, self.path))
            self.answer(answer.status, dict(answer.getheaders()), data)

        def body(self) -> bytes | None:
            """The request's body; ``None`` where the server dies over it."""
            body = b""
            length = int(self.headers.get("Content-Length") or 0)
            while len(body) < length:
                block = self.rfile.read(min(_BLOCK, length - len(body)))
                if not block:
                    self.close_connection = True
                    return None
                body += block
                if road.rate:
                    time.sleep(len(block) / road.rate)
                with lock:
                    road.passed += len(block)
                    if road.killed_after is not None and road.passed > road.killed_after:
                        road.killed_after, road.dead_until = None, time.monotonic() + road.down_for
                if time.monotonic() < road.dead_until:
                    self.close_connection = True
                    return None
            return body

        def answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            head = self.command == "HEAD"
            length = next((value for name, value in headers.items() if head and name.lower() == "content-length"), None)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            with lock:
                cut = road.cut_answers > 0 and len(data) > _BLOCK
                road.cut_answers -= cut
            if cut:
                self.close_connection = True
                data = data[: len(data) // 2]
            with suppress(ConnectionError):
                for start in range(0, len(data), _BLOCK):
                    self.wfile.write(data[start : start + _BLOCK])
                    if road.rate:
                        time.sleep(_BLOCK / road.rate)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    road.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield road
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
