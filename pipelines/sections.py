"""The parameters of all stages, composed in a pod. There kfp has no words for pipelines: nothing here imports it."""

import shlex
from collections.abc import Mapping
from typing import Any

from components.preflight.step import PoolNeed
from components.runner import from_kubeflow, to_kubeflow
from pipelines.cluster import Cluster
from pipelines.main_line import STAGES
from pipelines.params import Choices, compose, validate
from pipelines.preflight import asked
from pipelines.workers import handed_over


def sections(
    preset: str, cohort: str, data: str, seed: int, settings: str, fixed: Mapping[str, Any]
) -> tuple[dict[str, Any], ...]:
    """Parameters of the pre-flight step and of every stage, in the order of the graph, as Kubeflow carries them.

    Raises:
        UsageError: a preset, reader, section or parameter does not exist, or a value does not fit.
    """
    settled = from_kubeflow(fixed)
    cluster = settled["cluster"] and Cluster.model_validate(settled["cluster"])
    pools = {name: PoolNeed.model_validate(need) for name, need in settled["pools"].items()}
    several = (f"seed={seed}", *shlex.split(settings))
    choices = Choices(preset=preset, cohort=cohort or None, data=data or None, settings=several)
    values = compose(choices)
    if cluster:
        values = compose(choices.over((*cluster.settings(values), *handed_over(values, settled["workers"]))))
    validate(values)
    found = [asked(STAGES, values, cluster, pools), *(values[stage.name] for stage in STAGES)]
    return tuple(to_kubeflow(section) for section in found)
