"""Who starts the processes that train: this one, torchrun, or Kubeflow Trainer on a server that plays the cluster."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from kubernetes.config import kube_config
from kubernetes_schemas import complaints
from kubernetes_server import JOBS, PODS, TOKEN, Cluster, serving

from components import ROOT, launcher, trainjob, worker
from components.launcher import launched, write_call
from components.pretrain.step import STEP, PretrainParams
from components.step import Params, Paths, Step
from retinalogos.errors import DataError, UsageError

SECTION = yaml.safe_load((ROOT / "params.yaml").read_text())["pretrain"]
POOL = {
    "accelerator": "nvidia.com/gpu",
    "count": 8,
    "cpu": "180",
    "memory": "1700Gi",
    "shared_memory": "128Gi",
    "selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule", "value": None}],
    "affinity": [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]},
        {"key": "cloud.example/rack", "operator": "Exists", "weight": 10},
    ],
}


def params(shared: Path, kind: str = "trainjob", **settings: Any) -> PretrainParams:
    job = SECTION["launcher"]["trainjob"] | {"shared": str(shared), "pool": POOL, "start_timeout_s": 1} | settings
    asked = SECTION["launcher"] | {"kind": kind, "trainjob": job}
    return PretrainParams.model_validate(SECTION | {"checkpoints": str(shared / "checkpoints"), "launcher": asked})


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def ports(tmp_path: Path, shared: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Inputs, one of which the workers cannot see where it lies, and places for the outputs."""
    inputs = {"latents": tmp_path / "artifacts" / "latents", "autoencoder": shared / "autoencoder"}
    for path in inputs.values():
        path.mkdir(parents=True)
        (path / "content.txt").write_text(path.name)
    (tmp_path / "out").mkdir()
    return inputs, {port: tmp_path / "out" / f".partial-{port}" for port in STEP.outputs}


def train(cluster: Cluster, name: str) -> None:
    """What the workers do: read the call, write outputs and metrics where it says."""
    (path,) = cluster.jobs[name]["spec"]["trainer"]["args"]
    call = json.loads(Path(path).read_text())
    for port, place in call["outputs"].items():
        Path(place).mkdir()
        inputs = [Path(folder, "content.txt").read_text() for folder in call["inputs"].values()]
        Path(place, "made.txt").write_text(f"{port} of {' and '.join(inputs)}")
    Path(path).with_name("metrics.json").write_text('{"loss": 0.5}')


def ends_well(cluster: Cluster, name: str, look: int) -> None:
    if look == 1:
        cluster.set_pods(name, ["Pending", "Pending"])
    elif look == 2:
        cluster.set_pods(name, ["Running", "Running"])
        cluster.logs[cluster.worker(0)] = "2026-11-22T04:00:01.5Z step 1\n2026-11-22T04:00:01.25Z from another thread\n"
    elif look == 3:
        cluster.logs[cluster.worker(0)] += "2026-11-22T04:00:02Z step 2\n2026-11-22T04:00:02.1Z step 3\n"
    elif look == 4:
        train(cluster, name)
        cluster.set_pods(name, ["Succeeded", "Succeeded"])
        cluster.logs[cluster.worker(0)] += "2026-11-22T04:00:02.12Z the end\n"
        cluster.set_condition(name, "Complete", "JobsCompleted", "jobset completed successfully")


