"""What Kubernetes' schemas do not see: how the parts of manifests fit, and what this repository never allows."""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

Resource = dict[str, Any]
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
BY_DIGEST = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}")
BY_VERSION = re.compile(r"[\w./-]+:v?\d+(\.\d+)+[\w.-]*")


def pod_templates(resource: Resource) -> Iterator[Resource]:
    """The templates of pods in a resource: metadata and spec."""
    if resource["kind"] in ("Deployment", "StatefulSet", "Job"):
        yield resource["spec"]["template"]
    elif resource["kind"] == "ClusterTrainingRuntime":
        for job in resource["spec"]["template"]["spec"]["replicatedJobs"]:
            yield job["template"]["spec"]["template"]


def _size(quantity: str) -> Decimal:
    """A quantity as a number; what is none is found by :func:`_unparsed`."""
    try:
        return Decimal(parse_quantity(quantity))
    except ValueError:
        return Decimal(0)


def _label(resource: Resource) -> str:
    return f"{resource['kind']}/{resource['metadata']['name']}"


def faults(resources: list[Resource]) -> list[str]:
    """Everything that is wrong with a set of manifests."""
    found = []
    for resource in resources:
        if not NAME.fullmatch(resource["metadata"]["name"]) or len(resource["metadata"]["name"]) > 63:
            found.append(f"{_label(resource)}: no name that Kubernetes takes")
        found += [f"{_label(resource)}: {fault}" for fault in _unparsed(resource)]
        if resource["kind"] == "Secret":
            found.append(f"{_label(resource)}: a secret stands in a manifest")
        for template in pod_templates(resource):
            found += [f"{_label(resource)}: {fault}" for fault in _pod_faults(template["spec"])]
            found += [f"{_label(resource)}: {fault}" for fault in _missing(template["spec"], resource, resources)]
        found += [f"{_label(resource)}: {fault}" for fault in _unmatched(resource, resources)]
        found += [f"{_label(resource)}: {fault}" for fault in _too_many_rights(resource)]
    return found + _over_quota(resources)


def _containers(spec: Resource) -> list[Resource]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def _pod_faults(spec: Resource) -> Iterator[str]:
    """Against the profile "restricted", and a little stricter."""
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "runs as root, or may"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if spec.get("automountServiceAccountToken") is not False:
        yield "is handed a token of the API server"
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the host's namespaces"
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        yield "mounts the host's disk"
    for container in _containers(spec):
        name, own = container["name"], container.get("securityContext", {})
        if not (BY_DIGEST.fullmatch(container["image"]) or BY_VERSION.fullmatch(container["image"])):
            yield f"{name}: image {container['image']} may come to mean another"
        if "retinalogos" in container["image"] and "@" not in container["image"]:
            yield f"{name}: our own image not by digest"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{name}: may gain rights"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: writes to its image"
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            yield f"{name}: keeps capabilities"
        resources = container.get("resources", {})
        for what in ("cpu", "memory"):
            asked, limit = (resources.get(kind, {}).get(what) for kind in ("requests", "limits"))
            if asked is None or limit is None:
                yield f"{name}: no request or no limit of {what}"
            elif _size(asked) > _size(limit):
                yield f"{name}: asks for more {what} than its limit"
        if len({mount["mountPath"] for mount in container.get("volumeMounts", [])}) < len(
            container.get("volumeMounts", [])
        ):
            yield f"{name}: two volumes at one place"


