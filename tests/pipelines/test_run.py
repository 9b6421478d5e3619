"""The whole workflow at toy size, run twice: by DVC and as a Kubeflow pipeline. Both leave the same artifacts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components import ROOT
from components.runner import content_hash
from pipelines.graph import MAIN_LINE, METRICS

# What the registry answered: a version number, which counts up with every registration.
NOT_COMPARED = {("register", "registration"), ("register", METRICS)}


@pytest.fixture(scope="module")
def working_copy(tmp_path_factory) -> Path:
    """A copy of the code in a folder of its own, with an empty DVC cache and MLflow store."""
    copy = tmp_path_factory.mktemp("smoke") / "copy"
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "init", "--quiet", str(copy)], check=True)
    return copy


def call(copy: Path, *command: str) -> str:
    """Runs a command in the copy; what it says is shown if it fails."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RETINALOGOS_", "DVC_"))
    }
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "DVC_NO_ANALYTICS": "1",
    }
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def by_dvc(working_copy: Path) -> Path:
    call(working_copy, sys.executable, "-m", "pipelines", "params", "--preset", "smoke")
    call(working_copy, "dvc", "repro")
    return working_copy


@pytest.mark.slow
def test_smoke_leaves_what_others_rely_on(by_dvc: Path) -> None:
    for stage in MAIN_LINE:
        assert (by_dvc / "metrics" / f"{stage.name}.json").is_file()
    assert "<html" in (by_dvc / "reports" / "index.html").read_text()
    assert (by_dvc / "mlflow.db").is_file()
    assert not list(by_dvc.rglob(".partial-*"))


@pytest.mark.slow
def test_mlflow_has_one_run_with_a_run_of_every_stage_below(by_dvc: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{by_dvc / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("retinalogos")
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    nested = {run.info.run_name: run for run in runs if run is not parent}
    assert set(nested) == {stage.name for stage in MAIN_LINE}
    assert {run.data.tags["mlflow.parentRunId"] for run in nested.values()} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert client.get_registered_model("retinalogos-text")


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(by_dvc: Path) -> None:
    said = call(by_dvc, "dvc", "repro")
    for stage in MAIN_LINE:
        assert f"Stage '{stage.name}' didn't change, skipping" in said


@pytest.mark.slow
def test_kubeflow_leaves_the_same_artifacts(by_dvc: Path) -> None:
    said = call(by_dvc, sys.executable, "-m", "pipelines", "run-local", "--preset", "smoke")
    by_kubeflow = dict(
        line.split()[:2] for line in said.splitlines() if len(line.split()) == 3 and "." in line.split()[0]
    )
    compared = [
        (stage, port)
        for stage in MAIN_LINE
        for port in (*stage.outputs, METRICS)
        if (stage.name, port) not in NOT_COMPARED
    ]
    by_dvc_ = {f"{stage.name}.{port}": content_hash(by_dvc / stage.path(port)) for stage, port in compared}
    assert {name: by_kubeflow.get(name) for name in by_dvc_} == by_dvc_


@pytest.mark.slow
def test_a_changed_parameter_runs_its_stage_and_what_depends_on_it(by_dvc: Path) -> None:
    setting = (
        f"report.captions={yaml.safe_load((by_dvc / 'run' / 'params.yaml').read_text())['report']['captions'] + 1}"
    )
    call(by_dvc, sys.executable, "-m", "pipelines", "params", "--preset", "smoke", "--set", setting)
    said = call(by_dvc, "dvc", "status")
    changed = {stage.name for stage in MAIN_LINE if f"\n{stage.name}:" in f"\n{said}"}
    assert changed == {"report"}
