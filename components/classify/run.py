"""The step ``classify``: does the synthetic cohort help classifiers of real eyes?"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.classify import figures
from components.classify.step import ClassifyParams
from components.step import Metrics, Paths
from retinalogos.classifiers import experiment
from retinalogos.classifiers.experiment import TASKS
from retinalogos.cohort.shards import Cohort
from retinalogos.metrics.intervals import Estimate

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("set", pa.string()),
        ("task", pa.string()),
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("truth", pa.int8()),
        ("probabilities", pa.list_(pa.float32())),
    ]
)


def run(params: ClassifyParams, inputs: Paths, outputs: Paths) -> Metrics:
    """Trains every arm, judges all on the same real eyes, and writes figures, predictions and ``results.json``."""
    cohort, size = Cohort(inputs["cohort"]), params.grader.size
    train, validation, test = (
        experiment.read_sample(cohort, split, size, params.suspects) for split in ("train", "validation", "test")
    )
    synthetic = experiment.read_sample(Cohort(inputs["synthetic"]), None, size, params.suspects)
    judged = {"test": test}
    if "external" in inputs:
        judged["external"] = experiment.read_sample(Cohort(inputs["external"]), None, size, params.suspects)
    experiment.check_separation({"train": train}, {"validation": validation, **judged}, synthetic)
    arms, skipped_arms = experiment.plan_arms(len(train), len(synthetic), params.shares)
    tasks, skipped_tasks = experiment.usable_tasks(train, test)
    seeds = [params.seed + number for number in range(params.runs)]
    runs, skipped = experiment.train_arms(
        arms, seeds, tasks, train, synthetic, validation, judged, params.grader, params.workers
    )
    folder = outputs["classification"]
    folder.mkdir(parents=True)
    results: dict[str, Any] = {
        "tasks": {task: list(TASKS[task]) for task in tasks},
        "seeds": seeds,
        "arms": {
            arm.name: {
                "real": arm.real,
                "synthetic": arm.synthetic,
                "optimiser_steps": params.grader.steps,
                "synthetic_per_real": arm.synthetic / arm.real if arm.real else None,
            }
            for arm in arms
        },
        "images": {name: len(sample) for name, sample in (("validation", validation), *judged.items())},
        "skipped": {"tasks": skipped_tasks, "arms": skipped_arms, "tasks_of_arms": skipped},
    }
    pictures = []
    for name, sample in judged.items():
        found = experiment.judge(runs, name, sample, params.resamples, params.seed)
        results[name] = found
        for task, of_arm in found["figures"].items():
            pictures.append(figures.bars(folder / f"{name}_{task}.png", task, of_arm))
            if found["difference"].get(task):
                pictures.append(
                    figures.differences(folder / f"{name}_{task}_difference.png", task, found["difference"][task])
                )
            pictures.append(figures.confusions(folder / f"{name}_{task}_confusion.png", task, found["confusion"][task]))
    results["pictures"] = pictures
    _write_predictions(folder / "predictions.parquet", list(experiment.predictions(runs, judged)))
    text = json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    return _metrics(results, len(train), len(synthetic))


def _write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=PREDICTIONS), path, compression="zstd")


def _plain(value: Any) -> Any:
    """As JSON has it; six digits, since the last ones depend on the processor."""
    if isinstance(value, Estimate):
        return _plain(value.as_json())
    if isinstance(value, np.ndarray):
        return value.astype(int).tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _metrics(results: Mapping[str, Any], real: int, synthetic: int) -> Metrics:
    """Flat figures of the test split: ``task.arm.figure``, and ``task.arm.figure_delta`` against real images only."""
    flat: dict[str, float | int | str | None] = {"train_real": real, "train_synthetic": synthetic}
    for kind, suffix in (("figures", ""), ("difference", "_delta")):
        for task, of_arm in results["test"][kind].items():
            for arm, estimates in of_arm.items():
                for figure, estimate in estimates.items():
                    flat[f"{task}.{arm}.{figure}{suffix}"] = _plain(estimate)["value"]
    return flat
