"""Kubeflow component of ``draw_synthetic_cubes``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def draw_synthetic_cubes(
    stage: str,
    params: dict,
    generator: dsl.Input[dsl.Model],
    synthetic: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Draw the synthetic cohort of hyperspectral cubes."""
    from components.runner import run_component

    inputs = {"generator": generator}
    outputs = {"synthetic": synthetic, "metrics": metrics}
    run_component("draw_synthetic_cubes", stage, params, inputs, outputs)
