"""The contract of a step: typed parameters, named inputs and outputs, one function.

A step is a folder ``components/<name>/`` whose ``step.py`` defines ``STEP``. That file imports nothing heavy, so that
parameters are checked and pipelines compiled in no time; work that needs torch stands in ``run.py`` beside it, see
:func:`later`. A step knows nothing of the runner that calls it (DVC, Kubeflow Pipelines, a notebook, torchrun): it
reads the paths it is given, calls the library, writes the paths it is given, and returns its metrics.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Metrics = Mapping[str, float | int | str | bool | None]
Paths = Mapping[str, Path]


class Params(BaseModel):
    """Base of every step's parameters: frozen, unknown keys refused.

    Defaults stand in ``params.yaml`` alone, each with its source; a subclass declares names, types and
    ranges and no defaults. Integral floats become integers where an integer is declared, because Kubeflow
    Pipelines hands every number over as a float.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


@dataclass(frozen=True)
class Port:
    """An input or output of a step: what it is, and which artifact type Kubeflow shows it as."""

    description: str
    artifact: Literal["Dataset", "Model", "Artifact", "Metrics"] = "Artifact"
    optional: bool = False  # inputs only: the step runs without it and the path is absent from `inputs`


P = TypeVar("P", bound=Params)

# Every step has this output: the runner writes the metrics that `run` returned to it, as JSON.
METRICS = "metrics"


@dataclass(frozen=True)
class Step(Generic[P]):
    """A step of the workflow.

    ``run(params, inputs, outputs)`` gets existing input paths by port name (an optional input that was
    not given is absent) and output paths that do not exist yet: a temporary sibling that the runner
    renames when the step has succeeded. It returns a flat mapping of metrics; the runner adds the port
    ``metrics`` and writes them there.
    """

    name: str
    summary: str
    params: type[P]
    run: Callable[[P, Paths, Paths], Metrics]
    inputs: Mapping[str, Port] = field(default_factory=dict)
    outputs: Mapping[str, Port] = field(default_factory=dict)


AnyStep = Step[Any]


def later(module: str, name: str = "run") -> Callable[..., Metrics]:
    """The function ``name`` of a module that is imported only when the step runs."""

    def run(*given: Any) -> Metrics:
        metrics: Metrics = getattr(importlib.import_module(module), name)(*given)
        return metrics

    return run
