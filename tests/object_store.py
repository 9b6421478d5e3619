"""A small object store over HTTP for tests: PUT, HEAD and GET of ranges, as S3 answers them; signatures pass unread."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Store:
    """What lies there and what was asked for.

    Attributes:
        objects: path (``/bucket/key``) → bytes.
        asked: method, path and bytes sent back, of each request.
        busy: how many of the next requests are answered with 503.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    busy: int = 0
    url: str = ""


@contextmanager
def object_store() -> Iterator[Store]:
    """Runs until the block ends; ``store.url`` is for AWS_ENDPOINT_URL."""
    store, lock = Store(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, data: bytes = b"", length: int | None = None) -> None:
            with lock:
                store.asked.append((self.command, self.path, len(data)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data)

        def is_busy(self) -> bool:
            with lock:
                busy, store.busy = store.busy > 0, max(0, store.busy - 1)
            if busy:
                self.answer(503)
            return busy

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.is_busy():
                store.objects[self.path] = data
                self.answer(200)

        def do_HEAD(self) -> None:
            found = store.objects.get(self.path)
            self.answer(404) if found is None else self.answer(200, length=len(found))

        def do_GET(self) -> None:
            if self.is_busy():
                return
            found = store.objects.get(self.path)
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if found is None or asked is None:
                self.answer(404)
            else:
                self.answer(206, found[int(asked[1]) : int(asked[2]) + 1])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
