"""Kubeflow component of ``label_vessels``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def label_vessels(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    segmenter: dsl.Input[dsl.Model],
    labelled: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Artery and vein maps for eyes whose own maps do not tell them apart."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "segmenter": segmenter}
    outputs = {"labelled": labelled, "metrics": metrics}
    run_component("label_vessels", stage, params, inputs, outputs)
