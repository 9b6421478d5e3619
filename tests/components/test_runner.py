"""The runner: parameters, ports, whole outputs, manifest, content hashes; and the command line on top of it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import components
from components import runner
from components.__main__ import main
from components.runner import check_params, content_hash, run_component, run_step
from components.step import Params, Port, Step
from retinalogos.errors import DataError, UsageError


class DoubleParams(Params):
    """Parameters of the step under test."""

    factor: int = Field(ge=1)
    note: str | None
    fail: bool


def _double(params: DoubleParams, inputs, outputs):
    numbers = [int(line) for line in (inputs["numbers"] / "numbers.txt").read_text().split()]
    outputs["doubled"].mkdir()
    (outputs["doubled"] / "numbers.txt").write_text("\n".join(str(params.factor * number) for number in numbers))
    if params.fail:
        raise DataError(f"{outputs['doubled'] / 'numbers.txt'}, row 3: unfit")
    outputs["page"].write_text("<p>done</p>")
    return {"count": len(numbers), "ratio": float("nan"), "kind": params.note or "plain"}


DOUBLE = Step(
    name="double",
    summary="doubles numbers",
    params=DoubleParams,
    run=_double,
    inputs={"numbers": Port("numbers", "Dataset"), "hint": Port("a hint", optional=True)},
    outputs={"doubled": Port("doubled numbers", "Dataset"), "page": Port("a page")},
)
GOOD = {"factor": 2, "note": None, "fail": False}


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "numbers.txt").write_text("1\n2\n3\n")
    return tmp_path / "numbers"


def places(folder: Path) -> dict[str, Path]:
    return {"doubled": folder / "doubled", "page": folder / "page.html", "metrics": folder / "m" / "metrics.json"}


def test_a_run_writes_outputs_manifest_and_metrics(numbers: Path, tmp_path: Path, capsys) -> None:
    metrics = run_step(DOUBLE, GOOD, {"numbers": numbers}, places(tmp_path))
    assert metrics == {"count": 3, "ratio": None, "kind": "plain"}
    assert (tmp_path / "doubled" / "numbers.txt").read_text() == "2\n4\n6"
    assert json.loads((tmp_path / "m" / "metrics.json").read_text()) == metrics
    manifest = json.loads((tmp_path / "doubled" / "manifest.json").read_text())
    assert manifest == {
        "step": "double",
        "version": manifest["version"],
        "params": GOOD,
        "inputs": {"numbers": content_hash(numbers)},
        "stages": {},
        "metrics": metrics,
    }
    assert str(tmp_path) not in json.dumps(manifest)
    assert "double: done in" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".*")), "temporary files are left"


def test_a_step_gets_its_inputs_in_its_own_order(numbers: Path, tmp_path: Path) -> None:
    seen = []

    def remember(params, inputs, outputs):
        seen.append(list(inputs))
        return _double(params, inputs, outputs)

    step = dataclasses.replace(DOUBLE, run=remember)
    run_step(step, GOOD, {"hint": numbers, "numbers": numbers}, places(tmp_path))
    assert seen == [["numbers", "hint"]]


def test_a_failure_leaves_the_old_output_and_keeps_the_new_for_a_look(numbers: Path, tmp_path: Path) -> None:
    run_step(DOUBLE, GOOD, {"numbers": numbers}, places(tmp_path))
    before = content_hash(tmp_path / "doubled"), (tmp_path / "m" / "metrics.json").read_text()
    kept = tmp_path / "run" / "failed" / "double" / "doubled" / "numbers.txt"
    with pytest.raises(DataError, match=f"{kept}, row 3: unfit"):
        run_step(DOUBLE, GOOD | {"factor": 5, "fail": True}, {"numbers": numbers}, places(tmp_path))
    assert (content_hash(tmp_path / "doubled"), (tmp_path / "m" / "metrics.json").read_text()) == before
    assert kept.read_text() == "5\n10\n15"
    run_step(DOUBLE, GOOD | {"factor": 3}, {"numbers": numbers}, places(tmp_path))
    assert (tmp_path / "doubled" / "numbers.txt").read_text() == "3\n6\n9"
    assert not (tmp_path / "run" / "failed" / "double").exists()


def test_what_is_stopped_is_not_called_failed(numbers: Path, tmp_path: Path, capsys) -> None:
    def stop(params, inputs, outputs):
        outputs["doubled"].mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step(dataclasses.replace(DOUBLE, run=stop), GOOD, {"numbers": numbers}, places(tmp_path))
    assert f"double: stopped; what it had written is in {tmp_path}" in capsys.readouterr().err
    assert not (tmp_path / "doubled").exists()


def test_beside_the_first_process_a_step_works_and_nothing_is_written(numbers, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(runner.tracking, "step_run", lambda *_: pytest.fail("a second run was tracked"))
    before = sorted(tmp_path.rglob("*"))
    assert run_step(DOUBLE, GOOD, {"numbers": numbers}, places(tmp_path))["count"] == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_was_not_written_is_a_failure(numbers: Path, tmp_path: Path) -> None:
    lazy = Step("lazy", "writes nothing", DoubleParams, lambda *_: {}, DOUBLE.inputs, DOUBLE.outputs)
    with pytest.raises(RuntimeError, match="without writing its output 'doubled'"):
        run_step(lazy, GOOD, {"numbers": numbers}, places(tmp_path))
    assert not (tmp_path / "doubled").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 0}, r"double\.factor: .*greater than or equal to 1, got 0"),
        ({"facto": 1}, r"double has no parameter 'facto'; it has factor, note, fail"),
        ({"factor": 2.5}, r"double\.factor: .*integer.*got 2\.5"),
    ],
)
def test_wrong_parameters_are_named(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_params(DOUBLE, GOOD | change)


def test_a_missing_parameter_is_named_with_its_section() -> None:
    with pytest.raises(UsageError, match="section again of the parameters lacks factor"):
        check_params(DOUBLE, {"note": None, "fail": False}, "again")


def test_integral_floats_are_integers() -> None:
    assert check_params(DOUBLE, GOOD | {"factor": 3.0}) == check_params(DOUBLE, GOOD | {"factor": 3})


@pytest.mark.parametrize(
    ("inputs", "drop", "message"),
    [
        ({}, None, "needs the input 'numbers'"),
        ({"numbers": "nowhere"}, None, "input 'numbers' of step double is not at .*nowhere"),
        ({"numbers": ".", "other": "."}, None, "has no input 'other'; its inputs are numbers, hint"),
        ({"numbers": "."}, "page", "needs a place for its output 'page'"),
    ],
)
def test_wrong_ports_are_named(numbers: Path, tmp_path: Path, inputs, drop, message: str) -> None:
    outputs = {port: path for port, path in places(tmp_path).items() if port != drop}
    with pytest.raises(UsageError, match=message):
        run_step(DOUBLE, GOOD, {port: numbers / path for port, path in inputs.items()}, outputs)


def test_a_missing_input_names_the_stage_that_makes_it(numbers: Path, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages:\n  count:\n    cmd: count\n    outs:\n      - data/counted\n")
    with pytest.raises(UsageError, match="stage count makes it: run `dvc repro count`"):
        run_step(DOUBLE, GOOD, {"numbers": tmp_path / "data" / "counted"}, places(tmp_path))


@settings(max_examples=25)
@given(files=st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e"]), st.binary(max_size=8), min_size=1))
def test_content_hash_tells_contents_and_nothing_else(tmp_path_factory, files: dict[str, bytes]) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for folder, names in ((one, sorted(files)), (two, sorted(files, reverse=True))):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(files[name])
    assert content_hash(one) == content_hash(two)
    name = next(iter(files))
    (two / name).write_bytes(files[name] + b"x")
    assert content_hash(one) != content_hash(two)
    (two / name).write_bytes(files[name])
    (two / name).rename(two / "renamed")
    assert content_hash(one) != content_hash(two)


class Artifact:
    """What Kubeflow hands a component for a port."""

    def __init__(self, path: Path):
        self.path, self.metadata = str(path), {}


@pytest.fixture
def installed(numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The step as a folder among the components, with a section in params.yaml."""
    package = tmp_path / "more" / "double"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "step.py").write_text(
        "import dataclasses\nfrom test_runner import DOUBLE\nfrom components.step import Step\n"
        "STEP = Step(summary='doubles numbers', **{f.name: getattr(DOUBLE, f.name) for f in dataclasses.fields(DOUBLE)"
        " if f.name != 'summary'})\n"
    )
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(components, "__path__", [*components.__path__, str(package.parent)])
    (tmp_path / "params.yaml").write_text("double: {factor: 2, note: null, fail: false}\nbroken: 3\n")
    yield tmp_path
    for name in ("components.double", "components.double.step"):
        sys.modules.pop(name, None)


