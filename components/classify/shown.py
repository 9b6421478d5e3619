"""Confusion matrices and ROC curves for Kubeflow's page of a run: real eyes alone, and with synthetic ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_curve

from retinalogos.classifiers.experiment import REFERABLE

REAL = "real"


def show(classification: Any, real_alone: Any, with_synthetic: Any) -> None:
    """Writes what the step found on the test split into artifacts that Kubeflow draws.

    The matrix is that of the first task that has one, summed over the runs; the curve is that of the first task with
    two classes, of the mean probability of the runs. Where a task or an arm is missing, so is its picture.

    Args:
        classification: artifact of the step's output.
        real_alone: ClassificationMetrics of the arm ``real``.
        with_synthetic: the same of the first arm that is compared with it.
    """
    folder = Path(classification.path)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    compared = [arm for arm, entry in results["arms"].items() if entry["against"] == REAL]
    for arm, metrics in zip([REAL, *compared[:1]], [real_alone, with_synthetic], strict=False):
        metrics.metadata["arm"] = arm
        for task, matrices in list(results["test"]["confusion"].items())[:1]:
            metrics.log_confusion_matrix(results["tasks"][task], matrices[arm])
            metrics.metadata["matrix_of"] = task
        for task in [task for task in ("referable_dr", "glaucoma") if task in results["tasks"]][:1]:
            truth, score = _scores(folder / "predictions.parquet", arm, task)
            if truth.any() and not truth.all():
                false_positives, true_positives, thresholds = roc_curve(truth, score)
                # The first one is infinite, which JSON does not have; nothing is more likely than 1.
                thresholds = np.minimum(thresholds, 1.0)
                metrics.log_roc_curve(false_positives.tolist(), true_positives.tolist(), thresholds.tolist())
                metrics.metadata["curve_of"] = task


def _scores(predictions: Path, arm: str, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether each test image is positive, and the mean probability that it is."""
    head = "dr_grade" if task == "referable_dr" else task
    wanted = [("set", "==", "test"), ("arm", "==", arm), ("task", "==", head)]
    table = pq.read_table(predictions, filters=wanted).to_pandas()
    from_class = REFERABLE if task == "referable_dr" else 1
    table["score"] = [float(np.sum(each[from_class:])) for each in table["probabilities"]]
    by_image = table.groupby("image_id").agg(truth=("truth", "first"), score=("score", "mean"))
    return (by_image["truth"] >= from_class).to_numpy(), by_image["score"].to_numpy()
