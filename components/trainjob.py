"""The work of a training step on several machines of a cluster, by Kubeflow Trainer.

A TrainJob is made from the ClusterTrainingRuntime of infra/kubernetes; its workers see what this process sees through
a volume that both mount. The fields are those of ``trainer.kubeflow.org/v1alpha1`` as Trainer 2.2 and 2.3 have them
(``runtimePatches``); the request is strict, so that a version which calls them otherwise refuses it at once.
"""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components import tracking
from components.launcher import (
    ERROR,
    METRICS,
    LauncherConfig,
    Pool,
    ending_with,
    raise_error,
    read_metrics,
    write_call,
)
from components.step import Metrics, Paths
from retinalogos.errors import UsageError

API = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
# Of the runtime's replicated job and of its container.
NODE = "node"
SHARED_MEMORY = "shared-memory"
MANAGER = "retinalogos.org/launcher"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

POLL_S = 5.0  # a training step takes minutes at least; a cluster answers thousands of such requests a second
PATIENCE_S = 900.0  # an API server that is being upgraded is away for minutes
DELETION_S = 120.0  # four times the grace that Kubernetes gives a pod to end
LAST_LINES = 20  # of a worker's log: a traceback of Python with its message

# Where things are, but nothing that is secret: the runtime takes credentials from a Secret.
_FORWARDED = re.compile(r"MLFLOW_\w+|AWS_ENDPOINT_URL\w*|AWS_(DEFAULT_)?REGION|HF_ENDPOINT|HF_HUB_OFFLINE")
_SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|USERNAME")


def run(step: str, params: Any, inputs: Paths, outputs: Paths) -> Metrics:
    """Runs a step as a TrainJob and returns its metrics.

    Raises:
        UsageError: the cluster, the runtime or the shared volume is not as the parameters say, or the step says so.
        DataError: the step found the data unfit.
        RuntimeError: the job failed; the message has the last lines of its workers.
    """
    launcher: LauncherConfig = params.launcher
    shared = Path(launcher.trainjob.shared)
    if not shared.is_dir():
        raise UsageError(
            f"{step}.launcher.trainjob.shared: {shared} is no folder here; mount the volume of the workers"
        )
    if not Path(params.checkpoints).resolve().is_relative_to(shared.resolve()):
        raise UsageError(f"{step}.checkpoints: {params.checkpoints} should lie in {shared}, which all workers see")
    cluster = _Cluster(launcher.trainjob.namespace)
    # The same when this process is tried again, which then goes on with the job that it finds.
    identity = repr((step, sorted(inputs.items()), params))
    name = f"{step}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
    folder = shared / name
    (folder / "outputs").mkdir(parents=True, exist_ok=True)
    seen = {port: _seen_by_all(path, shared, folder / "inputs" / port) for port, path in inputs.items()}
    written = {port: folder / "outputs" / f"{port}{path.suffix}" for port, path in outputs.items()}
    with ending_with(lambda: cluster.delete(name)):
        if not cluster.is_at_work(name):
            for left in (METRICS, ERROR):
                (folder / left).unlink(missing_ok=True)
            call = write_call(folder, step, params, seen, written)
            cluster.create(manifest(name, cluster.namespace, step, launcher, call))
        cluster.wait(name, folder, launcher.trainjob.start_timeout_s)
        metrics = read_metrics(folder)
        for port, path in written.items():
            shutil.move(path, outputs[port])
    cluster.delete(name)
    shutil.rmtree(folder)
    return metrics


def _seen_by_all(path: Path, shared: Path, copy: Path) -> Path:
    """The path itself if it lies on the shared volume, else that of a copy there."""
    if path.resolve().is_relative_to(shared.resolve()):
        return path
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f".partial-{copy.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(path, partial) if path.is_dir() else shutil.copy2(path, partial)
        partial.rename(copy)
    return copy


def manifest(name: str, namespace: str, step: str, launcher: LauncherConfig, call: Path) -> dict[str, Any]:
    """The TrainJob."""
    job = launcher.trainjob
    trainer: dict[str, Any] = {
        "command": ["torchrun", "-m", "components.worker"],
        "args": [str(call)],
        "env": [{"name": key, "value": value} for key, value in sorted(_environment().items())],
        "numNodes": job.nodes,
        "resourcesPerNode": _resources(job.pool),
    }
    if launcher.processes:
        trainer["numProcPerNode"] = launcher.processes
    pod: dict[str, Any] = {
        "nodeSelector": job.pool.selector,
        "tolerations": [
            {key: value for key, value in one.items() if value is not None} for one in job.pool.tolerations
        ],
    }
    if job.pool.affinity:
        pod["affinity"] = {"nodeAffinity": _affinity(job.pool)}
    if job.pool.shared_memory is not None:
        memory = {"medium": "Memory", "sizeLimit": job.pool.shared_memory}
        pod["volumes"] = [{"name": SHARED_MEMORY, "emptyDir": memory}]
    jobs = [{"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}]
    return {
        "apiVersion": f"{API['group']}/{API['version']}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "retinalogos", "app.kubernetes.io/component": step},
        },
        "spec": {
            "runtimeRef": {"name": job.runtime},
            "trainer": trainer,
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
            ],
        },
    }


