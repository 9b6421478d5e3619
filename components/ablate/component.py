"""Kubeflow component of ``ablate``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def ablate(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    known: dsl.Input[dsl.Dataset],
    pretrained: dsl.Input[dsl.Model],
    latents: dsl.Input[dsl.Dataset],
    log: dsl.Input[dsl.Artifact],
    synthetic: dsl.Input[dsl.Dataset],
    assessment: dsl.Input[dsl.Artifact],
    ablation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Stage 3 again without purification: trained, drawn from and assessed as the one with it."""
    from components.runner import run_component

    inputs = {
        "cohort": cohort,
        "captions": captions,
        "autoencoder": autoencoder,
        "known": known,
        "pretrained": pretrained,
        "latents": latents,
        "log": log,
        "synthetic": synthetic,
        "assessment": assessment,
    }
    outputs = {"ablation": ablation, "metrics": metrics}
    run_component("ablate", stage, params, inputs, outputs)
