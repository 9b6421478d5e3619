"""The manifests: rendered as `kubectl` renders them, valid, fitting each other, and with least rights."""

import copy
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_schemas import complaints
from manifest_policy import faults, pod_templates

from components import ROOT, image, trainjob

MANIFESTS = ROOT / "infra" / "kubernetes"
OVERLAYS = sorted(
    path.parent.relative_to(MANIFESTS).as_posix() for path in MANIFESTS.glob("overlays/*/kustomization.yaml")
)
TASKS = sorted(path.parent.relative_to(MANIFESTS).as_posix() for path in MANIFESTS.glob("tasks/*/kustomization.yaml"))
FILES = sorted(path for path in MANIFESTS.rglob("*.yaml") if path.name != "kustomization.yaml")


@cache
def rendered(folder: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(MANIFESTS / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "unknown field" in done.stderr and "labels" in done.stderr:
        pytest.skip("this kubectl is older than 1.25: its kustomize has no `labels`")
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(resources: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


def test_the_overlays_are_those_that_are_promised() -> None:
    assert OVERLAYS == ["overlays/dev", "overlays/kind", "overlays/prod"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(MANIFESTS).as_posix())
def test_every_file_holds_valid_resources(path: Path) -> None:
    resources = list(yaml.safe_load_all(path.read_text()))
    assert resources
    assert {resource["metadata"]["name"]: complaints(resource) for resource in resources if complaints(resource)} == {}


@pytest.mark.parametrize("folder", [*OVERLAYS, *TASKS])
def test_every_rendered_resource_is_valid(folder: str) -> None:
    found = {(one["kind"], one["metadata"]["name"]): complaints(one) for one in rendered(folder)}
    assert {place: said for place, said in found.items() if said} == {}
    assert len(found) == len(rendered(folder)), "two resources of one name"


@pytest.mark.parametrize("folder", OVERLAYS)
def test_an_overlay_keeps_the_policy(folder: str) -> None:
    assert faults(rendered(folder)) == []


@pytest.mark.parametrize("folder", TASKS)
def test_a_task_keeps_the_policy_beside_an_overlay(folder: str) -> None:
    assert faults([*rendered("overlays/prod"), *rendered(folder)]) == []


@pytest.mark.parametrize("folder", OVERLAYS)
def test_everything_lies_in_one_closed_namespace(folder: str) -> None:
    resources = rendered(folder)
    labels = of_kind(resources, "Namespace")["retinalogos"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    free = {"Namespace", "ClusterRole", "ClusterRoleBinding", "ClusterTrainingRuntime"}
    assert {one["metadata"].get("namespace") for one in resources if one["kind"] not in free} == {"retinalogos"}
    policies = of_kind(resources, "NetworkPolicy")
    assert policies["nothing"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies.values():
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                if "ipBlock" in peer:
                    assert "169.254.169.254/32" in peer["ipBlock"]["except"]
                    assert rule["ports"]


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_secret_is_named_and_comes_from_somewhere(folder: str) -> None:
    resources = rendered(folder)
    needed = set()
    for template in (template for one in resources for template in pod_templates(one)):
        for container in template["spec"]["containers"]:
            needed |= {
                one["valueFrom"]["secretKeyRef"]["name"]
                for one in container.get("env", [])
                if "secretKeyRef" in one.get("valueFrom", {})
            }
            needed |= {
                one["secretRef"]["name"] for one in container.get("envFrom", []) if not one["secretRef"].get("optional")
            }
    from_vault = of_kind(resources, "ExternalSecret").keys()
    by_hand = (ROOT / "docs" / "kubernetes.md").read_text()
    assert needed
    assert {name for name in needed - from_vault if f"create secret generic {name} " not in by_hand} == set()
    assert folder == "overlays/kind" or needed <= from_vault


def test_images_of_the_manifests_are_those_of_the_steps() -> None:
    published = image.named()
    used = {
        container["image"]
        for folder in [*OVERLAYS, *TASKS]
        for one in rendered(folder)
        for template in pod_templates(one)
        for container in template["spec"]["containers"]
    }
    assert {name for name in used if "retinalogos" in name} == set(published.values())


def test_the_training_runtime_has_what_the_launcher_changes() -> None:
    (runtime,) = of_kind(rendered("overlays/prod"), "ClusterTrainingRuntime").values()
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == trainjob.NODE
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == trainjob.NODE
    assert {"name": trainjob.SHARED_MEMORY, "mountPath": "/dev/shm"} in container["volumeMounts"]
    launcher = yaml.safe_load((ROOT / "params.yaml").read_text())["pretrain"]["launcher"]["trainjob"]
    assert runtime["metadata"]["name"] == launcher["runtime"]
    assert {"name": "work", "mountPath": launcher["shared"]} in container["volumeMounts"]


def test_the_tracking_server_takes_its_arguments_and_answers_to_its_names_alone() -> None:
    from mlflow.cli import cli
    from mlflow.server.security_utils import is_allowed_host_header

    (container,) = of_kind(rendered("overlays/prod"), "Deployment")["mlflow"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["mlflow", "server"]
    parsed = cli.commands["server"].make_context("server", list(container["args"])).params
    assert parsed["serve_artifacts"] is False
    hosts = parsed["allowed_hosts"].split(",")
    (service,) = of_kind(rendered("overlays/prod"), "Service").values()
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    for suffix in ("", ".retinalogos", ".retinalogos.svc", ".retinalogos.svc.cluster.local"):
        assert is_allowed_host_header(hosts, f"{name}{suffix}:{port}")
    assert not is_allowed_host_header(hosts, f"mlflow.example.org:{port}")
    for probe in ("readinessProbe", "startupProbe", "livenessProbe"):
        (header,) = container[probe]["httpGet"]["httpHeaders"]
        assert header["name"] == "Host"
        assert is_allowed_host_header(hosts, header["value"])


PLANTED: dict[str, Callable[[dict[str, dict[str, Any]]], object]] = {
    "may come to mean another": lambda pod: pod["container"].update(image="docker.io/library/postgres:latest"),
    "our own image not by digest": lambda pod: pod["container"].update(image="ghcr.io/x/retinalogos-cpu:1.0.0"),
    "runs as root": lambda pod: pod["spec"]["securityContext"].update(runAsUser=0),
    "no seccomp profile": lambda pod: pod["spec"]["securityContext"].pop("seccompProfile"),
    "token of the API server": lambda pod: pod["spec"].pop("automountServiceAccountToken"),
    "may gain rights": lambda pod: pod["container"]["securityContext"].pop("allowPrivilegeEscalation"),
    "writes to its image": lambda pod: pod["container"]["securityContext"].pop("readOnlyRootFilesystem"),
    "keeps capabilities": lambda pod: pod["container"]["securityContext"]["capabilities"].update(add=["NET_RAW"]),
    "no limit of memory": lambda pod: pod["container"]["resources"]["limits"].pop("memory"),
    "more cpu than its limit": lambda pod: pod["container"]["resources"]["requests"].update(cpu="900"),
    "is no quantity": lambda pod: pod["container"]["resources"]["limits"].update(memory="3 GB"),
    "which is no volume": lambda pod: pod["container"]["volumeMounts"][0].update(name="elsewhere"),
    "no service account": lambda pod: pod["spec"].update(serviceAccountName="someone"),
    "does not match its pods": lambda pod: pod["labels"].update({"app.kubernetes.io/name": "other"}),
    "looks at port": lambda pod: pod["container"]["readinessProbe"]["httpGet"].update(port="web"),
    "no config map": lambda pod: pod["resources"].remove(pod["places"]),
    "a secret stands in a manifest": lambda pod: pod["places"].update(kind="Secret"),
    "a rule for everything": lambda pod: pod["role"]["rules"][0].update(verbs=["*"]),
    "hands out more rights": lambda pod: pod["role"]["rules"][0].update(resources=["secrets"]),
    "selects no pod": lambda pod: pod["service"]["spec"]["selector"].update({"app.kubernetes.io/name": "other"}),
    "no pod has port": lambda pod: pod["service"]["spec"]["ports"][0].update(targetPort="web"),
    "is less than what always runs": lambda pod: pod["quota"]["spec"]["hard"].update({"limits.memory": "1Gi"}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    resources = copy.deepcopy(rendered("overlays/prod"))
    server = of_kind(resources, "Deployment")["mlflow"]["spec"]["template"]
    parts: dict[str, Any] = {
        "resources": resources,
        "labels": server["metadata"]["labels"],
        "spec": server["spec"],
        "container": server["spec"]["containers"][0],
        "service": of_kind(resources, "Service")["mlflow"],
        "quota": of_kind(resources, "ResourceQuota")["retinalogos"],
        "role": of_kind(resources, "Role")["launcher"],
        "places": of_kind(resources, "ConfigMap")["places"],
    }
    PLANTED[fault](parts)
    assert [said for said in faults(resources) if fault in said]


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", {"replicas": "two"}),
        ("Deployment", {"replica": 2}),
        ("ClusterTrainingRuntime", {"podGroupPolicies": {}}),
        ("ExternalSecret", {"refreshInterval": "hourly"}),
    ],
)
def test_the_schemas_refuse_what_is_wrong(kind: str, change: dict[str, Any]) -> None:
    resource = copy.deepcopy(next(iter(of_kind(rendered("overlays/prod"), kind).values())))
    assert complaints(resource) == []
    resource["spec"].update(change)
    assert complaints(resource)
