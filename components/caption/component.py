"""Kubeflow components of ``caption``, which pods do together; the work is in step.py.

`deal_shards` gives each pod its share of the shards, `caption` captions a share, and `join_captions` makes of them what
the step writes where it runs alone.
"""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def deal_shards(params: dict, cohort: dsl.Input[dsl.Dataset]) -> list[dict]:
    """The parameters of each pod: those of the step, and the shards that are its share."""
    from components.caption.step import STEP
    from components.pods import shares
    from components.runner import check_params, from_kubeflow
    from retinalogos.cohort.shards import Cohort

    check_params(STEP, from_kubeflow(params))
    dealt = shares(int(params["pods"]), len(Cohort(cohort.path).shards))
    return [{**params, "shards": list(share)} for share in dealt]


@dsl.component(base_image=image(), install_kfp_package=False)
def caption(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    captions: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Captions of every eye, several wordings, within the text encoder's token budget."""
    from components.runner import run_component

    inputs = {"cohort": cohort, "validation": validation}
    outputs = {"captions": captions, "page": page, "metrics": metrics}
    run_component("caption", stage, params, inputs, outputs)


@dsl.component(base_image=image(), install_kfp_package=False)
def join_captions(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    validation: dsl.Input[dsl.Artifact],
    parts: dsl.Input[list[dsl.Dataset]],
    captions: dsl.Output[dsl.Dataset],
    page: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    shown: dsl.Output[dsl.HTML],
) -> None:
    """The captions of all pods as one folder, the same bytes as of one pod alone."""
    from pathlib import Path

    from components.caption.step import joining
    from components.runner import run_component
    from components.shown import show_file

    inputs = {"cohort": cohort, "validation": validation}
    outputs = {"captions": captions, "page": page, "metrics": metrics}
    run_component(joining([Path(part.path) for part in parts]), stage, params, inputs, outputs)
    show_file(page, "index.html", shown)
