"""Runs a pipeline in this environment, a subprocess a task, without a cluster or a container engine."""

import os
from collections.abc import Mapping
from pathlib import Path

import yaml
from kfp import local
from kfp.dsl.base_component import BaseComponent

from components import ROOT, tracking
from components.runner import content_hash
from pipelines.graph import METRICS, Pipeline
from pipelines.kubeflow import write


def tasks_by_stage(built: BaseComponent, path: Path) -> dict[str, str]:
    """Name of each stage's task in the compiled pipeline; the second use of a step is numbered by Kubeflow."""
    specification = next(yaml.safe_load_all(write(built, path).read_text()))
    stages = {
        name: task.get("inputs", {}).get("parameters", {}).get("stage")
        for name, task in specification["root"]["dag"]["tasks"].items()
    }
    return {stage["runtimeValue"]["constant"]: name for name, stage in stages.items() if stage}


def run(
    built: BaseComponent, pipeline: Pipeline, folder: Path, given: Mapping[str, str] | None = None
) -> dict[str, dict[str, Path]]:
    """Runs a pipeline and returns where each stage's outputs lie, by stage and port.

    Args:
        built: from ``pipeline``.
        pipeline: its stages.
        folder: where the outputs go; a new subfolder a run.
        given: path of what stages take from elsewhere, by name.

    Raises:
        RuntimeError: a task failed.
    """
    names = tasks_by_stage(built, folder / "pipeline.yaml")
    parent = tracking.begin_workflow()
    if parent is not None:
        os.environ[tracking.PARENT_VARIABLE] = parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    before = set(folder.iterdir())
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder), raise_on_error=True)
    built(**(given or {}))
    (made,) = set(folder.iterdir()) - before
    return {
        stage.name: {port: made / names[stage.name] / port for port in (*stage.outputs, METRICS)}
        for stage in pipeline.stages
    }


def hashes(places: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, str]]:
    """Content hash of every output, by stage and port."""
    return {stage: {port: content_hash(path) for port, path in ports.items()} for stage, ports in places.items()}
