"""The whole workflow at toy size, run twice side by side: by DVC and as a Kubeflow pipeline.

Both leave the same artifacts. What DVC's run leaves is then pushed to a remote and pulled by a fresh clone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from storage_server import new_bucket, s3_server

from components import ROOT
from components.runner import content_hash
from pipelines.graph import METRICS
from pipelines.main_line import STAGES as MAIN_LINE

WHO = ("-c", "user.name=test", "-c", "user.email=test@localhost")
# What the registry answered: a version number, which counts up with every registration.
NOT_COMPARED = {("register", "registration"), ("register", METRICS)}


def working_copy(copy: Path) -> Path:
    """A copy of the code in a folder of its own, with an empty DVC cache and MLflow store."""
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


def environment(copy: Path) -> dict[str, str]:
    """That of a command in the copy."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "RETINALOGOS_", "DVC_"))}
    return own | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "DVC_NO_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",  # two runs side by side on two cores
    }


def call(copy: Path, *command: str) -> str:
    """Runs a command in the copy; what it says is shown if it fails."""
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def kubeflow_run(tmp_path_factory):
    """The pipeline on kfp's local runner, which goes on while others use what DVC's run has left."""
    copy = working_copy(tmp_path_factory.mktemp("kubeflow") / "copy")
    command = [sys.executable, "-m", "pipelines", "run-local", "--preset", "smoke"]
    with (copy.parent / "said").open("w") as said:
        process = subprocess.Popen(
            command, cwd=copy, env=environment(copy), stdout=said, stderr=said, start_new_session=True
        )
        yield copy, process
        if process.poll() is None:  # nobody asked for it: its tasks go too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory, kubeflow_run) -> Path:
    copy = working_copy(tmp_path_factory.mktemp("smoke") / "copy")
    call(copy, sys.executable, "-m", "pipelines", "params", "--preset", "smoke")
    call(copy, "dvc", "repro")
    return copy


@pytest.fixture(scope="module")
def by_kubeflow(kubeflow_run) -> dict[str, tuple[str, Path]]:
    """Hash and place of each output by its name."""
    copy, process = kubeflow_run
    code, said = process.wait(), (copy.parent / "said").read_text()
    assert code == 0, said[-10000:]
    found = [line.split() for line in said.splitlines()]
    return {words[0]: (words[1], Path(words[2])) for words in found if len(words) == 3 and "." in words[0]}


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


