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
    external: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Classifiers trained on real, real and synthetic, and synthetic eyes, judged on the same real eyes."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic, "external": external}
    outputs = {"classification": classification, "metrics": metrics}
    run_component("classify", stage, params, inputs, outputs)
