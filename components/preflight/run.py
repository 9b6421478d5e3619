"""Asks each service that a run will need, all at a time, and says what is missing with what to do about it."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.preflight.step import PoolNeed, PreflightParams
from components.step import Metrics, Paths
from components.trainjob import API
from retinalogos.errors import UsageError

# Where Kubernetes tells a pod its own namespace.
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Check = Callable[[], Iterator[str]]


def run(params: PreflightParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module; metrics are the number of checks of each kind.

    Raises:
        UsageError: something is missing; the message names all of it.
    """
    within = params.timeout_s
    checks: dict[str, list[Check]] = {
        "secrets": [partial(secret, name) for name in params.secrets],
        "storage": [partial(storage, address, within) for address in params.storage],
        "tracking": [partial(tracking, params.tracking, within)] if params.tracking else [],
        "models": [partial(model, name, within) for name in params.models],
        "pools": [partial(pools, params.pools, within)] if params.pools else [],
        "runtimes": [partial(runtime, name, within) for name in params.runtimes],
    }
    todo = [check for of_kind in checks.values() for check in of_kind]
    with ThreadPoolExecutor(max(1, len(todo))) as threads:
        problems = [problem for found in threads.map(lambda check: list(check()), todo) for problem in found]
    if problems:
        raise UsageError("; ".join(problems))
    return {name: len(of_kind) for name, of_kind in checks.items()}


def secret(name: str) -> Iterator[str]:
    """Whether an environment variable is set."""
    if not os.environ.get(name):
        yield f"the environment variable {name} is not set: make the Kubernetes Secret that infra/cluster.yaml names"


def storage(address: str, timeout_s: float) -> Iterator[str]:
    """Whether the bucket is there and may be used, by HEAD of the bucket."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    bucket = urlsplit(address).netloc
    # Nobody waits here for a store that is down.
    limits = Config(connect_timeout=timeout_s, read_timeout=timeout_s, retries={"total_max_attempts": 1})
    try:
        boto3.Session().client("s3", config=limits).head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        advice = {
            403: "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy",
            404: "make the bucket, or name another in infra/cluster.yaml",
        }.get(status, "see the store's log")
        yield f"storage {address}: the store answers {status} to HEAD of the bucket: {advice}"
    except (BotoCoreError, ValueError) as error:
        yield f"storage {address}: {_first_line(error)}: check AWS_ENDPOINT_URL and the keys"


def tracking(address: str, timeout_s: float) -> Iterator[str]:
    """Whether the MLflow server says that it is well."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=timeout_s) as answer:
            said = answer.read(100).decode(errors="replace").strip()
        problem = "" if said == "OK" else f"/health answers {said!r}: is it an MLflow server?"
    except (OSError, ValueError) as error:
        problem = f"{_first_line(error)}: start the server, or correct `tracking` in infra/cluster.yaml"
    if problem:
        yield f"tracking {address}: {problem}"


