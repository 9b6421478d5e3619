"""Kubeflow component of ``register``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("cpu"), install_kfp_package=False)
def register(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    generator: dsl.Input[dsl.Model],
    assessment: dsl.Input[dsl.Artifact],
    classification: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.Artifact],
    registration: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    model_card: dsl.Output[dsl.Markdown],
) -> None:
    """MLflow model version with its gates; the alias champion moves if they pass."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {
        "cohort": cohort,
        "generator": generator,
        "assessment": assessment,
        "classification": classification,
        "report": report,
    }
    outputs = {"registration": registration, "metrics": metrics}
    run_component("register", stage, params, inputs, outputs)
    show_file(registration, "model_card.md", model_card)
