"""Kubeflow component of ``report``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("cpu"), install_kfp_package=False)
def report(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    curated: dsl.Input[dsl.Dataset],
    synthetic: dsl.Input[dsl.Dataset],
    assessment: dsl.Input[dsl.Artifact],
    classification: dsl.Input[dsl.Artifact],
    validation: dsl.Input[dsl.Artifact],
    validation_captions: dsl.Input[dsl.Artifact],
    pretrain_log: dsl.Input[dsl.Artifact],
    finetune_log: dsl.Input[dsl.Artifact],
    purification: dsl.Input[dsl.Metrics],
    ablation: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    shown: dsl.Output[dsl.HTML],
) -> None:
    """One HTML page: pictures, curves, tables with intervals, gates."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {
        "cohort": cohort,
        "captions": captions,
        "curated": curated,
        "synthetic": synthetic,
        "assessment": assessment,
        "classification": classification,
        "validation": validation,
        "validation_captions": validation_captions,
        "pretrain_log": pretrain_log,
        "finetune_log": finetune_log,
        "purification": purification,
        "ablation": ablation,
    }
    outputs = {"report": report, "metrics": metrics}
    run_component("report", stage, params, inputs, outputs)
    show_file(report, "index.html", shown)
