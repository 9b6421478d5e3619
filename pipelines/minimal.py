"""The pipeline ``minimal``: its five parameters are those of ``make run``, and its first task composes all others."""

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from kfp import dsl

from components.image import image
from components.preflight.step import PoolNeed
from components.runner import to_kubeflow
from pipelines.cluster import Cluster
from pipelines.params import Choices


def words(choices: Choices, seed: int) -> dict[str, Any]:
    """The five parameters, and their defaults."""
    return {
        "preset": choices.preset,
        "cohort": choices.cohort or "",
        "data": choices.data or "",
        "seed": seed,
        "settings": shlex.join(choices.settings),
    }


def composed(
    given: Mapping[str, Any],
    cluster: Cluster | None,
    needs: Mapping[str, PoolNeed],
    handed_over: Mapping[str, Mapping[str, Any]],
) -> dsl.PipelineTask:
    """The task that composes the parameters of all stages."""
    fixed = {
        "cluster": cluster and cluster.model_dump(mode="json"),
        "pools": {name: need.model_dump(mode="json") for name, need in needs.items()},
        "workers": handed_over,
    }
    task: dsl.PipelineTask = compose_parameters(**given, fixed=to_kubeflow(fixed))
    # The data folder that it takes a fingerprint of may have changed.
    return task.set_caching_options(False)


# The fields are read off the text of this function, so they stand here in words; a test holds them to the graph.
@dsl.component(base_image=image(), install_kfp_package=False)
def compose_parameters(preset: str, cohort: str, data: str, seed: int, settings: str, fixed: dict) -> NamedTuple(  # type: ignore[valid-type]
    "Sections",
    [
        ("preflight", dict),
        ("ingest", dict),
        ("validate", dict),
        ("caption", dict),
        ("validate_captions", dict),
        ("autoencode", dict),
        ("encode", dict),
        ("pretrain", dict),
        ("purify", dict),
        ("encode_curated", dict),
        ("finetune", dict),
        ("augment", dict),
        ("assess", dict),
        ("ablate", dict),
        ("classify", dict),
        ("report", dict),
        ("register", dict),
    ],
):
    """Parameters of every stage, from a preset, a data set, a seed and single settings."""
    from pipelines.sections import sections

    return sections(preset, cohort, data, seed, settings, fixed)
