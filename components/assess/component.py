"""Kubeflow component of ``assess``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def assess(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    assessment: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    generator: dsl.Input[dsl.Model] = None,
) -> None:
    """Realism, diversity, memorisation and control of synthetic eyes, each beside what real eyes score."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "synthetic": synthetic, "generator": generator}
    outputs = {"assessment": assessment, "metrics": metrics}
    run_component("assess", stage, params, inputs, outputs)
