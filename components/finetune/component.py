"""Kubeflow component of ``finetune``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def finetune(
    stage: str,
    params: dict,
    latents: dsl.Input[dsl.Dataset],
    pretrained: dsl.Input[dsl.Model],
    generator: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Stage 3: go on at high resolution with curated pairs only."""
    from components.runner import run_component

    inputs = {"latents": latents, "pretrained": pretrained}
    outputs = {"generator": generator, "log": log, "metrics": metrics}
    run_component("finetune", stage, params, inputs, outputs)
