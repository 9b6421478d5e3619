"""Kubeflow component of ``judge_vessels``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def judge_vessels(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    segmenter: dsl.Input[dsl.Model],
    paint: dsl.Input[dsl.Model],
    judgement: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Anatomy of drawn vessels beside real ones, agreement of mask and photograph, realism with its floor."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic, "segmenter": segmenter, "paint": paint}
    outputs = {"judgement": judgement, "metrics": metrics}
    run_component("judge_vessels", stage, params, inputs, outputs)