def _resources(pool: Pool) -> dict[str, dict[str, str]]:
    """What a worker asks for, which is also all that it gets."""
    asked = {"cpu": pool.cpu, "memory": pool.memory}
    if pool.accelerator is not None:
        asked[pool.accelerator] = str(pool.count)
    return {"requests": asked, "limits": asked}


def _affinity(pool: Pool) -> dict[str, Any]:
    """Required conditions in one term, since of several a node need fulfil only one; preferred ones each alone."""
    bare = [(one.model_dump(exclude={"weight"}, exclude_defaults=True), one.weight) for one in pool.affinity]
    required = [one for one, weight in bare if weight is None]
    preferred = [(one, weight) for one, weight in bare if weight is not None]
    found: dict[str, Any] = {}
    if required:
        terms = {"nodeSelectorTerms": [{"matchExpressions": required}]}
        found["requiredDuringSchedulingIgnoredDuringExecution"] = terms
    if preferred:
        found["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": weight, "preference": {"matchExpressions": [one]}} for one, weight in preferred
        ]
    return found


def _environment() -> dict[str, str]:
    """Variables that the workers get, and the MLflow run that they belong to."""
    found = {key: value for key, value in os.environ.items() if _FORWARDED.fullmatch(key) and not _SECRET.search(key)}
    if tracking.is_on():
        import mlflow

        active = mlflow.active_run()
        if active is not None:
            found["MLFLOW_RUN_ID"] = active.info.run_id
    return found


