"""Every shipped preset is valid and does what its name promises."""

import re

import pytest
import yaml

from components import ROOT
from pipelines.params import Choices, compose, presets, validate
from pipelines.workflows import WORKFLOWS, Workflow

SHIPPED = [(workflow, preset) for workflow in WORKFLOWS for preset in presets(workflow)]


@pytest.mark.parametrize(("workflow", "preset"), SHIPPED)
def test_preset_is_valid(workflow: str, preset: str) -> None:
    validate(compose(Choices(workflow=workflow, preset=preset)), workflow)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_workflow_has_a_preset_for_tests_and_one_to_begin_with(workflow: str) -> None:
    assert {"smoke", "laptop"} <= set(presets(workflow))


@pytest.mark.parametrize(("workflow", "preset"), SHIPPED)
def test_preset_sets_nothing_to_what_it_is_already(workflow: str, preset: str) -> None:
    def repeated(values, changes, path=()):
        for name, change in changes.items():
            if isinstance(change, dict) and isinstance(values.get(name), dict):
                yield from repeated(values[name], change, (*path, name))
            elif name in values and values[name] == change:
                yield ".".join((*path, name))

    base = yaml.safe_load((ROOT / WORKFLOWS[workflow].params).read_text())
    changes = yaml.safe_load((ROOT / WORKFLOWS[workflow].presets / f"{preset}.yaml").read_text()) or {}
    assert list(repeated(base, changes)) == []


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=lambda workflow: workflow.name)
def test_every_stage_has_its_section(workflow: Workflow) -> None:
    values = yaml.safe_load((ROOT / workflow.params).read_text())
    assert set(values) == {stage.name for stage in workflow.stages} | {"seed"}


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=lambda workflow: workflow.name)
def test_every_value_of_params_yaml_has_its_source(workflow: Workflow) -> None:
    """Each parameter of a section is explained on its line, or by the lines below it where it holds a group."""
    lines = (ROOT / workflow.params).read_text().splitlines()
    bare = [line for line in lines if re.match(r"  [a-z_]+: [^&*]", line) and "#" not in line]
    assert [line for line in bare if not line.startswith("  seed: ")] == []


def test_presets_are_what_they_are_named_for() -> None:
    smoke, laptop, paper = (compose(Choices(preset=preset)) for preset in ("smoke", "laptop", "paper"))
    assert smoke["pretrain"]["backbone"]["name"] == "next_dit"
    assert smoke["ingest"]["n"] < laptop["ingest"]["n"]
    assert laptop["ingest"]["size"] == 128
    assert paper["autoencode"]["name"] == "stabilityai/sdxl-vae"
    assert paper["encode"]["text_encoder"] == "google/gemma-2b"
    assert paper["pretrain"]["backbone"]["pretrained"] == "Alpha-VLLM/Lumina-Next-SFT-diffusers"
    assert (paper["encode"]["size"], paper["encode_curated"]["size"]) == (512, 1024)
