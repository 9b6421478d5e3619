"""Kubeflow pipelines, built from a graph."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.runner import NULL
from pipelines.graph import Stage


def to_kubeflow(value: Any) -> Any:
    """Parameters as Kubeflow Pipelines can carry them: the word ``null`` for null."""
    if isinstance(value, Mapping):
        return {key: to_kubeflow(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_kubeflow(item) for item in value]
    return NULL if value is None else value


def build(name: str, description: str, graph: Sequence[Stage], defaults: Mapping[str, Any]) -> BaseComponent:
    """A pipeline with a task a stage and a dictionary parameter a stage.

    Args:
        name: name of the pipeline.
        description: one line.
        graph: the stages, in an order in which they can run.
        defaults: parameters by stage.
    """

    def pipeline(*sections: Any) -> None:
        tasks: dict[str, Any] = {}
        for stage, params in zip(graph, sections, strict=True):
            component = getattr(importlib.import_module(f"components.{stage.step}.component"), stage.step)
            inputs = {port: tasks[source.stage].outputs[source.output] for port, source in stage.inputs.items()}
            tasks[stage.name] = component(stage=stage.name, params=params, **inputs).set_display_name(stage.name)

    pipeline.__name__ = name
    pipeline.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                stage.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=to_kubeflow(defaults[stage.name]),
                annotation=dict,
            )
            for stage in graph
        ]
    )
    built: BaseComponent = dsl.pipeline(name=name, description=description)(pipeline)
    return built
