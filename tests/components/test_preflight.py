"""The step `preflight` against services that are well, and in each way that they may not be."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub.constants
import pytest
import yaml

from components import ROOT
from components.preflight.step import STEP
from components.runner import check_params
from retinalogos.errors import UsageError

NOTHING = {"secrets": [], "storage": [], "tracking": None, "models": [], "pools": {}, "runtimes": [], "timeout_s": 5}
POOL = {
    "pods": 1,
    "accelerator": "nvidia.com/gpu",
    "count": 2,
    "cpu": "7",
    "memory": "28Gi",
    "selector": {"gpu": "l4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "from_zero": False,
}


@contextmanager
def answers(replies: dict[str, tuple[int, Any, dict[str, str]]]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers ``METHOD /path`` as told, all else with 404; its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
            status, body, headers = replies.get(f"{self.command} {self.path.split('?')[0]}", (404, "", {}))
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            kind = "text/plain" if isinstance(body, str) else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(**changes: Any) -> Any:
    return STEP.run(check_params(STEP, NOTHING | changes), {}, {})


def test_what_is_not_asked_for_is_not_looked_at() -> None:
    assert run() == {"secrets": 0, "storage": 0, "tracking": 0, "models": 0, "pools": 0, "runtimes": 0}


def test_secrets(monkeypatch) -> None:
    monkeypatch.setenv("HELD", "x")
    monkeypatch.setenv("EMPTY", "")
    assert run(secrets=["HELD"])["secrets"] == 1
    with pytest.raises(UsageError) as error:
        run(secrets=["HELD", "EMPTY", "NONE_SUCH"])
    assert "EMPTY is not set" in str(error.value)
    assert "NONE_SUCH is not set: make the Kubernetes Secret" in str(error.value)
    assert "HELD" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "said"), [(200, None), (403, "403.*AWS_SECRET_ACCESS_KEY"), (404, "404.*make the bucket"), (500, "500")]
)
def test_storage(status, said, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with answers({"HEAD /bucket": (status, "", {})}) as (url, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        if said is None:
            assert run(storage=["s3://bucket/prefix"])["storage"] == 1
        else:
            with pytest.raises(UsageError, match=f"storage s3://bucket/prefix: .*{said}"):
                run(storage=["s3://bucket/prefix"])
    assert len(asked) == 1, "asked once: nobody waits for retries"
    with pytest.raises(UsageError, match=r"storage s3://bucket: .*check AWS_ENDPOINT_URL"):
        run(storage=["s3://bucket"])


def test_tracking() -> None:
    with answers({"GET /health": (200, "OK", {}), "GET /other/health": (200, "<html>", {})}) as (url, _):
        assert run(tracking=f"{url}/")["tracking"] == 1
        with pytest.raises(UsageError, match="'<html>': is it an MLflow server"):
            run(tracking=f"{url}/other")
        with pytest.raises(UsageError, match="404"):
            run(tracking=f"{url}/none")
    with pytest.raises(UsageError, match=f"tracking {url}: .*start the server"):
        run(tracking=url)


@pytest.fixture
def hub(monkeypatch):
    """Addresses are read from the environment when the library is imported."""

    def use(url: str) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", "hf_x")

    return use


def test_models(hub) -> None:
    found = {"ETag": '"1"', "X-Repo-Commit": "0" * 40}
    replies = {
        "HEAD /google/open/resolve/main/config.json": (200, "{}", found),
        "HEAD /google/pipeline/resolve/main/config.json": (404, "", {"X-Error-Code": "EntryNotFound"}),
        "HEAD /google/gated/resolve/main/config.json": (403, "", {"X-Error-Code": "GatedRepo"}),
        "HEAD /google/none/resolve/main/config.json": (401, "", {"X-Error-Code": "RepoNotFound"}),
    }
    with answers(replies) as (url, asked):
        hub(url)
        assert run(models=["google/open", "google/pipeline"])["models"] == 2
        with pytest.raises(UsageError) as error:
            run(models=["google/gated", "google/open", "google/none"])
    assert {line.rpartition(" Bearer ")[2] for line in asked if line.startswith("HEAD")} == {"hf_x"}
    assert "google/gated is gated: accept its licence" in str(error.value)
    assert "google/none is not on the hub" in str(error.value)
    assert "google/open" not in str(error.value)
    with pytest.raises(UsageError, match="model google/open: the hub does not answer"):
        run(models=["google/open"])


def test_models_of_a_place_without_the_hub(hub, monkeypatch, tmp_path) -> None:
    """HF_HUB_OFFLINE: what counts is the cache."""
    hub("http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="model google/open is not in the cache"):
        run(models=["google/open"])
    snapshot = tmp_path / "models--google--open" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (tmp_path / "models--google--open" / "refs").mkdir()
    (tmp_path / "models--google--open" / "refs" / "main").write_text("0" * 40)
    assert run(models=["google/open"])["models"] == 1


def node(taints: list[dict[str, str]] | None = None, **allocatable: str) -> dict[str, Any]:
    have = {"cpu": "7910m", "memory": "30000000Ki", "nvidia.com/gpu": "2"} | allocatable
    return {"metadata": {"name": "a"}, "spec": {"taints": taints or []}, "status": {"allocatable": have}}


def quota(hard: dict[str, str], used: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "team"}, "status": {"hard": hard, "used": used}}


@pytest.fixture
def ask_kubernetes(tmp_path, monkeypatch):
    """Runs the step with a cluster that gives these replies."""

    def ask(replies: Any, **changes: Any) -> Any:
        with answers(replies) as (url, asked):
            (tmp_path / "config").write_text(
                "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
                f"clusters: [{{name: x, cluster: {{server: '{url}'}}}}]\n"
                "contexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {token: t}}]\n"
            )
            monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
            return run(**changes), asked

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    return ask


@pytest.fixture
def kubernetes(ask_kubernetes):
    def look(nodes: Any, quotas: Any = (), status: int = 200, **changes: Any) -> Any:
        replies = {
            "GET /api/v1/nodes": (status, {"kind": "NodeList", "items": nodes}, {}),
            "GET /api/v1/namespaces/default/resourcequotas": (200, {"items": list(quotas)}, {}),
        }
        return ask_kubernetes(replies, pools={"l4": POOL | changes})

    return look


def test_a_pool_with_a_node_that_fits(kubernetes) -> None:
    tainted = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    metrics, asked = kubernetes([node(cpu="1"), node(tainted)])
    assert metrics["pools"] == 1
    assert "GET /api/v1/nodes?labelSelector=gpu%3Dl4 Bearer t" in asked
    _, asked = kubernetes([], from_zero=True)
    assert not [line for line in asked if "nodes" in line]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], "no node has the labels .*l4.*add the pool"),
        ([node(**{"nvidia.com/gpu": "1"})], "none of 1 nodes fits .1 nvidia.com/gpu of 2"),
        ([node(memory="8Gi"), node(memory="8Gi")], "none of 2 nodes fits .8Gi memory of 28Gi"),
        ([node([{"key": "spot", "value": "true", "effect": "NoSchedule"}])], "taint spot=true"),
    ],
)
def test_a_pool_without(kubernetes, nodes, said) -> None:
    with pytest.raises(UsageError, match=f"pool l4: .*{said}"):
        kubernetes(nodes)


def test_quota(kubernetes) -> None:
    hard = {"requests.nvidia.com/gpu": "8", "limits.memory": "100Gi", "pods": "50", "services": "2"}
    kubernetes([node()], [quota(hard, {"requests.nvidia.com/gpu": "2"})], pods=3)
    with pytest.raises(UsageError, match=r"quota team of namespace default has 2 requests.nvidia.com/gpu left of"):
        kubernetes([node()], [quota(hard, {"requests.nvidia.com/gpu": "6"})], pods=3)
    with pytest.raises(UsageError, match=r"limits\.memory"):
        kubernetes([node()], [quota(hard, {})], pods=4)


def test_a_cluster_that_says_no_or_nothing(kubernetes, monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"Kubernetes answers 403 .*let the service account list nodes"):
        kubernetes([], status=403)
    with pytest.raises(UsageError, match="pools: Kubernetes does not answer"):
        run(pools={"l4": POOL}, timeout_s=1)


def test_the_runtime_of_train_jobs(ask_kubernetes) -> None:
    path = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/retinalogos-torch"

    def ask(status: int) -> Any:
        reply = (status, {"metadata": {"name": "retinalogos-torch"}}, {})
        return ask_kubernetes({f"GET {path}": reply}, runtimes=["retinalogos-torch"])

    metrics, asked = ask(200)
    assert metrics["runtimes"] == 1
    assert asked == [f"GET {path} Bearer t"]
    for status, said in ((404, "install Kubeflow Trainer"), (403, "let the service account get")):
        with pytest.raises(UsageError, match=f"runtime retinalogos-torch: Kubernetes answers {status} .*{said}"):
            ask(status)
    (cluster_role,) = (
        one
        for one in yaml.safe_load_all((ROOT / "infra/kubernetes/base/roles.yaml").read_text())
        if one["kind"] == "ClusterRole"
    )
    allowed = {(what, verb) for rule in cluster_role["rules"] for what in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {("nodes", "list"), ("clustertrainingruntimes", "get")}


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(UsageError) as error:
        run(secrets=["NONE_SUCH"], tracking="http://127.0.0.1:9")
    assert "NONE_SUCH" in str(error.value)
    assert "http://127.0.0.1:9" in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"), [({"timeout_s": 0}, "timeout_s"), ({"pools": {"l4": POOL | {"gpus": 1}}}, "pools.l4.gpus")]
)
def test_wrong_parameters_are_refused_by_name(change, named) -> None:
    with pytest.raises(UsageError, match=named):
        check_params(STEP, NOTHING | change)
