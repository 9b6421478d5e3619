"""Kubeflow component of ``preflight``; the work is in step.py."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image(), install_kfp_package=False)
def preflight(stage: str, params: dict, metrics: dsl.Output[dsl.Metrics]) -> None:
    """Secrets, storage, tracking server, model hub, node pools and quota, before anything is computed."""
    import os

    from components.runner import run_component

    # Whether MLflow answers is a question here, and not what an answer waits for.
    os.environ["RETINALOGOS_TRACKING"] = "off"
    run_component("preflight", stage, params, {}, {"metrics": metrics})
