"""Composition of the parameters: params.yaml, preset, cohort, settings; and the command that does it."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from components import ROOT
from pipelines import params
from pipelines.__main__ import main
from pipelines.params import Choices, compose, fingerprint, validate
from retinalogos.errors import UsageError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "odir"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "1_left.jpg").write_bytes(b"123")
    (folder / "labels.csv").write_text("id,age\n1,50\n")
    return folder


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy of its own for what the command writes."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    shutil.copytree(ROOT / "pipelines" / "presets", tmp_path / "pipelines" / "presets")
    for module in ("pipelines.params", "pipelines.__main__"):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    return tmp_path


def test_laptop_is_params_yaml_with_fewer_seeds() -> None:
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert plain["classify"].pop("runs") >= 5
    laptop = compose(Choices())
    assert laptop["classify"].pop("runs") == 2
    assert laptop == plain


def test_settings_go_over_the_preset_and_leave_the_rest() -> None:
    plain = compose(Choices())
    changed = compose(Choices(settings=("pretrain.steps=7", "ingest.n=11", "ingest.size=64")))
    assert (changed["pretrain"]["steps"], changed["ingest"]["n"]) == (7, 11)
    changed["pretrain"]["steps"] = plain["pretrain"]["steps"]
    changed["ingest"].update(n=plain["ingest"]["n"], size=plain["ingest"]["size"])
    assert changed == plain


def test_one_seed_for_all_sections_unless_one_is_set_apart() -> None:
    values = compose(Choices(settings=("seed=5", "finetune.seed=6")))
    assert values["seed"] == values["ingest"]["seed"] == values["pretrain"]["seed"] == 5
    assert values["finetune"]["seed"] == 6


def test_a_cohort_brings_reader_folder_and_fingerprint(data: Path) -> None:
    ingest = compose(Choices(cohort="odir5k", data=str(data)))["ingest"]
    assert (ingest["reader"], ingest["source"], ingest["n"]) == ("odir5k", str(data), None)
    assert ingest["source_fingerprint"] == fingerprint(data)


def test_a_workflow_has_readers_of_its_own(data: Path) -> None:
    ingest = compose(Choices(workflow="hyperspectral", cohort="cubes", data=str(data)))["ingest"]
    assert (ingest["reader"], ingest["source"], ingest["n"], ingest["wavelengths"]) == ("cubes", str(data), None, None)
    with pytest.raises(UsageError, match="no reader is called 'odir5k'; the readers are cubes, phantom"):
        compose(Choices(workflow="hyperspectral", cohort="odir5k", data=str(data)))
    with pytest.raises(UsageError, match="no reader is called 'cubes'"):
        compose(Choices(cohort="cubes", data=str(data)))


def test_fingerprint_sees_names_sizes_and_tables(data: Path, tmp_path: Path) -> None:
    seen = {fingerprint(data)}
    (data / "images" / "1_left.jpg").write_bytes(b"1234")
    seen.add(fingerprint(data))
    (data / "images" / "1_left.jpg").rename(data / "images" / "2_left.jpg")
    seen.add(fingerprint(data))
    (data / "labels.csv").write_text("id,age\n1,51\n")
    seen.add(fingerprint(data))
    (tmp_path / "mapping.yaml").write_text("age: Age\n")
    seen.add(fingerprint(data, str(tmp_path / "mapping.yaml")))
    assert len(seen) == 5
    moved = data.rename(tmp_path / "elsewhere")
    assert fingerprint(moved, str(tmp_path / "mapping.yaml")) in seen


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"preset": "huge"}, "no preset is called 'huge'; the presets are evening, gpu, laptop, paper, smoke"),
        ({"cohort": "nosuch", "data": "."}, "no reader is called 'nosuch'; the readers are "),
        ({"cohort": "odir5k"}, "needs the folder of its data"),
        ({"cohort": "odir5k", "data": "nowhere"}, "nowhere is not a folder"),
        ({"data": "."}, "without the name of its cohort"),
        ({"cohort": "phantom", "data": "."}, "reads no folder"),
        ({"cohort": "table", "data": "."}, "set ingest.mapping=FILE.yaml"),
        ({"settings": ("ingest.mapping=none.yaml",)}, "none.yaml is no file"),
        ({"settings": ("pretrain.steps",)}, "should be section.parameter=value"),
        ({"settings": ("seed=1", "seed.x=1")}, "seed is set to a value already"),
        ({"settings": ("ingest.n=[1",)}, "no YAML value"),
    ],
)
def test_wrong_choices_are_named(choices: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        compose(Choices(**choices))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pretrian.steps=1", "no stage is called 'pretrian'"),
        ("pretrain.stepz=1", "pretrain has no parameter 'stepz'"),
        ("ingest.size=wide", "ingest.size: "),
        ("ingest=3", "ingest should be a section"),
        ("encode.text_encoder=other", "encode.text_encoder is other, caption.text_encoder minilm"),
        ("caption.token_budget=32", "encode.token_budget is 64, caption.token_budget 32"),
        ("ingest.train=0.95", "the shares must be of train, validation, test and sum to 1, not train 0.95"),
    ],
)
def test_wrong_settings_end_with_2_and_one_line(copy: Path, capsys, setting: str, message: str) -> None:
    assert main(["params", "--set", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (copy / "run").exists(), "nothing is written"


def test_params_writes_choices_and_compose_repeats_them(copy: Path, data: Path) -> None:
    assert main(["params", "--cohort", "odir5k", "--data", str(data), "--set", "ingest.size=96"]) == 0
    first = yaml.safe_load((copy / "run" / "params.yaml").read_text())
    assert first["ingest"]["size"] == 96
    written = os.stat(copy / "run" / "params.yaml").st_mtime_ns
    assert main(["compose"]) == 0
    assert os.stat(copy / "run" / "params.yaml").st_mtime_ns == written, "unchanged, so not written again"
    (data / "images" / "3_left.jpg").write_bytes(b"x")
    assert main(["compose"]) == 0
    again = yaml.safe_load((copy / "run" / "params.yaml").read_text())
    assert again["ingest"].pop("source_fingerprint") != first["ingest"].pop("source_fingerprint")
    assert again == first


def test_several_settings_at_once_are_split_as_in_a_shell(copy: Path, capsys) -> None:
    several = "seed=3 'pretrain.prompts=[a left eye, a right eye]'"
    assert main(["params", "--set", "ingest.n=40", "--settings", several]) == 0
    written = yaml.safe_load((copy / "run" / "params.yaml").read_text())
    assert (written["ingest"]["n"], written["ingest"]["seed"]) == (40, 3)
    assert written["pretrain"]["prompts"] == ["a left eye", "a right eye"]
    capsys.readouterr()
    assert main(["params", "--settings", "seed='3"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_compose_without_choices_is_laptop(copy: Path) -> None:
    assert main(["compose"]) == 0
    assert yaml.safe_load((copy / "run" / "params.yaml").read_text()) == compose(Choices())


def test_a_missing_section_is_named() -> None:
    values = compose(Choices())
    del values["encode"]
    with pytest.raises(UsageError, match="section encode of the parameters lacks size"):
        validate(values)


@pytest.mark.parametrize(
    "arguments", [["compile"], ["compile", "--out", "x", "--huh"], ["fly"], [], ["run-local", "--preset"]]
)
def test_wrong_arguments_end_with_2_and_one_line(arguments: list[str], capsys) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_parameters_of_a_running_workflow_stay(copy: Path, capsys) -> None:
    held = copy / ".dvc" / "tmp" / "rwlock"
    held.parent.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    held.write_text(json.dumps({"read": {"data/cohort": [{"pid": ended.pid, "cmd": "dvc repro"}]}, "write": {}}))
    assert main(["params", "--preset", "smoke"]) == 0
    before = (copy / "run" / "params.yaml").read_text()
    held.write_text(json.dumps({"read": {}, "write": {"data/cohort": {"pid": os.getpid(), "cmd": "dvc repro"}}}))
    assert main(["params"]) == 2
    assert f"process {os.getpid()}" in capsys.readouterr().err
    assert (copy / "run" / "params.yaml").read_text() == before


@pytest.mark.parametrize("image", ["example.org/retinalogos:latest", "retinalogos:1.0", "retinalogos@sha256:12"])
def test_compile_refuses_an_image_by_tag(tmp_path: Path, monkeypatch, capsys, image: str) -> None:
    monkeypatch.setenv("RETINALOGOS_IMAGE", "")
    assert main(["compile", "--out", str(tmp_path / "ir"), "--image", image]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert image in line
    assert "not named by digest" in line
    assert not (tmp_path / "ir").exists()


def test_presets_are_found() -> None:
    assert params.presets() == ["evening", "gpu", "laptop", "paper", "smoke"]
