"""Kubeflow component of ``judge_lesion_maps``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def judge_lesion_maps(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    generator: dsl.Input[dsl.Model],
    judgement: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Judge drawn maps and photographs: lesions by grade, grade read back, lesions found again, FID, edits."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic, "generator": generator}
    outputs = {"judgement": judgement, "metrics": metrics}
    run_component("judge_lesion_maps", stage, params, inputs, outputs)
