"""Kubeflow component of ``classify``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def classify(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    classification: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    real_alone: dsl.Output[dsl.ClassificationMetrics],
    with_synthetic: dsl.Output[dsl.ClassificationMetrics],
) -> None:
    """Classifiers trained on mixes of real and synthetic eyes, judged on the same real eyes here and elsewhere."""
    from components.classify.shown import show
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic}
    outputs = {"classification": classification, "metrics": metrics}
    run_component("classify", stage, params, inputs, outputs)
    show(classification, real_alone, with_synthetic)
