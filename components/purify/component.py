"""Kubeflow component of ``purify``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def purify(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    curated: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    shown: dsl.Output[dsl.HTML],
    latents: dsl.Input[dsl.Dataset] = None,
    generator: dsl.Input[dsl.Model] = None,
) -> None:
    """Stage 2: drop captions that break a rule, do not agree with their image, or are of a poor one."""
    from components.runner import run_component
    from components.shown import show_file

    inputs = {"cohort": cohort, "captions": captions, "latents": latents, "generator": generator}
    outputs = {"curated": curated, "page": page, "metrics": metrics}
    run_component("purify", stage, params, inputs, outputs)
    show_file(page, "index.html", shown)