def test_a_component_reads_nulls_and_shows_metrics(installed: Path, numbers: Path) -> None:
    outputs = {port: Artifact(path) for port, path in places(installed).items()}
    run_component(
        "double",
        "again",
        {"factor": 2.0, "note": "null", "fail": False},
        {"numbers": Artifact(numbers), "hint": None},
        outputs,
    )
    assert outputs["metrics"].metadata["count"] == 3
    assert "ratio" not in outputs["metrics"].metadata
    assert outputs["doubled"].metadata["content_sha256"] == content_hash(installed / "doubled")


def command(folder: Path, *more: str) -> list[str]:
    ports = [f"--out={port}={path}" for port, path in places(folder).items()]
    return ["run", "double", f"--in=numbers={folder / 'numbers'}", *ports, f"--params={folder / 'params.yaml'}", *more]


def test_cli_runs_a_step(installed: Path) -> None:
    assert main(command(installed, "--set", "factor=4", "--set", "note=quadruple")) == 0
    assert (installed / "doubled" / "numbers.txt").read_text() == "4\n8\n12"
    assert json.loads((installed / "m" / "metrics.json").read_text())["kind"] == "quadruple"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--set", "fail=true"], 1, "row 3: unfit"),
        (["--set", "factr=1"], 2, "no parameter 'factr'"),
        (["--set", "factor.x=1"], 2, "factor holds a value"),
        (["--set", "factor=[1"], 2, "no YAML value"),
        (["--in", "numbers=again"], 2, "given twice"),
        (["--stage", "unknown"], 2, "section unknown of the parameters lacks factor, note, fail"),
        (["--stage", "broken"], 2, "broken should be a section"),
        (["--params", "missing.yaml"], 2, "no parameter file at missing.yaml"),
    ],
)
def test_cli_tells_failure_from_wrong_use_in_one_line(installed: Path, capsys, more, code, message) -> None:
    assert main(command(installed, *more)) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("ingest", "stopped; the same command can be started again\n"),
        ("pretrain", "stopped; the same command goes on from what is kept in run/checkpoints\n"),
        ("caption", "stopped; the same command goes on from what is kept in run/captions\n"),
    ],
)
def test_cli_stopped_by_ctrl_c_says_how_to_go_on(monkeypatch, capsys, step: str, says: str) -> None:
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("components.__main__.run_step", stop)
    assert main(["run", step]) == 130
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("arguments", [["run"], ["fly"], [], ["run", "double", "--set", "factor"], ["run", "x", "--y"]])
def test_cli_wrong_arguments_are_one_line_and_2(arguments: list[str], capsys) -> None:
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_cli_unknown_step(capsys) -> None:
    assert main(["schema", "nosuch"]) == 2
    assert "no step is called 'nosuch'" in capsys.readouterr().err


def test_cli_lists_and_describes(installed: Path, capsys) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["double", "doubles", "numbers"] for line in lines)
    assert len(lines) == len(runner.step_names())
    assert main(["schema", "double"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["params"]["properties"]["factor"]["minimum"] == 1
    assert schema["inputs"]["hint"]["optional"]
    assert set(schema["outputs"]) == {"doubled", "page", "metrics"}


def test_tracking_is_off_in_tests() -> None:
    assert os.environ["RETINALOGOS_TRACKING"] == "off"


def test_steps_are_declared_without_heavy_libraries() -> None:
    code = (
        "import sys; from components.runner import load_step, step_names\n"
        "for name in step_names(): load_step(name)\n"
        "print([name for name in ('torch', 'diffusers', 'mlflow', 'great_expectations') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=components.ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
