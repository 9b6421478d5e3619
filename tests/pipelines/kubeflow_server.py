"""A server that answers as the API v2beta1 of Kubeflow Pipelines does, in the shapes of its own definition.

Paths, fields and states are those of kfp-server-api 2.17; no real server was recorded.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = "/apis/v2beta1"


def task(name: str, state: str | None, error: str = "") -> dict[str, Any]:
    """A task as ``run_details`` has it."""
    found: dict[str, Any] = {"run_id": "run-1", "task_id": f"id-{name}", "display_name": name}
    if state:
        found["state"] = state
    if error:
        found["error"] = {"code": 13, "message": error}
    return found


def looks(state: str, *tasks: dict[str, Any], error: str = "") -> dict[str, Any]:
    """A run as one look at it shows it."""
    run: dict[str, Any] = {"run_id": "run-1", "state": state, "run_details": {"task_details": list(tasks)}}
    return run | ({"error": {"code": 13, "message": error}} if error else {})


@dataclass
class Server:
    """What the server was told.

    Attributes:
        url: its address.
        runs: bodies of the runs that were started.
        tokens: of every request.
    """

    url: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def kubeflow_server(states: list[Any], experiment: bool = True, refuses: str = "") -> Iterator[Server]:
    """Runs until the block ends.

    Args:
        states: what each look at the run gives, the last for all that follow; a number is a status without a body.
        experiment: whether there is one by that name, or it must be made.
        refuses: what a new run is answered, with status 400.
    """
    server, left = Server(), list(states)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            server.tokens.append(self.headers.get("Authorization"))
            path = self.path.split("?")[0].removeprefix(API)
            found = {"experiment_id": "exp-1", "display_name": "retinalogos", "namespace": ""}
            if path == "/healthz":
                self._answer(200, {"multi_user": False})
            elif path == "/experiments":
                self._answer(200, {"experiments": [found], "total_size": 1} if experiment else {})
            elif path == "/runs/run-1":
                look = left.pop(0) if len(left) > 1 else left[0]
                self._answer(look, {"message": "busy"}) if isinstance(look, int) else self._answer(200, look)
            else:
                self._answer(404, {"error": "Not found", "code": 5, "message": f"no {path}", "details": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.split("?")[0].removeprefix(API)
            if path == "/experiments":
                self._answer(200, {"experiment_id": "exp-1", **body})
            elif refuses:
                self._answer(400, {"error": refuses, "code": 3, "message": refuses, "details": []})
            else:
                server.runs.append(body)
                self._answer(200, {"run_id": "run-1", "state": "PENDING", **body})

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
