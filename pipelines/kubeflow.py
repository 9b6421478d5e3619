"""Kubeflow pipelines, built from a graph."""

import hashlib
import importlib
import inspect
import tempfile
from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import compiler, dsl
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.base_component import BaseComponent

from components.runner import load_step, to_kubeflow
from pipelines.graph import METRICS, Pipeline, Source, Stage
from pipelines.params import Choices, compose, validate
from pipelines.placement import Placement
from pipelines.pools import PREFLIGHT
from pipelines.preflight import asked
from pipelines.workers import handed_over
from pipelines.workflows import workflow_of
from retinalogos.errors import UsageError


def build(pipeline: Pipeline, choices: Choices, placement: Placement | None = None) -> BaseComponent:
    """A pipeline with a task a stage, the pre-flight step first, and a dictionary parameter for each of them.

    What stages take from elsewhere is given by its address, a parameter of the name of the output. A stage that
    captions, or searches a grid, is three tasks: the work is dealt to pods, done side by side, and joined.

    Args:
        pipeline: its stages.
        choices: preset and settings: the defaults of the parameters.
        placement: None to run it on this machine.

    Raises:
        UsageError: a preset, reader, folder, section or parameter does not exist, or a value does not fit.
    """
    cluster = placement.cluster if placement else None
    # The data of a pipeline that composes in its pods is theirs to see, and need not be here.
    elsewhere = {"cohort": None, "data": None} if pipeline.composed else {}
    asked_for = choices.model_copy(update={"workflow": pipeline.workflow, **elsewhere})
    values = compose(asked_for)
    pools: dict[str, Any] = {}
    if placement:
        placement = placement.with_workers(values)
        pools = placement.handed_over(values)
        values = compose(asked_for.over((*placement.cluster.settings(values), *handed_over(values, pools))))
    validate(values, pipeline.workflow)
    asked_of = placement.needs(pipeline.stages, values) if placement else {}
    parameters: dict[str, tuple[type, Any]] = dict.fromkeys(pipeline.given, (str, inspect.Parameter.empty))

    if pipeline.composed:
        from pipelines.minimal import composed, words

        parameters |= {name: (type(value), value) for name, value in words(choices, values["seed"]).items()}

        def body(given: dict[str, Any]) -> None:
            task = composed(given, cluster, asked_of, pools)
            if placement:
                placement(task, PREFLIGHT)
            # Which engine captions, such a run is told only when it starts.
            _tasks(pipeline, task.outputs, placement)
    else:
        sections = {PREFLIGHT: asked(pipeline.stages, values, cluster, asked_of)}
        sections |= {stage.name: values[stage.name] for stage in pipeline.stages}
        parameters |= {name: (dict, to_kubeflow(section)) for name, section in sections.items()}

        def body(given: dict[str, Any]) -> None:
            _tasks(pipeline, given, placement, {stage.name for stage in pipeline.stages if _by_server(stage, values)})

    return _pipeline(pipeline, body, parameters)


def _pipeline(
    pipeline: Pipeline, body: Callable[[dict[str, Any]], None], parameters: Mapping[str, tuple[type, Any]]
) -> BaseComponent:
    def function(*given: Any) -> None:
        body(dict(zip(parameters, given, strict=True)))

    function.__name__ = pipeline.name
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
            for name, (kind, default) in parameters.items()
        ]
    )
    # At every setting of a task kfp looks through all frames above it, and for each through all modules. In a notebook
    # or a test both are many, and that is most of the time; in a thread the frames are few.
    with ThreadPoolExecutor(1) as thread:
        built: BaseComponent = thread.submit(
            dsl.pipeline(name=pipeline.name, description=pipeline.description), function
        ).result()
    return built


def _component(step: str, name: str | None = None) -> Callable[..., dsl.PipelineTask]:
    component: Callable[..., dsl.PipelineTask] = getattr(
        importlib.import_module(f"components.{step}.component"), name or step
    )
    return component


@dataclass(frozen=True)
class _Dealt:
    """A step that pods do together: one deals the work, others do it side by side, one joins what they made.

    Args:
        pieces: what is dealt; ``deal_<pieces>`` is the component that gives each pod its parameters.
        given: inputs that it looks at.
        made: output of the pods that is joined; ``join_<joined>`` is the component.
        joined: see there.
    """

    pieces: str
    given: tuple[str, ...]
    made: str
    joined: str


