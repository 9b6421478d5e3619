"""Kubeflow component of ``train_cube_diffusion``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def train_cube_diffusion(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    generator: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the diffusion in the latents of hyperspectral cubes."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "autoencoder": autoencoder}
    outputs = {"generator": generator, "log": log, "metrics": metrics}
    run_component("train_cube_diffusion", stage, params, inputs, outputs)
