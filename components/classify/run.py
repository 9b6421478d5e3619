"""The step ``classify``: does the synthetic cohort help classifiers of real eyes?"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.classify import figures, segmentation
from components.classify.step import SEGMENTATION, ClassifyParams
from components.step import Metrics, Paths
from retinalogos.classifiers import experiment
from retinalogos.classifiers.experiment import Arm, Sample
from retinalogos.cohort.external import External, read_external
from retinalogos.cohort.shards import Cohort
from retinalogos.metrics.intervals import Estimate
from retinalogos.segmenters import experiment as segmenters
from retinalogos.segmenters.structures import Annotated, read_annotated

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
    """Trains every mix, judges all on the same real eyes, and writes figures, predictions and ``results.json``."""
    cohort, synthetic_cohort, size = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"]), params.grader.size
    wanted = [task for task in params.tasks if task in SEGMENTATION]
    train, validation, test = (
        experiment.read_sample(cohort, split, size, params.suspects) for split in ("train", "validation", "test")
    )
    synthetic = experiment.read_sample(synthetic_cohort, None, size, params.suspects)
    elsewhere = {entry.title: _read_external(entry, params, bool(wanted)) for entry in params.external}
    judged = {"test": test} | {name: sample for name, (sample, _) in elsewhere.items()}
    experiment.check_separation({"train": train}, {"validation": validation, **judged}, synthetic)
    arms, skipped_arms = experiment.plan_arms(params.mixes, train, synthetic)
    heads, skipped_tasks = experiment.usable_heads(
        [task for task in params.tasks if task not in SEGMENTATION], train, test, params.finding_images
    )
    seeds = [params.seed + number for number in range(params.runs)]
    runs, skipped = experiment.train_arms(
        arms, seeds, heads, train, synthetic, validation, judged, params.grader, params.workers
    )
    maps = {name: annotated for name, (_, annotated) in elsewhere.items() if annotated is not None}
    compared = segmentation.compare(params, wanted, seeds, cohort, synthetic_cohort, maps) if wanted else None
    if compared:
        skipped_tasks |= compared.skipped["tasks"]
    tasks = [task for task in params.tasks if task not in skipped_tasks]
    folder = outputs["classification"]
    folder.mkdir(parents=True)
    results: dict[str, Any] = {
        "tasks": {task: list(experiment.TASKS.get(task) or segmenters.TASKS[task]) for task in tasks},
        "seeds": seeds,
        "primary": {task: experiment.PRIMARY.get(task, segmenters.PRIMARY) for task in tasks},
        "specificity": params.specificity,
        "arms": _described(arms, params.grader.steps),
        "images": {name: len(sample) for name, sample in (("validation", validation), *judged.items())},
        "skipped": {"tasks": skipped_tasks, "arms": skipped_arms, "heads_of_arms": skipped},
    }
    if compared:
        results["segmentation"] = {
            "structures": compared.structures,
            "arms": _described(compared.arms, params.segmenter.steps),
            "images": compared.images,
            "skipped": compared.skipped,
        }
    pictures: list[str] = []
    found = {}
    for name, sample in judged.items():
        found[name] = experiment.judge(
            runs,
            [task for task in tasks if task not in SEGMENTATION],
            name,
            sample,
            params.resamples,
            params.seed,
            params.specificity,
        )
        if compared and name in compared.found:
            _add(found[name], compared.found[name])
        pictures += _draw(folder, name, found[name])
    results |= {"test": found.pop("test"), "external": found, "pictures": pictures}
    _write_predictions(folder / "predictions.parquet", list(experiment.predictions(runs, judged)))
    text = json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    return _metrics(results, len(train), len(synthetic))


def _described(arms: Sequence[Arm], steps: int) -> dict[str, dict[str, Any]]:
    return {
        arm.name: {
            "real": arm.real,
            "synthetic": arm.synthetic,
            "optimiser_steps": steps,
            "synthetic_per_real": arm.synthetic / arm.real if arm.real else None,
            "against": arm.mix.reference,
        }
        for arm in arms
    }


def _add(found: dict[str, dict], of_maps: Mapping[str, dict]) -> None:
    """Puts the figures of segmenters beside those of classifiers."""
    for key, value in of_maps.items():
        found[key] = found.get(key, {}) | value


def _read_external(entry: External, params: ClassifyParams, with_maps: bool) -> tuple[Sample, Annotated | None]:
    """The eyes of another place, prepared as `ingest` does, and those with maps; the cohort in between is not kept."""
    size = max(params.grader.size, params.segmenter.size) if with_maps else params.grader.size
    with tempfile.TemporaryDirectory() as folder:
        fractions = {"train": 0.0, "validation": 0.0, "test": 1.0}
        cohort = read_external(entry, size, fractions, 0, Path(folder))
        return (
            experiment.read_sample(cohort, None, params.grader.size, params.suspects),
            read_annotated(cohort, None, params.segmenter.size, params.suspects) if with_maps else None,
        )


def _draw(folder: Path, name: str, found: Mapping[str, Any]) -> list[str]:
    """The pictures of a set of images, of the test split with confusion matrices; returns their names."""
    pictures = []
    for kind, zero in (("figures", False), ("difference", True)):
        tasks = {
            task: {arm: estimates[figures.primary(task)] for arm, estimates in of_arm.items()}
            for task, of_arm in found[kind].items()
            if of_arm
        }
        if tasks:
            pictures.append(figures.dots(folder / f"{name}_{kind}.png", tasks, name, zero))
    for task, confusion in found["confusion"].items() if name == "test" else ():
        pictures.append(figures.confusions(folder / f"{name}_{task}_confusion.png", task, confusion))
    return pictures


def _write_predictions(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=PREDICTIONS), path, compression="zstd")


def _plain(value: Any) -> Any:
    """As JSON has it; six digits, since the last ones depend on the processor, and null for what is not defined."""
    if isinstance(value, Estimate):
        return _plain(value.as_json())
    if isinstance(value, np.ndarray):
        return value.astype(int).tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value else None
    return value


def _metrics(results: Mapping[str, Any], real: int, synthetic: int) -> Metrics:
    """Flat figures of the test split: ``task.arm.figure``, and ``…figure_delta`` against the arm's reference.

    Of external sets the figure of each task by which mixes are compared: ``external.set.task.arm.figure``.
    """
    flat: dict[str, float | int | str | None] = {"train_real": real, "train_synthetic": synthetic}
    for kind, suffix in (("figures", ""), ("difference", "_delta")):
        for task, of_arm in results["test"][kind].items():
            for arm, estimates in of_arm.items():
                for figure, estimate in estimates.items():
                    flat[f"{task}.{arm}.{figure}{suffix}"] = _plain(estimate)["value"]
    for name, found in results["external"].items():
        for task, of_arm in found["figures"].items():
            figure = figures.primary(task)
            for arm, estimates in of_arm.items():
                flat[f"external.{name}.{task}.{arm}.{figure}"] = _plain(estimates[figure])["value"]
    return flat
