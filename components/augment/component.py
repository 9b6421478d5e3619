"""Kubeflow component of ``augment``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def augment(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    generator: dsl.Input[dsl.Model],
    synthetic: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Draw the class-balanced synthetic cohort, filtered by quality and for copies."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "generator": generator}
    outputs = {"synthetic": synthetic, "metrics": metrics}
    run_component("augment", stage, params, inputs, outputs)