def _missing(spec: Resource, owner: Resource, resources: list[Resource]) -> Iterator[str]:
    """What a pod names and is not there."""
    there = {(other["kind"], other["metadata"]["name"]) for other in resources}
    if ("ServiceAccount", spec.get("serviceAccountName")) not in there:
        yield f"no service account {spec.get('serviceAccountName')}"
    claims = {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
    volumes = {volume["name"] for volume in spec.get("volumes", [])} | claims
    for volume in spec.get("volumes", []):
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and ("PersistentVolumeClaim", claim) not in there:
            yield f"no claim {claim}"
    for container in _containers(spec):
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{container['name']}: mounts {mount['name']}, which is no volume"
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            for action in container.get(probe, {}).values():
                port = action.get("port") if isinstance(action, dict) else None
                if isinstance(port, str) and port not in ports:
                    yield f"{container['name']}: {probe} looks at port {port}, which it has not"
        for variable in container.get("env", []):
            key = variable.get("valueFrom", {}).get("configMapKeyRef")
            if key and ("ConfigMap", key["name"]) not in there:
                yield f"{container['name']}: no config map {key['name']}"


def _matches(selector: Resource, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] == "Exists" and expression["key"] not in labels:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def _unmatched(resource: Resource, resources: list[Resource]) -> Iterator[str]:
    """Selectors that select nothing, or not what they should."""
    labels = [
        template.get("metadata", {}).get("labels", {}) for other in resources for template in pod_templates(other)
    ]
    kind, spec = resource["kind"], resource.get("spec", {})
    if kind in ("Deployment", "StatefulSet") and not _matches(spec["selector"], spec["template"]["metadata"]["labels"]):
        yield "its selector does not match its pods"
    if kind == "StatefulSet" and ("Service", spec["serviceName"]) not in {
        (other["kind"], other["metadata"]["name"]) for other in resources
    }:
        yield f"no service {spec['serviceName']}"
    if kind == "Service":
        if not any(spec["selector"].items() <= one.items() for one in labels):
            yield "selects no pod"
        named = {
            port.get("name")
            for other in resources
            for template in pod_templates(other)
            if spec["selector"].items() <= template.get("metadata", {}).get("labels", {}).items()
            for container in template["spec"]["containers"]
            for port in container.get("ports", [])
        }
        yield from (
            f"no pod has port {port['targetPort']}" for port in spec["ports"] if port["targetPort"] not in named
        )
    if kind == "PodDisruptionBudget" and not any(_matches(spec["selector"], one) for one in labels):
        yield "selects no pod"
    if kind == "NetworkPolicy":
        peers = [
            peer["podSelector"]
            for rule in [*spec.get("ingress", []), *spec.get("egress", [])]
            for peer in [*rule.get("from", []), *rule.get("to", [])]
            if "podSelector" in peer and "namespaceSelector" not in peer
        ]
        for selector in [spec["podSelector"], *peers]:
            # Pods of Argo and of JobSet are made by others, and known by the presence of a label.
            if selector.get("matchLabels") and not any(_matches(selector, one) for one in labels):
                yield f"selects no pod: {selector}"


def _too_many_rights(resource: Resource) -> Iterator[str]:
    if resource["kind"] not in ("Role", "ClusterRole"):
        return
    for rule in resource["rules"]:
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        if "*" in words:
            yield "a rule for everything"
        if {"secrets", "pods/exec", "roles", "rolebindings", "serviceaccounts/token"} & set(rule["resources"]):
            yield f"a rule that hands out more rights: {rule['resources']}"
        if resource["kind"] == "ClusterRole" and set(rule["verbs"]) - {"get", "list", "watch"}:
            yield "changes something in the whole cluster"


def _unparsed(value: Any, key: str = "") -> Iterator[str]:
    """Quantities that are none, wherever they stand."""
    if isinstance(value, dict):
        for name, item in value.items():
            where = key in ("requests", "limits", "hard", "default", "defaultRequest") and not isinstance(item, dict)
            if where or name == "sizeLimit":
                try:
                    parse_quantity(item)
                except ValueError:
                    yield f"{name}: {item!r} is no quantity"
            yield from _unparsed(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _unparsed(item)


def _over_quota(resources: list[Resource]) -> list[str]:
    """Whether what always runs fits under the quota at all."""
    asked: dict[str, Decimal] = {}
    for resource in resources:
        for template in pod_templates(resource):
            if resource["kind"] == "ClusterTrainingRuntime":
                continue
            for container in template["spec"]["containers"]:
                for kind, sizes in container.get("resources", {}).items():
                    for what, size in sizes.items():
                        key = f"{kind}.{what}"
                        count = resource["spec"].get("replicas", 1)
                        asked[key] = asked.get(key, Decimal(0)) + count * _size(size)
    found = []
    for resource in resources:
        if resource["kind"] == "ResourceQuota":
            for key, size in resource["spec"]["hard"].items():
                if key in asked and asked[key] > _size(size):
                    found.append(f"{_label(resource)}: {key} {size} is less than what always runs, {asked[key]}")
    return found
