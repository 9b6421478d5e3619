"""Kubeflow component of ``caption``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def caption(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    captions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Captions of every eye, several wordings, within the text encoder's token budget."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "validation": validation}
    outputs = {"captions": captions, "metrics": metrics}
    run_component("caption", stage, params, inputs, outputs)
