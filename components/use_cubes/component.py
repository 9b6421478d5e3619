"""Kubeflow component of ``use_cubes``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def use_cubes(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    use: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Pre-train on real, synthetic or both kinds of cubes, and tell a biomarker from few labels."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic}
    outputs = {"use": use, "metrics": metrics}
    run_component("use_cubes", stage, params, inputs, outputs)