@pytest.fixture
def cluster(monkeypatch, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with two workers that train and end well; a test may put another way in ``went``."""
    monkeypatch.setattr(trainjob, "POLL_S", 0.01)
    monkeypatch.delenv("RANK", raising=False)
    held = Cluster(ends_well)
    with serving(held) as address:
        path = tmp_path / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": {"server": address}}],
                    "users": [{"name": "me", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "it", "context": {"cluster": "here", "user": "me", "namespace": "research"}}],
                    "current-context": "it",
                }
            )
        )
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield held


def run(asked: PretrainParams, ports: tuple[dict[str, Path], dict[str, Path]]) -> dict[str, Any]:
    return dict(launched("pretrain", STEP.run)(asked, *ports))


def test_here_means_here_and_so_it_does_inside_a_worker(shared: Path, monkeypatch) -> None:
    def work(*_: object) -> dict[str, int]:
        return {"process": os.getpid()}

    monkeypatch.delenv("RANK", raising=False)
    assert launched("pretrain", work)(params(shared, "local"), {}, {}) == {"process": os.getpid()}
    monkeypatch.setenv("RANK", "1")
    assert launched("pretrain", work)(params(shared, "trainjob"), {}, {}) == {"process": os.getpid()}


def test_a_worker_reads_the_very_parameters(shared: Path, ports) -> None:
    """Also those that stand in no manifest, such as the folder of checkpoints."""
    call = json.loads(write_call(shared, "pretrain", params(shared), *ports).read_text())
    assert PretrainParams.model_validate(call["params"]) == params(shared)
    assert call["inputs"] == {port: str(path) for port, path in ports[0].items()}


class Asked(Params):
    n: int


def count(asked: Asked, inputs: Paths, outputs: Paths) -> dict[str, Any]:
    """A step that any process can do."""
    if asked.n < 0:
        raise DataError(f"nothing can be counted to {asked.n}")
    outputs["made"].mkdir()
    (outputs["made"] / "count.txt").write_text(str(asked.n))
    return {"n": np.int64(asked.n), "half": np.float32(asked.n / 2)}


def call(folder: Path, rank: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> int:
    """Writes a call of that step and answers it as the worker of this rank."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv(launcher.COMMIT, "this")
    monkeypatch.setattr(worker, "load_step", lambda name: {"count": Step("count", "counts", Asked, count)}[name])
    asked = {
        "step": "count",
        "commit": "this",
        "params": {"n": 3},
        "inputs": {},
        "outputs": {"made": str(folder / "made")},
    }
    (folder / launcher.CALL).write_text(json.dumps(asked | changes))
    return worker.main(folder / launcher.CALL)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_worker_writes_for_all(shared: Path, monkeypatch, rank: int) -> None:
    (shared / "made").mkdir()
    (shared / "made" / "half.txt").write_text("of an earlier attempt")
    assert call(shared, rank, monkeypatch) == 0
    launcher.raise_error(shared)
    if rank == 0:
        assert [path.name for path in (shared / "made").iterdir()] == ["count.txt"]
        assert launcher.read_metrics(shared) == {"n": 3, "half": 1.5}
    else:
        assert [path.name for path in (shared / "made").iterdir()] == ["half.txt"]
        assert not (shared / launcher.METRICS).exists()


@pytest.mark.parametrize(
    ("changes", "error", "said", "code"),
    [
        ({"commit": "another"}, UsageError, "the workers' image holds the code this, the caller's another", 2),
        ({"params": {"n": -1}}, DataError, "nothing can be counted to -1", 1),
    ],
)
def test_what_a_worker_finds_wrong_reaches_the_caller(
    shared: Path, monkeypatch, changes: dict[str, Any], error: type[Exception], said: str, code: int
) -> None:
    assert call(shared, 1, monkeypatch, **changes) == code
    with pytest.raises(error, match=said):
        launcher.raise_error(shared)
    assert not (shared / launcher.METRICS).exists()


def test_a_train_job_trains_and_leaves_nothing_behind(cluster: Cluster, shared: Path, ports, capfd) -> None:
    assert run(params(shared), ports) == {"loss": 0.5}
    for port, path in ports[1].items():
        assert (path / "made.txt").read_text() == f"{port} of latents and autoencoder"
    assert cluster.jobs == {}
    assert sorted(path.name for path in shared.iterdir()) == ["autoencoder"]
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("TrainJob")]
    assert said == ["step 1", "step 2", "step 3", "the end"]


