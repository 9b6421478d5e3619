"""Kubeflow component of ``segment_vessels``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def segment_vessels(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    segmenter: dsl.Output[dsl.Model],
    log: dsl.Output[dsl.Artifact],
    quality: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the artery and vein segmenter and state its quality on real test splits."""
    from components.runner import run_component

    inputs = {"cohort": cohort}
    outputs = {"segmenter": segmenter, "log": log, "quality": quality, "metrics": metrics}
    run_component("segment_vessels", stage, params, inputs, outputs)
