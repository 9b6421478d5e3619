"""A server on this machine that answers as the Kubernetes API does for TrainJobs, pods and logs.

The shapes are those of trainer.kubeflow.org/v1alpha1 (Trainer 2.3), of JobSet's labels and of the core API; a request
that the real server would refuse as strict (an unknown field of a TrainJob) or unauthorised is refused here too.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token"
JOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/research/trainjobs"
PODS = "/api/v1/namespaces/research/pods"
# Fields of a TrainJob, as far as they are asked for; the types are checked by the schema beside this file.
SPEC = {"runtimeRef", "trainer", "runtimePatches", "suspend", "managedBy", "activeDeadlineSeconds", "initializer"}


class Cluster:
    """What the server holds; a test says how a job goes on.

    Attributes:
        jobs: TrainJob by name.
        pods: the workers.
        logs: text of a worker's log by pod.
        went: called at each look at a job, with its name and how many looks there were.
        requests: method and path of each request.
    """

    def __init__(self, went: Callable[["Cluster", str, int], None]):
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, str] = {}
        self.went = went
        self.looks: dict[str, int] = {}
        self.requests: list[tuple[str, str]] = []
        self.failures: list[int] = []  # status codes of the next answers, whatever is asked

    def set_condition(self, name: str, kind: str, reason: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        condition["lastTransitionTime"] = "2026-11-22T04:00:00Z"
        self.jobs[name].setdefault("status", {}).setdefault("conditions", []).append(condition)

    def set_pods(self, job: str, phases: list[str], attempt: int = 0, **more: dict[str, Any]) -> None:
        """The workers of a job, in this phase each; earlier attempts stay, as in a cluster that starts them again."""
        self.pods = [pod for pod in self.pods if pod["attempt"] != attempt]
        for index, phase in enumerate(phases):
            name = f"{job}-node-0-{index}-{'abcdef'[attempt]}xyz1"
            labels = {
                "jobset.sigs.k8s.io/jobset-name": job,
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": str(index),
            }
            metadata = {"name": name, "labels": labels, "creationTimestamp": f"2026-11-22T04:0{attempt}:00Z"}
            pod = {"metadata": metadata, "status": {"phase": phase} | more.get(f"worker_{index}", {})}
            self.pods.append(pod | {"attempt": attempt})

    def worker(self, index: int) -> str:
        """Name of a worker's newest pod."""
        return [pod["metadata"]["name"] for pod in self.pods if f"-node-0-{index}-" in pod["metadata"]["name"]][-1]


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, code: int, content: dict[str, Any] | str) -> None:
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _begin(self) -> tuple[str, dict[str, list[str]]] | None:
            url = urlsplit(self.path)
            cluster.requests.append((self.command, url.path))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401, _status(401, "Unauthorized", "Unauthorized"))
                return None
            if cluster.failures:
                code = cluster.failures.pop(0)
                self._answer(code, _status(code, "ServiceUnavailable", "the server is currently unable"))
                return None
            return url.path, parse_qs(url.query)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            begun = self._begin()
            if begun is None:
                return
            path, query = begun
            name = body["metadata"]["name"]
            unknown = sorted(body["spec"].keys() - SPEC)
            if path != JOBS:
                self._answer(403, _status(403, "Forbidden", f"trainjobs is forbidden in {path.split('/')[5]}"))
            elif query.get("fieldValidation") != ["Strict"] or unknown:
                self._answer(400, _status(400, "BadRequest", f'strict decoding error: unknown field "spec.{unknown}"'))
            elif body["spec"]["runtimeRef"]["name"] != "retinalogos-torch":
                message = 'admission webhook denied the request: ClusterTrainingRuntime "other" not found'
                self._answer(403, _status(403, "Forbidden", message))
            elif name in cluster.jobs:
                self._answer(409, _status(409, "AlreadyExists", f'trainjobs "{name}" already exists'))
            else:
                cluster.jobs[name] = body
                self._answer(201, body)

        def do_GET(self) -> None:
            begun = self._begin()
            if begun is None:
                return
            path, query = begun
            if path == PODS:
                wanted = dict(pair.split("=") for pair in query["labelSelector"][0].split(","))
                found = [pod for pod in cluster.pods if wanted.items() <= pod["metadata"]["labels"].items()]
                self._answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})
            elif path.startswith(PODS):
                pod = path.split("/")[-2]
                if query["container"] != ["node"] or pod not in cluster.logs:
                    message = f'container "node" in pod "{pod}" is waiting to start: ContainerCreating'
                    self._answer(400, _status(400, "BadRequest", message))
                else:
                    lines = cluster.logs[pod].splitlines(True)
                    self._answer(200, "".join(lines[-int(query.get("tailLines", [len(lines)])[0]) :]))
            else:
                self._job(path.rpartition("/")[2])

        def _job(self, name: str) -> None:
            if name in cluster.jobs:
                cluster.looks[name] = cluster.looks.get(name, 0) + 1
                cluster.went(cluster, name, cluster.looks[name])
            if name in cluster.jobs:
                self._answer(200, cluster.jobs[name])
            else:
                self._answer(404, _status(404, "NotFound", f'trainjobs "{name}" not found'))

        def do_DELETE(self) -> None:
            begun = self._begin()
            if begun is None:
                return
            name = begun[0].rpartition("/")[2]
            if cluster.jobs.pop(name, None) is None:
                self._answer(404, _status(404, "NotFound", f'trainjobs "{name}" not found'))
            else:
                cluster.pods = [pod for pod in cluster.pods if not pod["metadata"]["name"].startswith(name)]
                self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    return Handler


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    """Serves until the block ends; the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