def model(name: str, timeout_s: float) -> Iterator[str]:
    """Whether a model may be read, by HEAD of its configuration; without a download."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        kept = [try_to_load_from_cache(name, file) for file in ("config.json", "model_index.json")]
        if not any(isinstance(path, str) for path in kept):
            yield f"model {name} is not in the cache (HF_HOME), and HF_HUB_OFFLINE is set: put it there, or unset it"
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json"), token=os.environ.get("HF_TOKEN"), timeout=timeout_s)
    except EntryNotFoundError:  # a model of another layout; it was let in
        return
    except GatedRepoError:
        yield f"model {name} is gated: accept its licence on the hub with the account of HF_TOKEN"
    except RepositoryNotFoundError:
        yield f"model {name} is not on the hub, or not for this HF_TOKEN: correct its name or the token"
    except Exception as error:  # whatever the HTTP library of the hub's client raises
        yield f"model {name}: the hub does not answer ({_first_line(error)}): open the way to it, or set HF_ENDPOINT"


def pools(needs: dict[str, PoolNeed], timeout_s: float) -> Iterator[str]:
    """Whether each pool has a node that fits, and the quota of the namespace has room.

    Affinity of nodes and what other pods use at the moment are not looked at: the scheduler waits for those.
    """
    from kubernetes import client

    try:
        _configure()
        api = client.CoreV1Api()
        space = NAMESPACE.read_text().strip() if NAMESPACE.exists() else "default"
        for name, need in needs.items():
            if need.selector and not need.from_zero:
                labels = ",".join(f"{key}={value}" for key, value in need.selector.items())
                yield from _nodes(name, need, api.list_node(label_selector=labels, _request_timeout=timeout_s).items)
        quotas = api.list_namespaced_resource_quota(space, _request_timeout=timeout_s).items
        for name, need in needs.items():
            for quota in quotas:
                yield from _room(name, need, space, quota)
    except client.ApiException as error:
        advice = (
            "let the service account list nodes and resourcequotas, or set pools_checked to false in infra/cluster.yaml"
            if error.status in (401, 403)
            else "see the log of the API server"
        )
        yield f"pools: Kubernetes answers {error.status} {error.reason}: {advice}"
    except Exception as error:  # no configuration, no connection: the client has no common base for them
        yield f"pools: Kubernetes does not answer ({_first_line(error)}): run in a pod, or with a kubeconfig"


def runtime(name: str, timeout_s: float) -> Iterator[str]:
    """Whether Kubeflow Trainer is there, and the runtime that TrainJobs are to be made from."""
    from kubernetes import client

    where = {"group": API["group"], "version": API["version"], "plural": "clustertrainingruntimes"}
    try:
        _configure()
        client.CustomObjectsApi().get_cluster_custom_object(**where, name=name, _request_timeout=timeout_s)
    except client.ApiException as error:
        advice = {
            403: "let the service account get clustertrainingruntimes",
            404: "install Kubeflow Trainer and apply infra/kubernetes, or correct launcher.trainjob.runtime",
        }.get(error.status, "see the log of the API server")
        yield f"runtime {name}: Kubernetes answers {error.status} {error.reason}: {advice}"
    except Exception as error:  # as pools
        yield f"runtime {name}: Kubernetes does not answer ({_first_line(error)}): run in a pod, or with a kubeconfig"


def _configure() -> None:
    """Tells the Kubernetes client where the cluster is."""
    from kubernetes import config

    if "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config()
    else:
        config.load_kube_config()


def _nodes(name: str, need: PoolNeed, nodes: list[Any]) -> Iterator[str]:
    """Nothing where a node fits, else why none does."""
    if not nodes:
        yield f"pool {name}: no node has the labels {need.selector}: add the pool, or choose another with --pool"
        return
    reasons = []
    for node in nodes:
        taints = [taint for taint in node.spec.taints or [] if taint.effect != "PreferNoSchedule"]
        strange = [taint for taint in taints if not any(one.covers(taint) for one in need.tolerations)]
        lacking = [
            f"{have.get(resource, 0)} {resource} of {wanted}"
            for have in [node.status.allocatable or {}]
            for resource, wanted in _asked(need).items()
            if _number(have.get(resource, 0)) < _number(wanted)
        ]
        if not (strange or lacking):
            return
        reasons.append(f"taint {strange[0].key}={strange[0].value}" if strange else lacking[0])
    yield (
        f"pool {name}: none of {len(nodes)} nodes fits ({reasons[0]}): correct its tolerations or size in "
        "infra/pools.yaml, or choose another with --pool"
    )


def _asked(need: PoolNeed) -> dict[str, str]:
    """Resources of one pod."""
    asked = {"cpu": need.cpu, "memory": need.memory}
    return asked | ({need.accelerator: str(need.count)} if need.accelerator else {})


def _room(name: str, need: PoolNeed, namespace: str, quota: Any) -> Iterator[str]:
    hard, used = quota.status.hard or {}, quota.status.used or {}
    wanted = {key: _number(amount) * need.pods for key, amount in _asked(need).items()}
    wanted |= {f"{kind}.{key}": amount for key, amount in wanted.items() for kind in ("requests", "limits")}
    for key, amount in {**wanted, "pods": Decimal(need.pods)}.items():
        left = _number(hard[key]) - _number(used.get(key, 0)) if key in hard else amount
        if left < amount:
            yield (
                f"pool {name}: quota {quota.metadata.name} of namespace {namespace} has {left} {key} left of the "
                f"{amount} that {need.pods} pods ask for: raise it, wait, or choose a smaller pool"
            )


def _number(quantity: Any) -> Decimal:
    from kubernetes.utils import parse_quantity

    found: Decimal = parse_quantity(quantity)
    return found


def _first_line(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
