"""Kubeflow component of ``encode``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def encode(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    latents: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    validation: dsl.Input[dsl.Artifact] = None,
    known: dsl.Input[dsl.Artifact] = None,
) -> None:
    """Latents of the images and features of their captions, keyed by image."""
    from components.runner import run_component

    inputs = {
        "cohort": cohort,
        "captions": captions,
        "autoencoder": autoencoder,
        "validation": validation,
        "known": known,
    }
    outputs = {"latents": latents, "metrics": metrics}
    run_component("encode", stage, params, inputs, outputs)
