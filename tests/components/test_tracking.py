"""What MLflow is told: nesting, adoption of a run, no metric twice, lineage of cohorts, training curves."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from kfp.dsl import Dataset, Metrics

from components import runner, tracking
from components.runner import content_hash, run_component, run_step
from components.step import Params, Port, Step

mlflow = pytest.importorskip("mlflow")


class NoParams(Params):
    """Parameters of the step under test."""

    rate: float
    nested: dict[str, int]


def _train(params: NoParams, inputs, outputs):
    assert mlflow.active_run() is not None, "a step may use MLflow's fluent interface"
    outputs["log"].mkdir()
    rows = [{"step": step, "loss": 1 / step, "phase": "low"} for step in range(1, 1501)]
    (outputs["log"] / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (outputs["log"] / "index.html").write_text("<p>a page</p>")
    (outputs["log"] / "weights.safetensors").write_bytes(b"large")
    (outputs["log"] / "samples").mkdir()
    (outputs["log"] / "samples" / "step-1.png").write_bytes(b"a part")
    return {"loss": 0.5, "verdict": "good"}


def _break(params, inputs, outputs):
    raise ValueError("broken")


PORTS = {"inputs": {"cohort": Port("a cohort", "Dataset")}, "outputs": {"log": Port("a log")}}
TRAIN = Step("train", "trains", NoParams, _train, **PORTS)
BROKEN = Step("broken", "breaks", NoParams, _break, **PORTS)
VALUES = {"rate": 0.1, "nested": {"depth": 2}}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: str):
    """MLflow in a store of its own; the client of it."""
    for name in ("RETINALOGOS_RUN", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RETINALOGOS_TRACKING", "on")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(tracking, "ROOT", tmp_path)
    monkeypatch.setattr(tracking, "PARENT_FILE", tmp_path / "run" / "mlflow_parent")
    mlflow.set_tracking_uri(mlflow_store)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)  # MLflow sets it for its child processes


def go(folder: Path, step: Step, **more):
    cohort = folder / "cohort"
    cohort.mkdir(exist_ok=True)
    (cohort / "cohort.json").write_text(json.dumps({"name": "phantom", "content_sha256": "ab" * 32}))
    outputs = {"log": folder / "log", "metrics": folder / "metrics.json"}
    return run_step(step, VALUES, {"cohort": cohort}, outputs, **more)


def runs(client) -> dict:
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_stages_nest_under_one_run_of_the_workflow(store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    go(tmp_path, TRAIN, stage="first")
    go(tmp_path, TRAIN, stage="second")
    parent = tracking.PARENT_FILE.read_text()
    by_name = runs(store)
    assert len(by_name) == 3
    for stage in ("first", "second"):
        assert by_name[stage].data.tags["mlflow.parentRunId"] == parent
        assert by_name[stage].info.status == "FINISHED"
    assert store.get_run(parent).info.status == "FINISHED"

    tracking.new_workflow()
    with pytest.raises(ValueError, match="broken"):
        go(tmp_path, BROKEN, stage="third")
    third = runs(store)["third"]
    assert third.info.status == "FAILED"
    assert third.data.tags["mlflow.parentRunId"] != parent
    assert store.get_run(third.data.tags["mlflow.parentRunId"]).info.status == "FAILED"


def test_a_stage_tells_params_metrics_tags_lineage_and_curve(store, tmp_path: Path) -> None:
    go(tmp_path, TRAIN)
    run = runs(store)["train"]
    assert run.data.params == {"rate": "0.1", "nested.depth": "2"}
    assert run.data.metrics["loss"] == 0.5
    assert run.data.metrics["system/seconds"] > 0
    assert run.data.tags["result.verdict"] == "good"
    assert run.data.tags["input.cohort"] == content_hash(tmp_path / "cohort")
    assert "mlflow.parentRunId" not in run.data.tags, "a step run by hand stands by itself"
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("phantom", ("ab" * 32)[:36])
    curve = store.get_metric_history(run.info.run_id, "curve/loss")
    assert [(point.step, point.value) for point in curve[:2]] == [(1, 1.0), (2, 0.5)]
    assert len(curve) == 1500


def test_what_a_reader_looks_at_lies_with_the_run(store, tmp_path: Path, monkeypatch) -> None:
    go(tmp_path, TRAIN)
    run = runs(store)["train"]
    files = [entry.path for entry in store.list_artifacts(run.info.run_id, "log")]
    assert files == ["log/index.html", "log/manifest.json"]
    page = store.download_artifacts(run.info.run_id, "log/index.html", str(tmp_path))
    assert Path(page).read_text() == "<p>a page</p>"

    monkeypatch.setenv("RETINALOGOS_TRACKING", "numbers")
    go(tmp_path, TRAIN, stage="again")
    again = runs(store)["again"]
    assert again.data.metrics["loss"] == 0.5
    assert store.list_artifacts(again.info.run_id) == []


def test_a_store_that_takes_no_files_does_not_undo_a_stage(store, tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("no bucket")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refuse)
    assert go(tmp_path, TRAIN)["loss"] == 0.5
    assert "train: MLflow did not take pages and pictures: no bucket" in capsys.readouterr().err
    assert runs(store)["train"].info.status == "FINISHED"


def test_a_store_that_was_stopped_while_it_was_made_is_made_anew(store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    begun = mlflow.MlflowClient

    def stop(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half a database")
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow, "MlflowClient", stop)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, TRAIN)
    assert not [*tmp_path.glob("mlflow.db"), *tmp_path.glob(".mlflow-*")]
    monkeypatch.setattr(mlflow, "MlflowClient", begun)
    go(tmp_path, TRAIN)
    assert (tmp_path / "mlflow.db").is_file()


def test_a_given_run_is_adopted_and_no_metric_logged_twice(store, tmp_path: Path, monkeypatch) -> None:
    experiment = store.create_experiment("kubeflow")
    task = store.create_run(experiment)
    store.log_metric(task.info.run_id, "loss", 0.25)
    store.log_param(task.info.run_id, "rate", "0.3")
    monkeypatch.setenv("MLFLOW_RUN_ID", task.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    go(tmp_path, TRAIN)
    run = store.get_run(task.info.run_id)
    assert [run.info.run_id for run in store.search_runs([experiment])] == [task.info.run_id]
    assert len(store.get_metric_history(task.info.run_id, "loss")) == 1
    assert run.data.params == {"rate": "0.3", "nested.depth": "2"}
    assert run.data.tags["step"] == "train"


def test_kubeflow_logs_scalars_itself(store, tmp_path: Path, monkeypatch) -> None:
    experiment = store.create_experiment("kubeflow")
    task = store.create_run(experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", task.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    go(tmp_path, TRAIN, scalars_tracked_by_caller=True)
    run = store.get_run(task.info.run_id)
    assert "loss" not in run.data.metrics
    assert "curve/loss" in run.data.metrics
    assert run.data.params == {}


def test_a_task_that_kubeflow_tries_again_logs_nothing_twice(store, tmp_path: Path, monkeypatch) -> None:
    """The body of a Kubeflow component, in the run that Kubeflow's own integration has begun for its task."""
    experiment = store.create_experiment("kubeflow")
    parent = store.create_run(experiment)
    task = store.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id}).info.run_id
    monkeypatch.setattr(runner, "load_step", lambda name: TRAIN)
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "cohort.json").write_text(json.dumps({"name": "phantom", "content_sha256": "ab" * 32}))
    for attempt in "12":
        # Each attempt is a process of its own; MLflow takes the variable out of the environment when it begins.
        monkeypatch.setenv("MLFLOW_RUN_ID", task)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        made = {
            "log": Dataset(name="log", uri=str(tmp_path / attempt / "log")),
            "metrics": Metrics(name="metrics", uri=str(tmp_path / attempt / "metrics")),
        }
        given = {"cohort": Dataset(name="cohort", uri=str(cohort))}
        run_component("train", "train", {"rate": 0.1, "nested": {"depth": 2.0}}, given, made)
        assert made["metrics"].metadata == {"loss": 0.5, "verdict": "good"}
    assert {run.info.run_id for run in store.search_runs([experiment])} == {parent.info.run_id, task}
    run = store.get_run(task)
    assert run.data.params == {}
    assert "loss" not in run.data.metrics, "Kubeflow logs it"
    assert run.data.tags["result.verdict"] == "good"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    for name in ("curve/loss", "system/seconds"):
        logged = [(point.step, point.value) for point in store.get_metric_history(task, name)]
        assert len(logged) == len(set(logged)) == (1500 if name == "curve/loss" else 1)
    assert len(run.inputs.dataset_inputs) == 1


def test_one_process_shares_its_run_through_the_environment(store, tmp_path: Path, monkeypatch) -> None:
    parent = tracking.begin_workflow()
    monkeypatch.setenv("RETINALOGOS_RUN", parent)
    go(tmp_path, TRAIN)
    assert runs(store)["train"].data.tags["mlflow.parentRunId"] == parent


def test_the_commit_is_a_tag(store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RETINALOGOS_COMMIT", "0123abc")
    go(tmp_path, TRAIN)
    assert runs(store)["train"].data.tags["mlflow.source.git.commit"] == "0123abc"


def test_off_means_off(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RETINALOGOS_TRACKING", "off")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'never.db'}")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    quiet = Step(
        "quiet", "says nothing", NoParams, lambda params, inputs, outputs: outputs["log"].mkdir() or {}, **PORTS
    )
    go(tmp_path, quiet)
    assert not (tmp_path / "never.db").exists()


def test_the_working_copy_names_its_commit() -> None:
    head = subprocess.run(
        ["git", "-C", str(tracking.ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if head.returncode:
        pytest.skip("not a git working copy")
    assert tracking._code_tags()["mlflow.source.git.commit"].startswith(head.stdout.strip())
