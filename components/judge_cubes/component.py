"""Kubeflow component of ``judge_cubes``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def judge_cubes(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    judgement: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    baseline: dsl.Input[dsl.Model] = None,
) -> None:
    """Judge synthetic cubes against real ones: distribution, spectra, diversity, copies, oxygen saturation."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic, "autoencoder": autoencoder, "baseline": baseline}
    outputs = {"judgement": judgement, "metrics": metrics}
    run_component("judge_cubes", stage, params, inputs, outputs)
