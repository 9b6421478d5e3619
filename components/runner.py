"""Runs one step: what every step needs and none should do itself.

The command line, the Kubeflow wrappers and notebooks all come through :func:`run_step`, so that a step behaves the
same wherever it runs: parameters are checked, inputs must exist, outputs appear whole or not at all, every folder
carries a manifest, and MLflow hears of it. Under `torchrun` the first process does all that; the others only work.
"""

import ast
import contextlib
import hashlib
import importlib
import json
import logging
import math
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

import components
from components import ROOT, tracking
from components.step import METRICS, AnyStep, Params
from retinalogos import __version__, lineage
from retinalogos.errors import DataError, UsageError
from retinalogos.memory import keep_freed_memory

NULL = "null"


def _sources() -> dict[str, Path]:
    """The ``step.py`` of every step, by the name of the step."""
    files = sorted(file for folder in components.__path__ for file in Path(folder).glob("*/step.py"))
    return {file.parent.name: file for file in files}


def step_names() -> list[str]:
    """Names of all steps, sorted."""
    return sorted(_sources())


def load_step(name: str) -> AnyStep:
    """The step of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in step_names():
        raise UsageError(f"no step is called {name!r}; the steps are {', '.join(step_names())}")
    step: AnyStep = importlib.import_module(f"components.{name}.step").STEP
    return step


def summaries() -> dict[str, str]:
    """Name and summary of every step, read from the source: importing them all would load every heavy library."""
    found = {}
    for name, file in sorted(_sources().items()):
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        step = next(call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Step")
        found[name] = next(ast.literal_eval(word.value) for word in step.keywords if word.arg == "summary")
    return found


def content_hash(path: Path | str) -> str:
    """sha256 (hex) of a file's bytes, or of the relative names and bytes of all files in a folder.

    It does not depend on where the path lies, on file times or on the order of the directory.
    """
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name in sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()):
        digest.update(f"{name}\0{content_hash(path / name)}\n".encode())
    return digest.hexdigest()


def check_params(step: AnyStep, values: Mapping[str, Any], section: str | None = None) -> Params:
    """The step's parameters from plain values.

    Integral floats are read as integers wherever they stand, so that Kubeflow Pipelines, whose numbers are all
    floats, and YAML give the same parameters.

    Raises:
        UsageError: a parameter is missing, unknown or out of range; the message names it.
    """
    section = section or step.name
    try:
        checked: Params = step.params.model_validate(_integral(dict(values)))
    except ValidationError as error:
        details = error.errors()
        missing = [_name(detail) for detail in details if detail["type"] == "missing"]
        complaints = [_complaint(step, section, detail) for detail in details if detail["type"] != "missing"]
        if missing:
            complaints.append(f"section {section} of the parameters lacks {', '.join(missing)}")
        raise UsageError("; ".join(complaints)) from None
    return checked


def as_made(step: AnyStep, folder: Path, **changes: Any) -> Params:
    """The parameters with which a step made a folder, some of them changed.

    Args:
        step: that made it.
        folder: one of its outputs.
        changes: other values; those that stand in no manifest must be among them.

    Raises:
        DataError: nothing beside the folder says how it was made.
        UsageError: a value does not fit.
    """
    return check_params(step, lineage.how_made(folder)["params"] | changes, step.name)


def _integral(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integral(item) for item in value]
    return value


def _name(detail: ErrorDetails) -> str:
    return ".".join(str(part) for part in detail["loc"])


def _complaint(step: AnyStep, section: str, detail: ErrorDetails) -> str:
    name = _name(detail)
    if detail["type"] == "extra_forbidden":
        return f"{section} has no parameter {name!r}; it has {', '.join(step.params.model_fields) or 'none'}"
    where = f"{section}.{name}" if name else section
    given = f", got {detail['input']!r}" if name else ""
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}{given}"


def from_kubeflow(value: Any) -> Any:
    """Parameters as Kubeflow Pipelines carries them: it has no null, so the word ``null`` stands for it."""
    if isinstance(value, Mapping):
        return {key: from_kubeflow(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_kubeflow(item) for item in value]
    return None if value == NULL else value


def to_kubeflow(value: Any) -> Any:
    """Parameters as Kubeflow Pipelines can carry them; :func:`from_kubeflow` takes them back."""
    if isinstance(value, Mapping):
        return {key: to_kubeflow(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_kubeflow(item) for item in value]
    return NULL if value is None else value


def _check_ports(step: AnyStep, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
    for kind, given, known in (("input", inputs, step.inputs), ("output", outputs, {**step.outputs, METRICS: None})):
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise UsageError(
                f"step {step.name} has no {kind} {unknown[0]!r}; its {kind}s are {', '.join(known) or 'none'}"
            )
    for name, port in step.inputs.items():
        if name not in inputs:
            if not port.optional:
                raise UsageError(f"step {step.name} needs the input {name!r}: {port.description}")
        elif not inputs[name].exists():
            raise UsageError(f"input {name!r} of step {step.name} is not at {inputs[name]}; {_origin(inputs[name])}")
    for name, port in step.outputs.items():
        if name not in outputs:
            raise UsageError(f"step {step.name} needs a place for its output {name!r}: {port.description}")


def _origin(path: Path) -> str:
    """Which stage of dvc.yaml makes the path, as advice."""
    with contextlib.suppress(FileNotFoundError):
        for stage, entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
            if any((ROOT / out).resolve() == path.resolve() for out in entry.get("outs", []) if isinstance(out, str)):
                return f"stage {stage} makes it: run `dvc repro {stage}`"
    return "give the path of an existing file or folder"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(partial: Path, path: Path) -> None:
    """Puts a finished output in its place. An older one is moved aside first and dropped last."""
    old = path.with_name(f".old-{path.name}")
    _remove(old)
    if path.exists():
        path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    _remove(old)


@contextlib.contextmanager
def _whole_outputs(stage: str, outputs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Yields temporary siblings of the outputs and renames them when the block ends without an exception.

    After a failure the outputs are as they were, and what was written lies in ``run/failed/<stage>`` for a look.
    """
    # The name stays last, so that a file keeps its suffix.
    partial = {port: path.with_name(f".partial-{path.name}") for port, path in outputs.items()}
    failed = ROOT / "run" / "failed" / stage
    _remove(failed)
    for path in partial.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(path)
    try:
        yield partial
        missing = sorted(port for port, path in partial.items() if not path.exists())
        if missing:
            raise RuntimeError(f"{stage} ended without writing its output {missing[0]!r}")
    except BaseException as error:
        said = str(error)
        moved = {path: failed / f"{port}{path.suffix}" for port, path in partial.items() if path.exists()}
        for path, place in moved.items():
            failed.mkdir(parents=True, exist_ok=True)
            shutil.move(path, place)
            said = said.replace(str(path), str(place))
        if moved:
            how = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            print(f"{stage}: {how}; what it had written is in {failed}", file=sys.stderr)
        if isinstance(error, (DataError, UsageError)) and said != str(error):
            # It named a file of an output, which has moved.
            raise type(error)(said) from error
        raise
    for port, path in outputs.items():
        _replace(partial[port], path)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> float | int | str | bool | None:
    """A metric as JSON has it: numbers of numpy become Python's, and what is not finite becomes null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def run_step(
    step: AnyStep | str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Path | str],
    outputs: Mapping[str, Path | str],
    stage: str | None = None,
    scalars_tracked_by_caller: bool = False,
) -> dict[str, Any]:
    """Runs a step and returns its metrics.

    Args:
        step: the step or its name.
        params: plain values of all its parameters.
        inputs: a path for every input port; optional ones may be absent.
        outputs: a path for every output port; ``metrics`` defaults to ``metrics/<stage>.json``.
        stage: name in the graph, where it is not the step's own (a step may stand there twice).
        scalars_tracked_by_caller: parameters and metrics that are numbers are put into MLflow by someone else (Kubeflow
            Pipelines).

    Raises:
        UsageError: parameters or ports are wrong, or an input does not exist.
        DataError: the step found the data unfit.
    """
    step = load_step(step) if isinstance(step, str) else step
    stage = stage or step.name
    # In the order of the step: callers name ports in any order, and no result may depend on theirs.
    given = {port: Path(inputs[port]) for port in sorted(inputs, key=[*step.inputs, *inputs].index)}
    wanted = {METRICS: ROOT / "metrics" / f"{stage}.json", **{port: Path(path) for port, path in outputs.items()}}
    checked = check_params(step, params, stage)
    _check_ports(step, given, wanted)
    keep_freed_memory()

    if os.environ.get("RANK", "0") != "0":
        # Beside the first of the processes that `torchrun` started, which writes and tracks for all.
        with tempfile.TemporaryDirectory() as scratch:
            return dict(step.run(checked, given, {port: Path(scratch) / path.name for port, path in wanted.items()}))
    began = time.monotonic()
    hashes = {port: content_hash(path) for port, path in sorted(given.items())}
    values = checked.model_dump(mode="json")
    with tracking.step_run(stage, step.name, given, hashes) as run:
        if not scalars_tracked_by_caller:
            run.log_params(values)
        with _whole_outputs(stage, wanted) as partial:
            ports = {port: path for port, path in partial.items() if port != METRICS}
            metrics = {name: _plain(value) for name, value in step.run(checked, given, ports).items()}
            manifest = {
                "step": step.name,
                "version": __version__,
                "params": values,
                "inputs": hashes,
                "stages": lineage.before(given, hashes),
                "metrics": metrics,
            }
            for path in ports.values():
                if path.is_dir():
                    (path / lineage.MANIFEST).write_text(_json(manifest), encoding="utf-8")
            partial[METRICS].write_text(_json(metrics), encoding="utf-8")
        seconds = time.monotonic() - began
        # Linux counts kibibytes; children are the worker processes of the step.
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        # Words become tags, which Kubeflow does not set.
        untracked = {name: value for name, value in metrics.items() if isinstance(value, str)}
        run.log_outcome(
            untracked if scalars_tracked_by_caller else metrics,
            {"system/seconds": seconds, "system/peak_memory_mib": peak / 1024},
            [path for port, path in wanted.items() if port != METRICS],
            {port: wanted[port] for port, about in step.outputs.items() if about.artifact == "Artifact"},
        )
    print(f"{stage}: done in {seconds:.1f} s, peak memory {peak / 2**20:.2f} GiB", file=sys.stderr)
    return metrics


def run_component(
    step: AnyStep | str, stage: str, params: Mapping[str, Any], inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> None:
    """Runs a step on Kubeflow's artifacts: the body of every Kubeflow component.

    Args:
        step: the step or its name.
        stage: its name in the graph.
        params: the step's parameters; the word ``null`` for null, integers as floats.
        inputs: artifact by port; ``None`` where an optional one is not connected.
        outputs: artifact by port, ``metrics`` among them.
    """
    # Kubeflow's executor lets every library's notes through: great_expectations alone would write hundreds of lines.
    logging.getLogger().setLevel(logging.WARNING)
    metrics = run_step(
        step,
        from_kubeflow(params),
        {port: artifact.path for port, artifact in inputs.items() if artifact is not None},
        {port: artifact.path for port, artifact in outputs.items()},
        stage,
        scalars_tracked_by_caller=tracking.adopts_run(),
    )
    for port, artifact in outputs.items():
        if port == METRICS:
            artifact.metadata.update({name: value for name, value in metrics.items() if value is not None})
        else:
            artifact.metadata["content_sha256"] = content_hash(artifact.path)
