"""The graph stands in three places: pipelines/graph.py, dvc.yaml, and the compiled Kubeflow pipeline. They agree."""

import inspect
from importlib import import_module

import pytest
import yaml
from kfp import compiler

from components import ROOT
from components.runner import load_step, step_names
from pipelines import dvc
from pipelines.graph import MAIN_LINE, METRICS
from pipelines.kubeflow import to_kubeflow
from pipelines.main_line import full
from pipelines.params import Choices, compose

STAGES = {stage.name: stage for stage in MAIN_LINE}


@pytest.fixture(scope="module")
def specification(tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("ir") / "full.yaml"
    compiler.Compiler().compile(full(compose(Choices())), str(path))
    return next(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def tasks(specification: dict) -> dict[str, dict]:
    """Compiled tasks by stage."""
    by_stage = {}
    for name, task in specification["root"]["dag"]["tasks"].items():
        stage = task["inputs"]["parameters"]["stage"]["runtimeValue"]["constant"]
        by_stage[stage] = task | {"key": name}
    return by_stage


def test_every_step_is_a_stage_and_names_are_unique() -> None:
    assert {stage.step for stage in MAIN_LINE} == set(step_names())
    assert len(STAGES) == len(MAIN_LINE)


def test_no_two_outputs_share_a_place() -> None:
    paths = [stage.path(port) for stage in MAIN_LINE for port in (*stage.outputs, METRICS)]
    for path in paths:
        assert not [other for other in paths if other != path and f"{other}/".startswith(f"{path}/")]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("stage", MAIN_LINE, ids=lambda stage: stage.name)
def test_stage_and_step_have_the_same_ports(stage) -> None:
    step = load_step(stage.step)
    assert stage.inputs.keys() <= step.inputs.keys()
    assert {port for port, value in step.inputs.items() if not value.optional} <= stage.inputs.keys()
    assert stage.outputs.keys() == step.outputs.keys()
    earlier = MAIN_LINE[: MAIN_LINE.index(stage)]
    for source in stage.inputs.values():
        (maker,) = (other for other in earlier if other.name == source.stage)
        assert source.output in (*maker.outputs, METRICS)


@pytest.mark.parametrize("name", sorted({stage.step for stage in MAIN_LINE}))
def test_component_and_step_have_the_same_ports(name: str) -> None:
    step = load_step(name)
    component = getattr(import_module(f"components.{name}.component"), name)
    given, made = component.component_spec.inputs, component.component_spec.outputs
    assert set(given) == {*step.inputs, "stage", "params"}
    assert set(made) == {*step.outputs, METRICS}
    for port, value in step.inputs.items():
        assert given[port].type == f"system.{value.artifact}@0.0.1"
        assert given[port].optional == value.optional
    for port, value in step.outputs.items():
        assert made[port].type == f"system.{value.artifact}@0.0.1"
    source = inspect.getsource(component.python_func)
    assert f'run_component("{name}", stage, params, inputs, outputs)' in source


def test_dvc_yaml_is_up_to_date() -> None:
    assert (ROOT / "dvc.yaml").read_text() == dvc.render(), "run `python -m pipelines dvc`"


def test_dvc_yaml_has_the_edges_of_the_graph() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert stages.pop("compose")["always_changed"]
    assert set(stages) == set(STAGES)
    made_by = {
        path: name
        for name, entry in stages.items()
        for path in [*entry["outs"], *(next(iter(metric)) for metric in entry["metrics"])]
    }
    for name, entry in stages.items():
        edges = {made_by[path] for path in entry["deps"] if path in made_by}
        assert edges == {source.stage for source in STAGES[name].inputs.values()}
        assert f"components/{STAGES[name].step}" in entry["deps"]
        for path in entry["deps"]:
            assert path in made_by or (ROOT / path).exists(), path


def test_compiled_pipeline_has_the_edges_of_the_graph(tasks: dict) -> None:
    assert set(tasks) == set(STAGES)
    key = {name: task["key"] for name, task in tasks.items()}
    for name, task in tasks.items():
        artifacts = task["inputs"].get("artifacts", {})
        edges = {
            port: (value["taskOutputArtifact"]["producerTask"], value["taskOutputArtifact"]["outputArtifactKey"])
            for port, value in artifacts.items()
        }
        expected = {port: (key[source.stage], source.output) for port, source in STAGES[name].inputs.items()}
        assert edges == expected
        assert task["inputs"]["parameters"]["params"]["componentInputParameter"] == name
        assert task["taskInfo"]["name"] == name


def test_compiled_defaults_are_those_of_params_yaml(specification: dict) -> None:
    written = yaml.safe_load((ROOT / "params.yaml").read_text())
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == set(STAGES)
    for name, parameter in parameters.items():
        assert parameter["parameterType"] == "STRUCT"
        assert parameter["defaultValue"] == to_kubeflow(written[name])


def test_every_image_is_named_by_digest(specification: dict) -> None:
    executors = specification["deploymentSpec"]["executors"].values()
    assert executors
    for executor in executors:
        assert "@sha256:" in executor["container"]["image"]
