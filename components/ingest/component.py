"""Kubeflow component of ``ingest``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("client"), install_kfp_package=False)
def ingest(
    stage: str,
    params: dict,
    cohort: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Reads a data set or draws the phantom, de-identifies, crops, judges, finds duplicates, splits by patient."""
    from components.runner import run_component

    inputs: dict[str, dsl.Artifact] = {}
    outputs = {"cohort": cohort, "metrics": metrics}
    run_component("ingest", stage, params, inputs, outputs)
