"""Kubeflow component of ``autoencode``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def autoencode(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    autoencoder: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fit or fetch the autoencoder and measure what it keeps of vessels and lesions."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "validation": validation}
    outputs = {"autoencoder": autoencoder, "metrics": metrics}
    run_component("autoencode", stage, params, inputs, outputs)
