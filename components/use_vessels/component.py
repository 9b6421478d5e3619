"""Kubeflow component of ``use_vessels``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def use_vessels(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    use: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Vessel segmenters trained on real, real and synthetic, or synthetic eyes, judged on the same real eyes."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic}
    outputs = {"use": use, "metrics": metrics}
    run_component("use_vessels", stage, params, inputs, outputs)
