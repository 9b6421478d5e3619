"""A model server that behaves as a test tells it to, well or badly."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = {
    "quality": "good",
    "laterality": "left",
    "disc": "The optic disc appears healthy.",
    "cup": {"ratio": 0.4, "description": "The cup appears average in size."},
    "vessels": "The vessels appear regular.",
    "macula": "The macula appears flat.",
    "nerve_fibre_layer": "",
    "lesions": [{"name": "hard exudates", "place": "in the macula", "amount": "a few"}],
    "diagnosis": ["signs of moderate non-proliferative diabetic retinopathy", "no sign of glaucoma"],
}


@dataclass(frozen=True)
class Reaction:
    """How a request is met.

    Attributes:
        status: of the reply; 0: the connection is closed without one.
        text: what the model says; None: ``body`` is sent as it is.
        body: of a reply that is none of a model's.
        headers: besides the usual.
        stall: seconds before the reply.
    """

    status: int = 200
    text: str | None = json.dumps(ANSWER)
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    stall: float = 0.0


Behaviour = Callable[[dict[str, Any], int], Reaction]


@dataclass
class Seen:
    """What a server saw.

    Attributes:
        url: endpoint.
        bodies, headers, times: of the requests, in the order in which they came.
        sent: requests by Idempotency-Key.
        most: greatest number of requests at a time.
    """

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    most: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[Seen]:
    """A server on a free port; ``behaviour(body, n)`` says how the n-th sending (from 0) of a request is met."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = self.headers["Idempotency-Key"]
            with seen.lock:
                seen.now += 1
                seen.most = max(seen.most, seen.now)
                seen.bodies.append(body)
                seen.headers.append(dict(self.headers))
                seen.times.append(time.monotonic())
                earlier = seen.sent[key]
                seen.sent[key] += 1
            try:
                self._react(behaviour(body, earlier))
            finally:
                with seen.lock:
                    seen.now -= 1

        def _react(self, reaction: Reaction) -> None:
            time.sleep(reaction.stall)
            if reaction.status == 0:
                self.close_connection = True
                return
            said = {"choices": [{"message": {"role": "assistant", "content": reaction.text}}]}
            data = (reaction.body if reaction.text is None else json.dumps(said)).encode()
            try:
                self.send_response(reaction.status)
                for name, value in reaction.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 2048

    server = Server(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
