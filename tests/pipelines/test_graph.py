"""The graph of a workflow stands in three places: in pipelines/, in its dvc.yaml, and compiled. They agree."""

import inspect
from importlib import import_module

import pytest
import yaml
from kfp import local

from components import ROOT
from components.runner import load_step, step_names, to_kubeflow
from pipelines import dvc
from pipelines.graph import MAIN, METRICS, Source
from pipelines.kubeflow import build, write
from pipelines.main_line import STAGES as MAIN_LINE
from pipelines.params import Choices, compose
from pipelines.pools import PREFLIGHT
from pipelines.workflows import PIPELINES, WORKFLOWS, Workflow
from retinalogos.errors import UsageError

STAGES = {stage.name: stage for stage in MAIN_LINE}
ALL_STAGES = [stage for workflow in WORKFLOWS.values() for stage in workflow.stages]
# Steps that pods do together: the component that deals, and the output that is joined.
DEALT = {"caption": ("deal-shards", "captions"), "search_cubes": ("deal-points", "search")}
LOOP = "for-loop-1"


@pytest.fixture(scope="module", params=PIPELINES)
def pipeline(request):
    return PIPELINES[request.param]


@pytest.fixture(scope="module")
def specification(pipeline, tmp_path_factory) -> dict:
    path = write(build(pipeline, Choices()), tmp_path_factory.mktemp("ir") / f"{pipeline.name}.yaml")
    return next(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def tasks(specification: dict) -> dict[str, dict]:
    """Compiled tasks of the stages and of the pre-flight step, by stage."""
    by_stage = {}
    for name, task in specification["root"]["dag"]["tasks"].items():
        if stage := task.get("inputs", {}).get("parameters", {}).get("stage"):
            by_stage[stage["runtimeValue"]["constant"]] = task | {"key": name}
    return by_stage


@pytest.fixture(params=WORKFLOWS)
def workflow(request) -> Workflow:
    return WORKFLOWS[request.param]


def test_every_step_is_a_stage() -> None:
    assert {stage.step for stage in ALL_STAGES} | {PREFLIGHT} == set(step_names())


def test_names_are_unique_in_a_workflow(workflow: Workflow) -> None:
    assert len({stage.name for stage in workflow.stages}) == len(workflow.stages)
    assert {stage.group for stage in workflow.stages} == {"" if workflow.name == MAIN else workflow.name}


def test_what_pipelines_take_from_elsewhere() -> None:
    assert {name: set(pipeline.given) for name, pipeline in PIPELINES.items()} == {
        "full": set(),
        "minimal": set(),
        "caption": {"cohort"},
        "train": {"cohort", "captions"},
        "evaluate": {"cohort", "generator"},
        **{name: set() for name in WORKFLOWS if name != MAIN},
    }
    for pipeline in PIPELINES.values():  # an address a source, however many read it
        own = {stage.name for stage in pipeline.stages}
        sources = {source for stage in pipeline.stages for source in stage.inputs.values() if source.stage not in own}
        assert sources == set(pipeline.given.values())


def test_no_two_outputs_share_a_place() -> None:
    paths = [stage.path(port) for stage in ALL_STAGES for port in (*stage.outputs, METRICS)]
    for path in paths:
        assert not [other for other in paths if other != path and f"{other}/".startswith(f"{path}/")]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("stage", ALL_STAGES, ids=lambda stage: f"{stage.group}{stage.name}")
def test_stage_and_step_have_the_same_ports(stage) -> None:
    step = load_step(stage.step)
    assert stage.inputs.keys() <= step.inputs.keys()
    assert {port for port, value in step.inputs.items() if not value.optional} <= stage.inputs.keys()
    assert stage.outputs.keys() == step.outputs.keys()
    stages = WORKFLOWS[stage.group or MAIN].stages
    earlier = stages[: stages.index(stage)]
    for source in stage.inputs.values():
        (maker,) = (other for other in earlier if other.name == source.stage)
        assert source.output in (*maker.outputs, METRICS)


@pytest.mark.parametrize("name", sorted({stage.step for stage in ALL_STAGES}))
def test_component_and_step_have_the_same_ports(name: str) -> None:
    step = load_step(name)
    component = getattr(import_module(f"components.{name}.component"), name)
    given, made = component.component_spec.inputs, component.component_spec.outputs
    assert set(given) == {*step.inputs, "stage", "params"}
    assert {*step.outputs, METRICS} <= set(made)
    # What is made beside these is for Kubeflow's pages alone.
    shown = {made[port].type for port in set(made) - {*step.outputs, METRICS}}
    assert shown <= {f"system.{kind}@0.0.1" for kind in ("HTML", "Markdown", "ClassificationMetrics")}
    for port, value in step.inputs.items():
        assert given[port].type == f"system.{value.artifact}@0.0.1"
        assert given[port].optional == value.optional
    for port, value in step.outputs.items():
        assert made[port].type == f"system.{value.artifact}@0.0.1"
    source = inspect.getsource(component.python_func)
    assert f'run_component("{name}", stage, params, inputs, outputs)' in source


def test_dvc_yaml_is_up_to_date(workflow: Workflow) -> None:
    assert (ROOT / workflow.dvc).read_text() == dvc.render(workflow), "run `python -m pipelines dvc`"


def test_dvc_yaml_has_the_edges_of_the_graph(workflow: Workflow) -> None:
    by_name = {stage.name: stage for stage in workflow.stages}
    stages = yaml.safe_load((ROOT / workflow.dvc).read_text())["stages"]
    assert stages.pop("compose")["always_changed"]
    assert set(stages) == set(by_name)
    made_by = {path: name for name, entry in stages.items() for path in [*entry["outs"], *entry["metrics"]]}
    for name, entry in stages.items():
        assert ((ROOT / workflow.dvc).parent / entry.get("wdir", ".")).resolve() == ROOT
        edges = {made_by[path] for path in entry["deps"] if path in made_by}
        assert edges == {source.stage for source in by_name[name].inputs.values()}
        assert f"components/{by_name[name].step}" in entry["deps"]
        for path in entry["deps"]:
            assert path in made_by or (ROOT / path).exists(), path


def test_compiled_pipelines_have_the_edges_of_the_graph(pipeline, specification: dict, tasks: dict) -> None:
    assert set(tasks) == {PREFLIGHT, *(stage.name for stage in pipeline.stages)}
    by_name = {stage.name: stage for stage in WORKFLOWS[pipeline.workflow].stages}
    by_source = {
        Source(name, port): (task["key"], port)
        for name, task in tasks.items()
        if name != PREFLIGHT
        for port in (*by_name[name].outputs, METRICS)
    }
    root = specification["root"]["dag"]["tasks"]
    importers = {
        task["inputs"]["parameters"]["uri"]["componentInputParameter"]: (key, "artifact")
        for key, task in root.items()
        if "uri" in task.get("inputs", {}).get("parameters", {})
    }
    assert set(importers) == set(pipeline.given)
    by_source |= {source: importers[name] for name, source in pipeline.given.items()}
    for stage in pipeline.stages:
        task = tasks[stage.name]
        artifacts = task["inputs"].get("artifacts", {})
        edges = {
            port: (value["taskOutputArtifact"]["producerTask"], value["taskOutputArtifact"]["outputArtifactKey"])
            for port, value in artifacts.items()
        }
        expected = {port: by_source[source] for port, source in stage.inputs.items()}
        if stage.step in DEALT:
            expected["parts"] = (LOOP, f"pipelinechannel--{stage.step.replace('_', '-')}-{DEALT[stage.step][1]}")
        assert edges == expected
        params = task["inputs"]["parameters"]["params"]
        if pipeline.composed:
            assert params["taskOutputParameter"] == {
                "producerTask": "compose-parameters",
                "outputParameterKey": stage.name,
            }
        else:
            assert params["componentInputParameter"] == stage.name
        assert task["taskInfo"]["name"] == stage.name


def test_work_that_is_dealt_is_done_by_pods_side_by_side(pipeline, specification: dict) -> None:
    root = specification["root"]["dag"]["tasks"]
    together = [stage.step for stage in pipeline.stages if stage.step in DEALT]
    if not together:
        assert LOOP not in root
        return
    (step,) = together
    loop = root[LOOP]
    items = loop["inputs"]["parameters"][loop["parameterIterator"]["items"]["inputParameter"]]
    assert items["taskOutputParameter"]["producerTask"] == DEALT[step][0]
    inner = specification["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    ((pod, task),) = inner.items()
    assert pod == step.replace("_", "-")
    assert task["inputs"]["parameters"]["params"]["componentInputParameter"] == loop["parameterIterator"]["itemInput"]


def test_nothing_runs_before_the_pre_flight_step(pipeline, specification: dict, tasks: dict) -> None:
    root = specification["root"]["dag"]["tasks"]
    first = tasks[PREFLIGHT]["key"]
    assert not root[first]["cachingOptions"].get("enableCache")
    before = {"compose-parameters"} if pipeline.composed else set()
    assert set(root[first].get("dependentTasks", [])) == before

    def waits(name: str) -> bool:
        return name == first or any(waits(other) for other in root[name].get("dependentTasks", []))

    assert {name for name in root if not waits(name)} == before


def test_compiled_defaults_are_those_of_params_yaml(pipeline, specification: dict) -> None:
    written = compose(Choices(workflow=pipeline.workflow))
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    defaults = {name: parameter.get("defaultValue") for name, parameter in parameters.items()}
    kinds = {name: parameter["parameterType"] for name, parameter in parameters.items()}
    if pipeline.composed:
        assert defaults == {"preset": "laptop", "cohort": "", "data": "", "seed": 0, "settings": ""}
        assert kinds == dict.fromkeys(defaults, "STRING") | {"seed": "NUMBER_INTEGER"}
        return
    given = dict.fromkeys(pipeline.given, "STRING")
    assert kinds == given | dict.fromkeys([PREFLIGHT, *(stage.name for stage in pipeline.stages)], "STRUCT")
    for stage in pipeline.stages:
        assert defaults[stage.name] == to_kubeflow(written[stage.name])


def test_every_image_is_named_by_digest(specification: dict) -> None:
    containers = [e["container"] for e in specification["deploymentSpec"]["executors"].values() if "container" in e]
    assert containers
    for container in containers:
        assert "@sha256:" in container["image"]


def test_minimal_composes_what_full_has(tmp_path, monkeypatch) -> None:
    from pipelines.minimal import compose_parameters
    from pipelines.sections import sections

    assert list(compose_parameters.component_spec.outputs) == [PREFLIGHT, *STAGES]
    fixed = to_kubeflow({"cluster": None, "pools": {}, "workers": {}})
    monkeypatch.setattr(local.config.LocalExecutionConfig, "instance", None)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path), raise_on_error=True)
    given = {"preset": "smoke", "cohort": "", "data": "", "seed": 7, "settings": "ingest.n=40 'caption.pods=2'"}
    made = compose_parameters(**given, fixed=fixed).outputs
    wanted = to_kubeflow(compose(Choices(preset="smoke", settings=("seed=7", "ingest.n=40", "caption.pods=2"))))
    assert {name: made[name] for name in STAGES} == {name: wanted[name] for name in STAGES}
    assert made[PREFLIGHT]["tracking"] == "null"
    build(PIPELINES["minimal"], Choices(cohort="odir5k", data="/seen/by/pods/alone"))
    with pytest.raises(UsageError, match="caption has no parameter 'podz'"):
        sections("smoke", "", "", 7, "caption.podz=2", fixed)
