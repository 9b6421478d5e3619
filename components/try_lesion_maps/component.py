"""Kubeflow component of ``try_lesion_maps``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def try_lesion_maps(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    trial: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train graders and segmenters with and without synthetic eyes on folds of patients, judge on test eyes."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic}
    outputs = {"trial": trial, "metrics": metrics}
    run_component("try_lesion_maps", stage, params, inputs, outputs)
