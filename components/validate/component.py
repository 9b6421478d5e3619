"""Kubeflow component of ``validate``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("client"), install_kfp_package=False)
def validate(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    validation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    verdict: dsl.Output[dsl.Markdown],
    captions: dsl.Input[dsl.Dataset] = None,
) -> None:
    """Great_expectations over the cohort's table, or over its captions: Data Docs and a verdict."""
    from components.runner import run_component
    from components.shown import show_verdict

    inputs = {"cohort": cohort, "captions": captions}
    outputs = {"validation": validation, "metrics": metrics}
    run_component("validate", stage, params, inputs, outputs)
    show_verdict(validation, verdict)
