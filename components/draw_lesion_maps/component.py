"""Kubeflow component of ``draw_lesion_maps``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def draw_lesion_maps(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    layout: dsl.Input[dsl.Model],
    render: dsl.Input[dsl.Model],
    generator: dsl.Output[dsl.Model],
    synthetic: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Draw lesion maps by grade and their photographs as a synthetic cohort."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "layout": layout, "render": render}
    outputs = {"generator": generator, "synthetic": synthetic, "metrics": metrics}
    run_component("draw_lesion_maps", stage, params, inputs, outputs)
