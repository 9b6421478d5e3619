"""Confusion matrices and ROC curves for Kubeflow's page of a run: real eyes alone, and with synthetic ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from retinalogos.classifiers.predictions import read_scores

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
            truth, score = read_scores(folder / "predictions.parquet", "test", arm, task)
            if truth.any() and not truth.all():
                false_positives, true_positives, thresholds = roc_curve(truth, score)
                # The first one is infinite, which JSON does not have; nothing is more likely than 1.
                thresholds = np.minimum(thresholds, 1.0)
                metrics.log_roc_curve(false_positives.tolist(), true_positives.tolist(), thresholds.tolist())
                metrics.metadata["curve_of"] = task
