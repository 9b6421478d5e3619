"""MLflow: one run per run of the workflow, and under it one per stage.

Switched off by ``RETINALOGOS_TRACKING=off``; ``numbers`` keeps pages, pictures and tables out. The store is
``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the repository. Inside a step that runs, MLflow's fluent API
(``mlflow.active_run()``) refers to the stage's run.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components import ROOT
from retinalogos.errors import UsageError

EXPERIMENT = "retinalogos"
# Which run the stages of this run of the workflow belong to: an environment variable where one process starts
# all of them, a file where DVC starts each by itself.
PARENT_VARIABLE = "RETINALOGOS_RUN"
PARENT_FILE = ROOT / "run" / "mlflow_parent"
# MLflow keeps at most 36 characters of a data set's digest and takes at most 1000 metrics at a time.
DIGEST_LENGTH = 36
BATCH = 1000
# Endings of what a stage shows a reader: pages, pictures, tables. Weights and cohorts stay where DVC has them.
EVIDENCE = frozenset({".html", ".png", ".csv", ".json"})


def is_on() -> bool:
    """Whether MLflow is told of what runs."""
    return os.environ.get("RETINALOGOS_TRACKING", "on") != "off"


def adopts_run() -> bool:
    """Whether someone else (Kubeflow's MLflow integration) has begun the run that this process belongs to."""
    return is_on() and "MLFLOW_RUN_ID" in os.environ


def new_workflow() -> None:
    """Forgets the last run of the workflow: the next stage that really runs begins a new one."""
    PARENT_FILE.unlink(missing_ok=True)


def _connect() -> Any:
    """MLflow, pointed at the store and the experiment."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    # The first contact with a new SQLite store logs a line for each of its hundred migrations.
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        database = ROOT / "mlflow.db"
        if not database.exists():
            _create(mlflow, database)
        mlflow.set_tracking_uri(f"sqlite:///{database}")
    if "MLFLOW_EXPERIMENT_ID" not in os.environ and "MLFLOW_EXPERIMENT_NAME" not in os.environ:
        try:
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                local = mlflow.get_tracking_uri().startswith("sqlite")
                mlflow.create_experiment(EXPERIMENT, (ROOT / "mlruns").as_uri() if local else None)
        except mlflow.MlflowException as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"MLflow at {mlflow.get_tracking_uri()} does not answer ({reason}); "
                "set MLFLOW_TRACKING_URI, or RETINALOGOS_TRACKING=off to do without"
            ) from None
        mlflow.set_experiment(EXPERIMENT)
    return mlflow


def _create(mlflow: Any, database: Path) -> None:
    """A new store, whole or not at all: one that was stopped among its migrations MLflow cannot open any more."""
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=database.parent) as folder:
        partial = Path(folder) / database.name
        mlflow.MlflowClient(f"sqlite:///{partial}")
        if not database.exists():  # else a step beside this one was first
            partial.rename(database)


def begin_workflow() -> str | None:
    """Begins the run that the stages will stand under, and returns its identifier; ``None`` if tracking is off."""
    if not is_on():
        return None
    return _new_parent(_connect())


def _new_parent(mlflow: Any) -> str:
    with mlflow.start_run(run_name=time.strftime("workflow %Y-%m-%d %H:%M"), tags=_code_tags()) as run:
        return str(run.info.run_id)


def _parent(mlflow: Any) -> str | None:
    if PARENT_VARIABLE in os.environ:
        return os.environ[PARENT_VARIABLE]
    if "DVC_STAGE" not in os.environ:
        return None  # a step run by hand stands by itself
    if not PARENT_FILE.exists():
        PARENT_FILE.parent.mkdir(exist_ok=True)
        PARENT_FILE.write_text(_new_parent(mlflow))
    return PARENT_FILE.read_text()


def commit() -> str | None:
    """The commit of the code: of the working copy, or as the image was told when it was built; None if not known."""
    told = os.environ.get("RETINALOGOS_COMMIT")
    if told is None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            told = _git("rev-parse", "HEAD")
            told += " with changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return told


def _code_tags() -> dict[str, str]:
    told = commit()
    return {"mlflow.source.git.commit": told} if told else {}


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout.strip()


class StageRun:
    """What a stage tells MLflow; with no run (tracking is off) nothing happens."""

    def __init__(self, mlflow: Any = None, run_id: str = "", name: str = "", cohorts: Sequence[str] = ()):
        self._mlflow, self._run_id, self._name, self._cohorts = mlflow, run_id, name, cohorts

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs the parameters, nested ones as ``outer.inner``; those that the run has already stay as they are."""
        if self._mlflow is None:
            return
        known = self._mlflow.get_run(self._run_id).data.params
        flat = {key: value for key, value in _flat(params).items() if key not in known}
        self._mlflow.log_params(flat)

    def log_outcome(
        self,
        metrics: Mapping[str, Any],
        system: Mapping[str, float],
        outputs: Sequence[Path],
        evidence: Mapping[str, Path],
    ) -> None:
        """Logs metrics and cost, the training curve of each output that has one, and what there is to look at.

        The outputs exist already: if MLflow fails now, it says so and the stage still counts as done.

        Args:
            metrics: of the step.
            system: duration and memory.
            outputs: all of them.
            evidence: by port those that are neither data nor models: of them pages, pictures and tables are logged.
        """
        if self._mlflow is None:
            return
        try:
            run = self._mlflow.get_run(self._run_id)
            numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
            numbers |= system
            self._mlflow.log_metrics({key: value for key, value in numbers.items() if key not in run.data.metrics})
            words = {f"result.{key}": value for key, value in metrics.items() if isinstance(value, str)}
            self._mlflow.set_tags(words)
            for output in outputs:
                if (output / "log.jsonl").is_file():
                    self._log_curve(output / "log.jsonl", known=run.data.metrics)
        except self._mlflow.MlflowException as error:
            print(f"{self._name}: MLflow did not take the metrics: {error}", file=sys.stderr)
        if os.environ.get("RETINALOGOS_TRACKING") == "numbers":
            return
        try:
            for port, output in evidence.items():
                self._log_files(port, output)
        except Exception as error:  # stores of files have clients of their own, without a common kind of error
            print(f"{self._name}: MLflow did not take pages and pictures: {error}", file=sys.stderr)

    def _log_files(self, port: str, output: Path) -> None:
        """Those of :data:`EVIDENCE` that lie in an output itself: folders in it hold parts of pages, or weights."""
        client = self._mlflow.MlflowClient()
        for file in sorted(output.iterdir()) if output.is_dir() else [output]:
            if file.is_file() and file.suffix in EVIDENCE:
                client.log_artifact(self._run_id, str(file), port)

    def _log_curve(self, path: Path, known: Collection[str]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [
            Metric(f"curve/{key}", float(value), now, int(row["step"]))
            for row in map(json.loads, path.read_text().splitlines())
            for key, value in row.items()
            # An adopted run has a curve already where Kubeflow tries the task again.
            if key != "step" and isinstance(value, int | float) and f"curve/{key}" not in known
        ]
        client = self._mlflow.MlflowClient()
        for start in range(0, len(points), BATCH):
            client.log_batch(self._run_id, metrics=points[start : start + BATCH])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@contextlib.contextmanager
def step_run(stage: str, step: str, inputs: Mapping[str, Path], input_hashes: Mapping[str, str]) -> Iterator[StageRun]:
    """The MLflow run of a stage: adopted from ``MLFLOW_RUN_ID``, or begun under the workflow's run.

    Args:
        stage: name of the run.
        step: name of the step, a tag.
        inputs: path by port; cohorts among them are logged as data sets.
        input_hashes: content hash by port, tags.
    """
    if not is_on():
        yield StageRun()
        return
    mlflow = _connect()
    tags = {"step": step, **_code_tags(), **{f"input.{port}": digest for port, digest in input_hashes.items()}}
    adopted = os.environ.get("MLFLOW_RUN_ID")
    parent = None if adopted else _parent(mlflow)
    arguments = {"run_id": adopted} if adopted else {"run_name": stage, "parent_run_id": parent}
    status = "FAILED"
    try:
        with mlflow.start_run(**arguments) as run:
            mlflow.set_tags(tags)
            for port, path in inputs.items():
                if (path / "cohort.json").is_file():
                    _log_cohort(mlflow, port, path)
            yield StageRun(mlflow, run.info.run_id, stage)
        status = "FINISHED"
    finally:
        if parent is not None:
            mlflow.MlflowClient().set_terminated(parent, status)


def _log_cohort(mlflow: Any, port: str, folder: Path) -> None:
    from mlflow.data.dataset_source_registry import get_dataset_source_from_json
    from mlflow.data.meta_dataset import MetaDataset

    meta = json.loads((folder / "cohort.json").read_text())
    digest = meta["content_sha256"][:DIGEST_LENGTH]
    source = get_dataset_source_from_json(json.dumps({"uri": str(folder)}), "local")
    dataset = MetaDataset(source, name=meta["name"], digest=digest)  # type: ignore[abstract]
    mlflow.log_input(dataset, context=port)
