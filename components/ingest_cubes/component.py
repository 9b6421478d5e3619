"""Kubeflow component of ``ingest_cubes``; the work is in run.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def ingest_cubes(
    stage: str,
    params: dict,
    cohort: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Read or draw hyperspectral cubes, quarantine bad ones, split by patient."""
    from components.runner import run_component

    inputs: dict[str, dsl.Artifact] = {}
    outputs = {"cohort": cohort, "metrics": metrics}
    run_component("ingest_cubes", stage, params, inputs, outputs)
