"""Runs a pipeline in this environment, a subprocess a task, without a cluster or a container engine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler, local
from kfp.dsl.base_component import BaseComponent

from components import ROOT, tracking
from components.runner import content_hash
from pipelines.graph import METRICS, Stage
from pipelines.kubeflow import to_kubeflow


def tasks_by_stage(pipeline: BaseComponent, folder: Path) -> dict[str, str]:
    """Name of each stage's task in the compiled pipeline; the second use of a step is numbered by Kubeflow."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pipeline.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    specification = next(yaml.safe_load_all(path.read_text()))
    return {
        task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"]: name
        for name, task in specification["root"]["dag"]["tasks"].items()
    }


def run(
    pipeline: BaseComponent, graph: tuple[Stage, ...], values: Mapping[str, Any], folder: Path
) -> dict[str, dict[str, Path]]:
    """Runs the pipeline and returns where each stage's outputs lie, by stage and port.

    Args:
        pipeline: built from ``graph``.
        graph: its stages.
        values: parameters by stage.
        folder: where the outputs go; a new subfolder a run.

    Raises:
        RuntimeError: a task failed.
    """
    names = tasks_by_stage(pipeline, folder)
    parent = tracking.begin_workflow()
    if parent is not None:
        os.environ[tracking.PARENT_VARIABLE] = parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = set(folder.iterdir())
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder), raise_on_error=True)
    pipeline(**{stage.name: to_kubeflow(values[stage.name]) for stage in graph})
    (made,) = set(folder.iterdir()) - before
    return {
        stage.name: {port: made / names[stage.name] / port for port in (*stage.outputs, METRICS)} for stage in graph
    }


def hashes(places: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, str]]:
    """Content hash of every output, by stage and port."""
    return {stage: {port: content_hash(path) for port, path in ports.items()} for stage, ports in places.items()}