def test_the_job_has_the_pool_the_runtime_and_the_way_to_mlflow(
    cluster: Cluster, shared: Path, ports, monkeypatch
) -> None:
    for name, value in {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "MLFLOW_EXPERIMENT_ID": "3",
        "MLFLOW_TRACKING_PASSWORD": "hidden",
        "MLFLOW_TRACKING_TOKEN": "hidden",
        "AWS_ENDPOINT_URL_S3": "http://store:7070",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "HF_TOKEN": "hidden",
    }.items():
        monkeypatch.setenv(name, value)
    kept = []

    def went(cluster: Cluster, name: str, look: int) -> None:
        kept.append(cluster.jobs[name])
        ends_well(cluster, name, look)

    cluster.went = went
    run(params(shared, nodes=4), ports)
    job = {key: value for key, value in kept[0].items() if key != "status"}
    assert complaints(job) == []
    trainer = job["spec"]["trainer"]
    assert trainer["command"] == ["torchrun", "-m", "components.worker"]
    assert trainer["numNodes"] == 4
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "180", "memory": "1700Gi", "nvidia.com/gpu": "8"}
    environment = {one["name"]: one["value"] for one in trainer["env"]}
    assert environment.items() >= {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "MLFLOW_EXPERIMENT_ID": "3"}.items()
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://store:7070"
    assert "hidden" not in json.dumps(job)
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == POOL["selector"]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    affinity = pod["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    zone = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}
    assert term["matchExpressions"] == [zone]
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["weight"] == 10
    assert pod["volumes"][0]["emptyDir"]["sizeLimit"] == "128Gi"


def test_the_workers_get_the_run_that_the_step_has_begun(cluster: Cluster, shared: Path, ports, monkeypatch) -> None:
    monkeypatch.setenv("RETINALOGOS_TRACKING", "on")
    monkeypatch.setattr("mlflow.active_run", lambda: SimpleNamespace(info=SimpleNamespace(run_id="f00d")))
    kept = []

    def went(cluster: Cluster, name: str, look: int) -> None:
        kept.append(cluster.jobs[name]["spec"]["trainer"]["env"])
        ends_well(cluster, name, look)

    cluster.went = went
    run(params(shared), ports)
    assert {"name": "MLFLOW_RUN_ID", "value": "f00d"} in kept[0]


def test_the_role_allows_what_is_asked_and_no_more(cluster: Cluster, shared: Path, ports) -> None:
    run(params(shared), ports)
    verbs = {"POST": "create", "DELETE": "delete", "GET": "get"}
    used = set()
    for method, path in cluster.requests:
        if path == PODS:
            used.add(("pods", "list"))
        elif path.startswith(PODS):
            used.add(("pods/log", "get"))
        else:
            assert path.startswith(JOBS)
            used.add(("trainjobs", verbs[method]))
    roles = [
        one
        for one in yaml.safe_load_all((ROOT / "infra/kubernetes/base/roles.yaml").read_text())
        if one["kind"] == "Role"
    ]
    allowed = {(what, verb) for rule in roles[0]["rules"] for what in rule["resources"] for verb in rule["verbs"]}
    assert allowed - used == {("resourcequotas", "list")}, "the pre-flight step lists those"
    assert used <= allowed


def test_a_failed_job_says_what_its_workers_said_last(cluster: Cluster, shared: Path, ports) -> None:
    def went(cluster: Cluster, name: str, look: int) -> None:
        ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        status = {"name": "node", "state": ended, "image": "", "imageID": "", "ready": False, "restartCount": 0}
        cluster.set_pods(name, ["Succeeded", "Failed"], worker_1={"containerStatuses": [status]})
        lines = [f"2026-11-22T04:00:{second:02}Z line {second}\n" for second in range(40)]
        cluster.logs = {cluster.worker(0): "2026-11-22T04:00:01Z all is well\n", cluster.worker(1): "".join(lines)}
        cluster.set_condition(name, "Failed", "FailedJobs", "jobset failed due to one or more job failures")

    cluster.went = went
    with pytest.raises(RuntimeError, match="one or more job failures") as caught:
        run(params(shared), ports)
    said = str(caught.value).splitlines()
    assert said[1].endswith("OOMKilled, exit code 137")
    assert said[2:] == [f"  line {second}" for second in range(20, 40)]
    assert cluster.jobs == {}


@pytest.mark.parametrize("error", [UsageError, DataError])
def test_what_a_worker_says_of_parameters_or_data_ends_the_job(
    cluster: Cluster, shared: Path, ports, error: type[Exception]
) -> None:
    def went(cluster: Cluster, name: str, look: int) -> None:
        cluster.set_pods(name, ["Running", "Running"])
        (path,) = cluster.jobs[name]["spec"]["trainer"]["args"]
        said = {"error": error.__name__, "message": "batch_size 8 is no multiple of 16 processes"}
        Path(path).with_name("error.json").write_text(json.dumps(said))

    cluster.went = went
    with pytest.raises(error, match="no multiple of 16 processes"):
        run(params(shared), ports)
    assert cluster.jobs == {}


def test_workers_that_are_started_again_are_followed_and_their_earlier_pods_forgotten(
    cluster: Cluster, shared: Path, ports, capfd
) -> None:
    def went(cluster: Cluster, name: str, look: int) -> None:
        if look <= 2:
            cluster.set_pods(name, ["Running" if look == 1 else "Failed"] * 2)
            cluster.logs[cluster.worker(0)] = "2026-11-22T04:00:01Z step 1\n"
        elif look == 3:
            cluster.set_pods(name, ["Running", "Running"], attempt=1)
            cluster.logs[cluster.worker(0)] = "2026-11-22T04:01:00Z goes on from step 1\n"
        elif look == 4:
            train(cluster, name)
            cluster.set_condition(name, "Complete", "JobsCompleted", "")

    cluster.went = went
    run(params(shared), ports)
    said = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("TrainJob")]
    assert said == ["step 1", "goes on from step 1"]


def test_a_server_that_is_away_for_a_while_is_waited_for(cluster: Cluster, shared: Path, ports) -> None:
    def went(cluster: Cluster, name: str, look: int) -> None:
        if look in (1, 3):
            cluster.failures = [503, 500, 429]
        ends_well(cluster, name, look)

    cluster.went = went
    assert run(params(shared), ports) == {"loss": 0.5}


