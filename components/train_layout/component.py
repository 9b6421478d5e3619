"""Kubeflow component of ``train_layout``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def train_layout(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    layout: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the network that draws lesion maps by ICDR grade."""
    from components.runner import run_component

    inputs = {"cohort": cohort}
    outputs = {"layout": layout, "training": training, "metrics": metrics}
    run_component("train_layout", stage, params, inputs, outputs)