@pytest.fixture(params=["disk", "s3"])
def remote(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Address of an empty DVC remote."""
    if request.param == "disk":
        yield str(tmp_path / "remote")
        return
    with s3_server() as environment:
        checksums = dict.fromkeys(
            ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"), "when_required"
        )
        for name, value in {**environment, **checksums, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{new_bucket()[1]}/dvc"


@pytest.fixture(scope="module")
def committed(by_dvc: Path) -> Path:
    """DVC's run, in a commit."""
    call(by_dvc, "git", "add", "--all")
    call(by_dvc, "git", *WHO, "commit", "--quiet", "--message", "A run")
    return by_dvc


def clone(copy: Path, place: Path) -> Path:
    """A clone of the commit with what was pushed to the default remote."""
    call(place.parent, "git", "clone", "--quiet", str(copy), str(place))
    shutil.copy(copy / ".dvc" / "config", place / ".dvc" / "config")
    # The main line alone: other workflows have not run.
    call(place, "dvc", "pull", "dvc.yaml")
    call(place, sys.executable, "-m", "pipelines", "params", "--preset", "smoke")
    return place


@pytest.mark.slow
def test_a_fresh_clone_pulls_what_was_pushed_and_has_nothing_to_do(
    committed: Path, remote: str, tmp_path: Path
) -> None:
    call(committed, "dvc", "remote", "add", "--force", "--default", "store", remote)
    call(committed, "dvc", "push")
    said = call(clone(committed, tmp_path / "clone"), "dvc", "repro")
    for stage in MAIN_LINE:
        assert f"Stage '{stage.name}' didn't change, skipping" in said


@pytest.mark.slow
def test_an_experiment_is_compared_with_the_commit(committed: Path, tmp_path: Path) -> None:
    """One parameter of the last stages changes, one figure is edited, and the curves are those of two revisions."""
    call(committed, "dvc", "remote", "add", "--force", "--default", "store", str(tmp_path / "remote"))
    call(committed, "dvc", "push")
    copy = clone(committed, tmp_path / "clone")
    call(copy, "git", *WHO, "commit", "--quiet", "--all", "--allow-empty", "--message", "No change")
    call(copy, "dvc", "exp", "run", "--set-param", "report.training_samples=2")  # the preset leaves it alone
    shown = json.loads(call(copy, "dvc", "params", "diff", "--json"))
    for file in ("params.yaml", "run/params.yaml"):
        assert shown[file]["report.training_samples"] == {"old": 4, "new": 2, "diff": -2}
    (copy / "metrics" / "augment.json").write_text(
        json.dumps({**json.loads((copy / "metrics" / "augment.json").read_text()), "rows": -1})
    )
    changed = json.loads(call(copy, "dvc", "metrics", "diff", "--json"))
    assert changed["metrics/augment.json"]["rows"]["new"] == -1
    drawn = json.loads(call(copy, "dvc", "plots", "diff", "HEAD", "--json"))["data"]
    for curve in ("loss of pretrain", "loss of finetune"):
        assert {revision for plot in drawn[curve] for revision in plot["revisions"]} == {"HEAD", "workspace"}


@pytest.mark.slow
def test_kubeflow_leaves_the_same_artifacts(by_dvc: Path, by_kubeflow) -> None:
    compared = [
        (stage, port)
        for stage in MAIN_LINE
        for port in (*stage.outputs, METRICS)
        if (stage.name, port) not in NOT_COMPARED
    ]
    by_dvc_ = {f"{stage.name}.{port}": content_hash(by_dvc / stage.path(port)) for stage, port in compared}
    assert {name: by_kubeflow[name][0] for name in by_dvc_} == by_dvc_


@pytest.mark.slow
def test_kubeflow_gets_what_its_pages_show(by_kubeflow) -> None:
    outputs = by_kubeflow

    def artifact(output: str, name: str) -> tuple[dict[str, Any], Path]:
        place = outputs[output][1]
        said = json.loads((place.parent / "executor_output.json").read_text())
        return said["artifacts"][name]["artifacts"][0].get("metadata", {}), place.with_name(name)

    for output, name in (("caption.page", "shown"), ("purify.page", "shown"), ("report.report", "shown")):
        assert artifact(output, name)[1].read_text() == (outputs[output][1] / "index.html").read_text()
    assert artifact("register.registration", "model_card")[1].read_text().startswith("# ")
    assert "expectations hold" in artifact("validate.validation", "verdict")[1].read_text()
    for name in ("real_alone", "with_synthetic"):
        drawn, _ = artifact("classify.classification", name)
        assert drawn["confusionMatrix"]["rows"]
        assert drawn["confidenceMetrics"][0]["recall"] == 0
    for name in [f"{stage.name}.{port}" for stage in MAIN_LINE for port in stage.outputs]:
        assert artifact(name, name.partition(".")[2])[0]["content_sha256"] == outputs[name][0]


@pytest.mark.slow
def test_a_changed_parameter_runs_its_stage_and_what_depends_on_it(by_dvc: Path) -> None:
    setting = (
        f"report.captions={yaml.safe_load((by_dvc / 'run' / 'params.yaml').read_text())['report']['captions'] + 1}"
    )
    call(by_dvc, sys.executable, "-m", "pipelines", "params", "--preset", "smoke", "--set", setting)
    said = call(by_dvc, "dvc", "status")
    changed = {stage.name for stage in MAIN_LINE if f"\n{stage.name}:" in f"\n{said}"}
    assert changed == {"report"}
