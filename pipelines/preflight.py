"""What a run asks of its surroundings, read off its parameters: the parameters of the step ``preflight``."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from components.preflight.step import PoolNeed
from pipelines.cluster import Cluster
from pipelines.graph import Stage
from pipelines.workers import launched

# Seconds that a service has to answer: all are asked at the same time, so that the step ends within its first minute.
TIMEOUT_S = 10
# What names a model: step, parameter, and where it is not always read, the values of others with which it is.
_MODELS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    ("caption", "text_encoder", {}),
    ("caption", "transformers.model", {"engine": ("transformers",)}),
    ("autoencode", "name", {"engine": ("pretrained",)}),
    ("encode", "text_encoder", {}),
    ("pretrain", "backbone.pretrained", {}),
    ("purify", "clip.model", {"agreement": ("clip",)}),
    ("purify", "clip.text_model", {"agreement": ("clip",), "clip.loader": ("flair", "retizero")}),
    ("purify", "judge.transformers.model", {"judge.engine": ("transformers",)}),
    ("assess", "feature_spaces", {}),
    ("assess", "judge.backbone", {}),
    ("classify", "grader.backbone", {}),
    ("train_render", "loss.perceptual_network", {}),
    ("train_render", "features.backbone", {}),
    ("judge_lesion_maps", "grader.backbone", {}),
    ("try_lesion_maps", "grader.backbone", {}),
    ("judge_vessels", "feature_spaces", {}),
    ("train_vqgan", "perceptual.network", {}),
)
# What names a place in a store.
_ADDRESSES = ("shards_at", "weights_at")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def asked(
    stages: Collection[Stage], values: Mapping[str, Any], cluster: Cluster | None, pools: Mapping[str, PoolNeed]
) -> dict[str, Any]:
    """What is to be looked at before these stages run with these parameters.

    Args:
        stages: of the pipeline.
        values: parameters by stage.
        cluster: where it runs; None on this machine, where nothing is looked at.
        pools: what is asked of each pool.
    """
    sections = [(stage.step, values[stage.name]) for stage in stages]
    found: dict[str, Any] = {"secrets": [], "storage": [], "tracking": None, "models": [], "pools": {}, "runtimes": []}
    if cluster is not None:
        models = sorted(set(_models(sections)))
        published = {section.get(name) for _, section in sections for name in _ADDRESSES}
        storage = ({cluster.storage} | published) - {None}
        # A stage that asks a server, or one whose judge does.
        asking = [each for _, section in sections for each in (section, section.get("judge", {}))]
        remote = any(each.get("engine") == "server" and each["server"]["allow_remote"] for each in asking)
        wanted = {"storage": storage, "hub": models, "captions": remote}
        secrets = [secret for use, secret in cluster.secrets.items() if wanted[use]]
        found["secrets"] = sorted({variable for secret in secrets for variable in secret.keys})
        found["storage"], found["tracking"], found["models"] = sorted(storage), cluster.tracking, models
        jobs = launched({stage.name: values[stage.name] for stage in stages})
        found["runtimes"] = sorted({values[stage]["launcher"]["trainjob"]["runtime"] for stage in jobs})
        if cluster.pools_checked:
            found["pools"] = {name: need.model_dump(mode="json") for name, need in pools.items()}
    return {**found, "timeout_s": TIMEOUT_S}


def _models(sections: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    for (step, section), (reader, parameter, conditions) in product(sections, _MODELS):
        if step == reader and all(_value(section, name) in values for name, values in conditions.items()):
            value = _value(section, parameter)
            for name in value if isinstance(value, list) else [value]:
                if name and _HUB_NAME.fullmatch(name) and not Path(name).is_dir():
                    yield name


def _value(section: Mapping[str, Any], parameter: str) -> Any:
    return reduce(lambda values, key: values[key], parameter.split("."), section)
