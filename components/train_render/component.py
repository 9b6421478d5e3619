"""Kubeflow component of ``train_render``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def train_render(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    render: dsl.Output[dsl.Model],
    training: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the network that turns a lesion map into a photograph."""
    from components.runner import run_component

    inputs = {"cohort": cohort}
    outputs = {"render": render, "training": training, "metrics": metrics}
    run_component("train_render", stage, params, inputs, outputs)
