"""Kubeflow component of ``report_lesion_maps``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("cpu"), install_kfp_package=False)
def report_lesion_maps(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    judgement: dsl.Input[dsl.Artifact],
    trial: dsl.Input[dsl.Artifact],
    layout_training: dsl.Input[dsl.Artifact],
    render_training: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    shown: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page of lesion maps: pictures, curves, tables with intervals, gates."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {
        "cohort": cohort,
        "synthetic": synthetic,
        "judgement": judgement,
        "trial": trial,
        "layout_training": layout_training,
        "render_training": render_training,
    }
    outputs = {"report": report, "metrics": metrics}
    run_component("report_lesion_maps", stage, params, inputs, outputs)
    show_file(report, "index.html", shown)