_DEALT = {
    "caption": _Dealt("shards", ("cohort",), "captions", "captions"),
    "search_cubes": _Dealt("points", (), "search", "points"),
}


def _by_server(stage: Stage, values: Mapping[str, Any]) -> bool:
    """Whether a stage captions by asking a server, so that it needs no torch."""
    return stage.step == "caption" and values[stage.name]["engine"] == "server"


def _tasks(
    pipeline: Pipeline,
    params: Mapping[str, Any],
    placement: Placement | None,
    clients: Set[str] = frozenset(),
) -> None:
    """The tasks of the stages, given channels of their parameters and of the addresses of what is not made here.

    Args:
        pipeline: the stages.
        params: channel by stage.
        placement: None to run them on this machine.
        clients: stages that run in the image without torch.
    """

    def start(where: str, component: Callable[..., dsl.PipelineTask], title: str = "", **inputs: Any) -> Any:
        task = component(**inputs).set_display_name(title or where)
        if placement:
            placement(task, where, "client" if where in clients else None)
        return task

    def together(stage: Stage, how: _Dealt, inputs: Mapping[str, Any]) -> dsl.PipelineTask:
        section, name = params[stage.name], f"{stage.name}_{how.pieces}"
        given = {port: inputs[port] for port in how.given}
        dealt = start(stage.name, _component(stage.step, f"deal_{how.pieces}"), how.pieces, params=section, **given)
        dealt.after(first)
        with dsl.ParallelFor(dealt.output, name=name.replace("_", "-")) as share:
            some = start(stage.name, _component(stage.step), stage=name, params=share, **inputs)
        join = _component(stage.step, f"join_{how.joined}")
        parts = {"parts": dsl.Collected(some.outputs[how.made])}
        return start(stage.name, join, stage=stage.name, params=section, **inputs, **parts)

    first = start(PREFLIGHT, _component(PREFLIGHT), stage=PREFLIGHT, params=params[PREFLIGHT])
    first.set_caching_options(False)  # what it saw may have changed
    made: dict[Source, Any] = {}
    for name, source in pipeline.given.items():
        kind = _artifact(pipeline, source)
        made[source] = dsl.importer(artifact_uri=params[name], artifact_class=kind).after(first).output
    for stage in pipeline.stages:
        inputs = {port: made[source] for port, source in stage.inputs.items()}
        if stage.step in _DEALT:
            task = together(stage, _DEALT[stage.step], inputs)
        else:
            task = start(stage.name, _component(stage.step), stage=stage.name, params=params[stage.name], **inputs)
        if not inputs:
            task.after(first)
        made |= {Source(stage.name, port): task.outputs[port] for port in (*stage.outputs, METRICS)}


def _artifact(pipeline: Pipeline, source: Source) -> type[dsl.Artifact]:
    (step,) = (stage.step for stage in workflow_of(pipeline.workflow).stages if stage.name == source.stage)
    kind: type[dsl.Artifact] = getattr(dsl, load_step(step).outputs[source.output].artifact)
    return kind


def write(built: BaseComponent, path: Path) -> Path:
    """Compiles a pipeline to a file of IR YAML.

    Raises:
        UsageError: the file is not named as YAML.
    """
    return _compile(built, path)


def write_objects(built: BaseComponent, path: Path, namespace: str) -> Path:
    """Compiles a pipeline to a file of objects for Kubeflow's Kubernetes-native API.

    The version is called by the hash of what was compiled: Kubeflow changes none that is there.

    Raises:
        UsageError: the file is not named as YAML.
    """
    name = f"retinalogos-{built.name}"
    with tempfile.TemporaryDirectory() as scratch:
        digest = hashlib.sha256(write(built, Path(scratch) / "pipeline.yaml").read_bytes()).hexdigest()
    manifest = KubernetesManifestOptions(
        pipeline_name=name,
        pipeline_version_name=f"{name}-{digest[:10]}",
        namespace=namespace,
        include_pipeline_manifest=True,
    )
    return _compile(built, path, kubernetes_manifest_options=manifest, kubernetes_manifest_format=True)


def _compile(built: BaseComponent, path: Path, **options: Any) -> Path:
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path} should end in .yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(built, str(path), **options)
    return path
