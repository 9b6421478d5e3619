"""Trains graders and segmenters with and without synthetic eyes, and judges them on the test split."""

from typing import Any

from components.step import Metrics, Paths
from components.try_lesion_maps.step import TryLesionMapsParams
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.lesion_map.examples import read, read_real
from retinalogos.generators.lesion_map.trials import REAL, try_grading, try_segmentation
from retinalogos.metrics.results import flat, write_results


def run(params: TryLesionMapsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort, size = Cohort(inputs["cohort"]), params.grader.size
    training, test = read_real(cohort, size, "test")
    synthetic = read(Cohort(inputs["synthetic"]), None, size)
    told = {"folds": params.folds, "seed": params.seed, "resamples": params.resamples}
    by_grade = training.by_grade
    graded = try_grading(training, synthetic, test, params.grader, **told) if by_grade else {}
    found = try_segmentation(training, synthetic, test, params.segmenter, **told)
    results: dict[str, Any] = {
        "images": {"training": len(training), "synthetic": len(synthetic), "test": len(test)},
        "left_out": [] if by_grade else ["grading"],
        "grading": {arm: each.estimates() for arm, each in graded.items()},
        "grading_against_real": {
            arm: each.minus(graded[REAL]).estimates() for arm, each in graded.items() if arm != REAL
        },
        "segmentation": {arm: each.estimates() for arm, each in found.items()},
        "segmentation_against_real": {
            arm: each.minus(found[REAL]).estimates() for arm, each in found.items() if arm != REAL
        },
    }
    write_results(outputs["trial"] / "results.json", results)
    return flat(
        {"segmentation": results["segmentation"], "qwk": {arm: each["qwk"] for arm, each in results["grading"].items()}}
    )
