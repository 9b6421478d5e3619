"""Kubeflow component of ``train_vessel_map``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def train_vessel_map(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train one of the diffusion models: vessel masks, photographs for masks, or their enlargement."""
    from components.runner import run_component

    inputs = {"cohort": cohort}
    outputs = {"model": model, "log": log, "metrics": metrics}
    run_component("train_vessel_map", stage, params, inputs, outputs)
