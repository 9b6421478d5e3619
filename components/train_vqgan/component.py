"""Kubeflow component of ``train_vqgan``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def train_vqgan(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the vector-quantised autoencoder of hyperspectral cubes, with an adversary or without."""
    from components.runner import run_component

    inputs = {"cohort": cohort}
    outputs = {"autoencoder": autoencoder, "log": log, "metrics": metrics}
    run_component("train_vqgan", stage, params, inputs, outputs)
