"""Kubeflow components of ``search_cubes``, which pods do together; the work is in run.py.

`deal_points` gives each pod its share of the autoencoders, `search_cubes` makes their points, and `join_points` times
all of them on one machine and writes what the step writes where it runs alone.
"""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def deal_points(params: dict) -> list[dict]:
    """The parameters of each pod: those of the step, and the autoencoders that are its share."""
    from components.pods import shares
    from components.runner import check_params, from_kubeflow
    from components.search_cubes.step import STEP, SearchCubesParams

    found = check_params(STEP, from_kubeflow(params))
    assert isinstance(found, SearchCubesParams)
    # A search that is not made is one pod's.
    dealt = shares(found.pods if found.enabled else 1, len(found.autoencoders))
    return [{**params, "share": list(share)} for share in dealt]


@dsl.component(base_image=image(), install_kfp_package=False)
def search_cubes(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    generator: dsl.Input[dsl.Model],
    synthetic: dsl.Input[dsl.Dataset],
    judgement: dsl.Input[dsl.Artifact],
    search: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """The grid of compression, latent channels and base channels: quality against sampling speed."""
    from components.runner import run_component

    inputs = {
        "cohort": cohort,
        "autoencoder": autoencoder,
        "generator": generator,
        "synthetic": synthetic,
        "judgement": judgement,
    }
    outputs = {"search": search, "metrics": metrics}
    run_component("search_cubes", stage, params, inputs, outputs)


@dsl.component(base_image=image(), install_kfp_package=False)
def join_points(
    stage: str,
    params: dict,
    cohort: dsl.Input[dsl.Dataset],
    autoencoder: dsl.Input[dsl.Model],
    generator: dsl.Input[dsl.Model],
    synthetic: dsl.Input[dsl.Dataset],
    judgement: dsl.Input[dsl.Artifact],
    parts: dsl.Input[list[dsl.Artifact]],
    search: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """The points of all pods timed on one machine and compared."""
    from pathlib import Path

    from components.runner import run_component
    from components.search_cubes.step import joining

    inputs = {
        "cohort": cohort,
        "autoencoder": autoencoder,
        "generator": generator,
        "synthetic": synthetic,
        "judgement": judgement,
    }
    outputs = {"search": search, "metrics": metrics}
    run_component(joining([Path(part.path) for part in parts]), stage, params, inputs, outputs)
