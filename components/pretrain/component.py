"""Kubeflow component of ``pretrain``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def pretrain(
    stage: str,
    params: dict,
    latents: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    generator: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Stage 1: train the generator on all captioned images at low resolution."""
    from components.runner import run_component

    inputs = {"latents": latents, "autoencoder": autoencoder}
    outputs = {"generator": generator, "log": log, "metrics": metrics}
    run_component("pretrain", stage, params, inputs, outputs)
