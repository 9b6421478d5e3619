"""Kubeflow component of ``report_vessels``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("cpu"), install_kfp_package=False)
def report_vessels(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    grid: dsl.Input[dsl.Artifact],
    judgement: dsl.Input[dsl.Artifact],
    use: dsl.Input[dsl.Artifact],
    segmenter: dsl.Input[dsl.Artifact],
    masks_log: dsl.Input[dsl.Artifact],
    paint_log: dsl.Input[dsl.Artifact],
    enlarge_log: dsl.Input[dsl.Artifact],
    segmenter_log: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    shown: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page of vessel maps: grid, curves, tables with intervals, gates."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {
        "cohort": cohort,
        "synthetic": synthetic,
        "grid": grid,
        "judgement": judgement,
        "use": use,
        "segmenter": segmenter,
        "masks_log": masks_log,
        "paint_log": paint_log,
        "enlarge_log": enlarge_log,
        "segmenter_log": segmenter_log,
    }
    outputs = {"report": report, "metrics": metrics}
    run_component("report_vessels", stage, params, inputs, outputs)
    show_file(report, "index.html", shown)
