"""Compiled pipelines read back: their tasks, what decides on a task's outputs, and what changed between two of them."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from retinalogos.errors import UsageError

_CHANNEL = "pipelinechannel--"


@dataclass(frozen=True)
class Task:
    """A task of a compiled pipeline.

    Attributes:
        image: of its container; "" of an importer.
        code: what the container runs, or what the importer imports.
        environment: variables of the container.
        inputs: where each input comes from: a parameter of the pipeline, a constant, or an output ``task.name``.
        policy: retries.
        placement: what is said of its pod: pool, volumes, secrets.
        cached: whether Kubeflow may take an earlier run's outputs.
        fingerprint: hash of all that decides on its outputs: image, code, environment, parameters, and the fingerprints
            of the tasks whose outputs it reads. Where its pod stands is no part of it.
    """

    image: str
    code: Any
    environment: Mapping[str, str]
    inputs: Mapping[str, str]
    policy: Any
    placement: Mapping[str, Any]
    cached: bool
    fingerprint: str


class Compiled:
    """A compiled pipeline.

    Args:
        path: of its IR YAML.
        arguments: values of parameters that are not their defaults.

    Raises:
        UsageError: the file is no compiled pipeline.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any] | None = None):
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
            specification = documents[0]
            self._components = specification["components"]
            self._executors = specification["deploymentSpec"]["executors"]
            root = specification["root"]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError) as error:
            raise UsageError(f"{path} is no compiled pipeline ({type(error).__name__}: {error})") from None
        given = root.get("inputDefinitions", {}).get("parameters", {})
        self.parameters = {name: entry.get("defaultValue") for name, entry in given.items()} | dict(arguments or {})
        platforms = documents[1]["platforms"] if len(documents) > 1 else {}
        self._pods = platforms.get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
        self.tasks: dict[str, Task] = {}
        scope = {name: (f"parameter {name}", _hash(value)) for name, value in self.parameters.items()}
        self._read(root["dag"]["tasks"], "", scope)

    def _read(self, tasks: Mapping[str, Any], prefix: str, scope: Mapping[str, tuple[str, str]]) -> str:
        """Reads the tasks of a graph or loop; ``scope`` has word and hash of its inputs. Returns the hash of it all."""
        hashes: dict[str, str] = {}

        def source(entry: Mapping[str, Any]) -> tuple[str, str]:
            for outer in ("componentInputParameter", "componentInputArtifact"):
                if outer in entry:
                    return scope[entry[outer]]
            for what in ("Parameter", "Artifact"):
                if f"taskOutput{what}" in entry:
                    made = entry[f"taskOutput{what}"]
                    maker, output = made["producerTask"], made[f"output{what}Key"].removeprefix(_CHANNEL)
                    return f"{prefix}{maker}.{output}", _hash([hashes[maker], output])
            constant = json.dumps(entry["runtimeValue"]["constant"], sort_keys=True)
            return constant, _hash(constant)

        todo = dict(tasks)
        while todo:
            name = next(name for name, task in todo.items() if not {*task.get("dependentTasks", [])} & todo.keys())
            task = todo.pop(name)
            given = task.get("inputs", {})
            inputs = {
                port: source(entry)
                for kind in ("parameters", "artifacts")
                for port, entry in given.get(kind, {}).items()
            }
            component = self._components[task["componentRef"]["name"]]
            if "dag" in component:
                loop = task.get("parameterIterator")
                if loop:
                    word, hashed = inputs[loop["items"]["inputParameter"]]
                    inputs[loop["itemInput"]] = f"each of {word}", hashed
                hashes[name] = self._read(component["dag"]["tasks"], f"{prefix}{name}/", inputs)
            else:
                found = self._task(task, component["executorLabel"], inputs)
                self.tasks[prefix + name], hashes[name] = found, found.fingerprint
        return _hash(hashes)

    def _task(self, task: Mapping[str, Any], label: str, inputs: Mapping[str, tuple[str, str]]) -> Task:
        executor = self._executors[label]
        container = executor.get("container", {})
        image, environment = container.get("image", ""), {v["name"]: v["value"] for v in container.get("env", [])}
        code = executor.get("importer") or [container.get("command"), container.get("args")]
        hashed = {port: value for port, (_, value) in inputs.items()}
        return Task(
            image,
            code,
            environment,
            {port: word for port, (word, _) in inputs.items()},
            task.get("retryPolicy"),
            {**self._pods.get(label, {}), "resources": container.get("resources", {})},
            task.get("cachingOptions", {}).get("enableCache", False),
            _hash([image, code, environment, hashed]),
        )


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def changes(old: Compiled, new: Compiled) -> Iterator[str]:
    """What changed, a line each: parameters, steps, images, code, edges, placement; last, the steps that run again."""
    yield from _changed("parameter ", _flat(old.parameters), _flat(new.parameters))
    yield from (f"step {name}: removed" for name in old.tasks if name not in new.tasks)
    for name in new.tasks:
        if name not in old.tasks:
            yield f"step {name}: added"
            continue
        before, after = old.tasks[name], new.tasks[name]
        step = f"step {name}: "
        if before.image != after.image:
            yield f"{step}image {before.image} → {after.image}"
        if before.code != after.code:
            yield f"{step}the code of its component changed"
        yield from _changed(f"{step}input ", before.inputs, after.inputs)
        yield from _changed(f"{step}variable ", before.environment, after.environment)
        yield from _changed(f"{step}pod ", _flat(before.placement), _flat(after.placement))
        if before.policy != after.policy:
            yield f"{step}retries {before.policy} → {after.policy}"
        if before.cached != after.cached:
            yield f"{step}cached {before.cached} → {after.cached}"
    again = runs_again(old, new)
    yield f"runs again: {', '.join(again) or 'nothing'}"


def runs_again(old: Compiled, new: Compiled) -> list[str]:
    """The tasks of ``new`` whose outputs cannot be those of a run of ``old``."""
    known = {name: task.fingerprint for name, task in old.tasks.items()}
    return [name for name, task in new.tasks.items() if not task.cached or known.get(name) != task.fingerprint]


def _changed(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            yield f"{what}{name}: removed (was {old[name]})"
        elif name not in old:
            yield f"{what}{name}: added ({new[name]})"
        elif old[name] != new[name]:
            yield f"{what}{name}: {old[name]} → {new[name]}"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    return {
        name: leaf
        for key, inner in value.items()
        for name, leaf in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()
    }