def test_a_server_that_stays_away_is_given_up(cluster: Cluster, shared: Path, ports, monkeypatch) -> None:
    monkeypatch.setattr(trainjob, "PATIENCE_S", 0.1)

    def went(cluster: Cluster, *_: object) -> None:
        cluster.failures = [503] * 1000

    cluster.went = went
    with pytest.raises(Exception, match="503"):
        run(params(shared), ports)


def test_a_second_try_goes_on_with_the_job_of_the_first(
    cluster: Cluster, shared: Path, ports, monkeypatch, capfd
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        # As a process that is killed: nothing is tidied up.
        killed.setattr(trainjob._Cluster, "wait", cut)
        killed.setattr(trainjob._Cluster, "delete", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            run(params(shared), ports)
    (name,) = cluster.jobs
    assert run(params(shared), ports) == {"loss": 0.5}
    assert cluster.requests.count(("POST", JOBS)) == 1
    assert f"{name} is there already" in capfd.readouterr().err


def test_a_job_that_failed_before_is_made_anew(cluster: Cluster, shared: Path, ports, monkeypatch) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(trainjob._Cluster, "delete", lambda *_: None)
        cluster.went = lambda cluster, name, look: cluster.set_condition(
            name, "Failed", "FailedJobs", "a machine is broken"
        )
        with pytest.raises(RuntimeError, match="a machine is broken"):
            run(params(shared), ports)
    (name,) = cluster.jobs
    (shared / name / launcher.ERROR).write_text('{"error": "DataError", "message": "of the first try"}')
    cluster.looks, cluster.went = {}, lambda cluster, name, look: ends_well(cluster, name, look - 1)
    assert run(params(shared), ports) == {"loss": 0.5}
    assert cluster.requests.count(("POST", JOBS)) == 2


def test_another_question_is_another_job(cluster: Cluster, shared: Path, ports) -> None:
    names = []

    def went(cluster: Cluster, name: str, look: int) -> None:
        names.append(name)
        ends_well(cluster, name, look)

    cluster.went = went
    for nodes in (2, 3):
        for path in ports[1].values():
            (path / "made.txt").unlink(missing_ok=True)
            path.rmdir() if path.exists() else None
        run(params(shared, nodes=nodes), ports)
    assert len(set(names)) == 2


def test_workers_that_find_no_machine_are_given_up_with_the_reason(cluster: Cluster, shared: Path, ports) -> None:
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    why["message"] = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    cluster.went = lambda cluster, name, look: cluster.set_pods(
        name, ["Running", "Pending"], worker_1={"conditions": [why]}
    )
    with pytest.raises(RuntimeError, match=r"not all workers have started after 1 s .*Insufficient nvidia.com/gpu"):
        run(params(shared), ports)
    assert cluster.jobs == {}


def test_a_job_that_someone_removes_is_missed(cluster: Cluster, shared: Path, ports) -> None:
    cluster.went = lambda cluster, name, look: cluster.jobs.pop(name) if look == 2 else None
    with pytest.raises(RuntimeError, match="was deleted by someone"):
        run(params(shared), ports)


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_a_run_that_is_stopped_takes_its_job_along(cluster: Cluster, shared: Path, ports) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cluster.went = lambda cluster, name, look: os.kill(os.getpid(), signal.SIGTERM) if look == 2 else None
    with pytest.raises(SystemExit):
        run(params(shared), ports)
    assert cluster.jobs == {}
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runtime": "other"}, 'ClusterTrainingRuntime "other" not found'),
        ({"namespace": "production"}, "trainjobs is forbidden in production"),
    ],
)
def test_what_the_cluster_refuses_is_said_in_its_words(
    cluster: Cluster, shared: Path, ports, settings: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(params(shared, **settings), ports)


def test_a_field_that_this_trainer_does_not_know_is_refused(cluster: Cluster, shared: Path, ports, monkeypatch) -> None:
    made = trainjob.manifest

    def renamed(*given: Any) -> dict[str, Any]:
        body = made(*given)
        body["spec"]["podTemplateOverrides"] = body["spec"].pop("runtimePatches")
        return body

    monkeypatch.setattr(trainjob, "manifest", renamed)
    with pytest.raises(UsageError, match=r"strict decoding error.*podTemplateOverrides"):
        run(params(shared), ports)


def test_without_a_cluster_or_a_volume_it_says_what_is_missing(
    shared: Path, ports, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="needs a cluster"):
        run(params(shared), ports)
    with pytest.raises(UsageError, match="mount the volume"):
        run(params(tmp_path / "elsewhere"), ports)
    with pytest.raises(UsageError, match=r"pretrain\.checkpoints"):
        run(params(shared).model_copy(update={"checkpoints": str(tmp_path)}), ports)