class _Cluster:
    """The API server, as far as a TrainJob needs it."""

    def __init__(self, namespace: str | None):
        from kubernetes import client, config

        try:
            config.load_incluster_config()
            here = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        except config.ConfigException:
            try:
                config.load_kube_config()
            except config.ConfigException as error:
                raise UsageError(
                    f"launcher trainjob needs a cluster: not in a pod, and no kubeconfig ({error})"
                ) from None
            here = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
        self.namespace = namespace or here
        self._jobs, self._pods = client.CustomObjectsApi(), client.CoreV1Api()
        self._refused = client.ApiException
        self._told: dict[str, tuple[str, str]] = {}  # pod: time of the last line of its log that was printed

    def is_at_work(self, name: str) -> bool:
        """Whether a job of this name runs or is done; one that failed is removed."""
        found = self._get(name)
        if found is None:
            return False
        if _condition(found, "Failed") is not None:
            self.delete(name)
            return False
        print(f"TrainJob {self.namespace}/{name} is there already: goes on with it", file=sys.stderr)
        return True

    def create(self, body: Mapping[str, Any]) -> None:
        """Makes the job.

        Raises:
            UsageError: the cluster refuses it.
        """
        name = body["metadata"]["name"]
        try:
            self._jobs.create_namespaced_custom_object(
                **API, namespace=self.namespace, body=body, field_validation="Strict"
            )
        except self._refused as error:
            raise UsageError(f"the cluster refuses TrainJob {self.namespace}/{name}: {_reason(error)}") from None
        print(f"TrainJob {self.namespace}/{name} made", file=sys.stderr)

    def delete(self, name: str) -> None:
        """Removes the job and waits until it is gone, with its pods."""
        until = time.monotonic() + DELETION_S
        with contextlib.suppress(self._refused):
            self._jobs.delete_namespaced_custom_object(
                **API, namespace=self.namespace, name=name, propagation_policy="Foreground"
            )
            while self._get(name) is not None and time.monotonic() < until:
                time.sleep(POLL_S)

    def wait(self, name: str, folder: Path, start_timeout_s: float) -> None:
        """Returns when the job is done; prints the log of the first worker as it grows.

        Raises:
            RuntimeError: it failed, was deleted, or did not start.
            UsageError, DataError: a worker said so.
        """
        began = heard = time.monotonic()
        started = False
        while True:
            try:
                job, pods = self._get(name), self._workers(name)
                heard = time.monotonic()
            except Exception as error:
                if not self._passes(error) or time.monotonic() - heard > PATIENCE_S:
                    raise
                time.sleep(POLL_S)
                continue
            if job is None:
                raise RuntimeError(f"TrainJob {self.namespace}/{name} was deleted by someone")
            for pod in pods[:1]:
                self._print_log(pod)
            if _condition(job, "Complete") is not None:
                return
            raise_error(folder)
            failed = _condition(job, "Failed")
            if failed is not None:
                raise RuntimeError(
                    f"TrainJob {self.namespace}/{name} failed: {failed.get('message') or failed.get('reason')}\n"
                    + "\n".join(self._last_words(pods))
                )
            started = started or (bool(pods) and all(pod.status.phase != "Pending" for pod in pods))
            if not started and time.monotonic() - began > start_timeout_s and _condition(job, "Suspended") is None:
                raise RuntimeError(
                    f"TrainJob {self.namespace}/{name}: not all workers have started after {start_timeout_s:.0f} s "
                    f"({'; '.join(_waits_for(pod) for pod in pods) or 'there are no pods'})"
                )
            time.sleep(POLL_S)

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._jobs.get_namespaced_custom_object(**API, namespace=self.namespace, name=name)
        except self._refused as error:
            if error.status != 404:
                raise
            return None
        return found

    def _workers(self, name: str) -> list[Any]:
        """Pods of the job in the order of the workers; of one that was started again the newest."""
        selector = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name={NODE}"
        pods = self._pods.list_namespaced_pod(self.namespace, label_selector=selector).items
        pods.sort(key=lambda pod: pod.metadata.creation_timestamp)
        newest = {int(pod.metadata.labels.get("batch.kubernetes.io/job-completion-index", 0)): pod for pod in pods}
        return [newest[index] for index in sorted(newest)]

    def _passes(self, error: Exception) -> bool:
        """Whether an error is one of the way to the server, or of a server that is overloaded or away."""
        from urllib3.exceptions import HTTPError

        return isinstance(error, HTTPError) or (
            isinstance(error, self._refused) and (error.status == 429 or error.status >= 500)
        )

    def _print_log(self, pod: Any) -> None:
        name = pod.metadata.name
        for stamp, line in self._log(name, since_seconds=None if name not in self._told else int(4 * POLL_S) + 60):
            if stamp > self._told.get(name, ("", "")):
                self._told[name] = stamp
                print(line, file=sys.stderr)

    def _log(self, pod: str, **which: Any) -> Iterator[tuple[tuple[str, str], str]]:
        """Lines of a pod's log with their times; none where it cannot be had (yet)."""
        from urllib3.exceptions import HTTPError

        which = {key: value for key, value in which.items() if value is not None}
        text = ""
        with contextlib.suppress(self._refused, HTTPError):
            text = self._pods.read_namespaced_pod_log(pod, self.namespace, container=NODE, timestamps=True, **which)
        for line in text.splitlines():
            stamp, _, words = line.partition(" ")
            second, _, fraction = stamp.removesuffix("Z").partition(".")
            yield (second, fraction.ljust(9, "0")), words

    def _last_words(self, pods: list[Any]) -> Iterator[str]:
        """How each worker that did not end well ended, and the last lines of its log."""
        for pod in pods:
            if pod.status.phase == "Succeeded":
                continue
            yield f"{pod.metadata.name}: {_end(pod)}"
            yield from (f"  {line}" for _, line in self._log(pod.metadata.name, tail_lines=LAST_LINES))


def _condition(job: Mapping[str, Any], kind: str) -> dict[str, str] | None:
    """The condition of a job, if it holds."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == "True":
            found: dict[str, str] = condition
            return found
    return None


def _reason(error: Any) -> str:
    """What the server said, without the headers around it."""
    said = re.search(r'"message":\s*"((?:[^"\\]|\\.)*)"', error.body or "")
    return said[1].replace('\\"', '"') if said else f"{error.status} {error.reason}"


def _end(pod: Any) -> str:
    """How the container of a worker ended, or how its pod did."""
    for status in pod.status.container_statuses or []:
        if status.name == NODE and status.state is not None and status.state.terminated is not None:
            ended = status.state.terminated
            return f"{ended.reason or 'ended'}, exit code {ended.exit_code}"
    return f"{pod.status.reason or pod.status.phase}"


def _waits_for(pod: Any) -> str:
    """Why a pod has not started."""
    for status in pod.status.container_statuses or []:
        if status.state is not None and status.state.waiting is not None:
            return f"{pod.metadata.name}: {status.state.waiting.message or status.state.waiting.reason}"
    for condition in pod.status.conditions or []:
        if condition.status == "False" and condition.message:
            return f"{pod.metadata.name}: {condition.message}"
    return f"{pod.metadata.name}: {pod.status.phase}"
