"""Kubeflow component of ``register_vessel_map``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("cpu"), install_kfp_package=False)
def register_vessel_map(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    masks: dsl.Input[dsl.Model],
    paint: dsl.Input[dsl.Model],
    enlarge: dsl.Input[dsl.Model],
    judgement: dsl.Input[dsl.Artifact],
    use: dsl.Input[dsl.Artifact],
    registration: dsl.Output[dsl.Artifact],
    cascade: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    model_card: dsl.Output[dsl.Markdown],
) -> None:
    """MLflow model version of the cascade with its gates; the alias champion moves if they pass."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {
        "cohort": cohort,
        "masks": masks,
        "paint": paint,
        "enlarge": enlarge,
        "judgement": judgement,
        "use": use,
    }
    outputs = {"registration": registration, "cascade": cascade, "metrics": metrics}
    run_component("register_vessel_map", stage, params, inputs, outputs)
    show_file(registration, "model_card.md", model_card)
