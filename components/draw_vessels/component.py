"""Kubeflow component of ``draw_vessels``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def draw_vessels(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    masks: dsl.Input[dsl.Model],
    paint: dsl.Input[dsl.Model],
    enlarge: dsl.Input[dsl.Model],
    generator: dsl.Output[dsl.Model],
    synthetic: dsl.Output[dsl.Dataset],
    grid: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Draw eyes: a vessel map, its photograph and the enlargement."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "masks": masks, "paint": paint, "enlarge": enlarge}
    outputs = {"generator": generator, "synthetic": synthetic, "grid": grid, "metrics": metrics}
    run_component("draw_vessels", stage, params, inputs, outputs)
