"""Node pools by name, of infra/pools.yaml, and a task put on one."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from kfp import dsl, kubernetes
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components import ROOT
from components.launcher import Expression
from components.preflight.step import PoolNeed, Toleration
from pipelines.workflows import stage_names
from retinalogos.errors import UsageError

FILE = ROOT / "infra" / "pools.yaml"
LABEL = "retinalogos.io/pool"
PREFLIGHT = "preflight"
# A node of a spot pool may go several times in a training of days, and the pauses let the pool find another. Kubeflow
# does not tell that from an error of the task, so that one is tried as often: an hour in all.
_SPOT_RETRIES, _FIRST_PAUSE, _LONGEST_PAUSE = 10, "30s", "600s"


class Pool(BaseModel):
    """Nodes of a kind, and what a pod gets there.

    Attributes:
        accelerator, count: resource name, such as nvidia.com/gpu, and how many of it a pod gets.
        cpu, memory: of a pod, requested and limit, as Kubernetes writes it.
        shared_memory: size of /dev/shm, which the processes of a training share; of the memory.
        selector, tolerations, affinity: which nodes.
        spot: nodes may be taken away: a task is tried again, and a training goes on from its last checkpoint.
        from_zero: nodes are made on demand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: str | None = None
    count: int = Field(default=0, ge=0)
    cpu: str = Field(pattern=r"^\d+(\.\d+)?m?$")
    memory: str = Field(pattern=r"^\d+(\.\d+)?[KMGT]i?$")
    shared_memory: str | None = Field(default=None, pattern=r"^\d+(\.\d+)?[KMGT]i?$")
    selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[Expression, ...] = ()
    spot: bool = False
    from_zero: bool = False

    @model_validator(mode="after")
    def _counted(self) -> "Pool":
        if (self.accelerator is None) != (self.count == 0):
            raise ValueError("accelerator and count go together")
        return self

    def need(self, pods: int) -> PoolNeed:
        """What the pre-flight step is to look for."""
        names = {"accelerator", "count", "cpu", "memory", "selector", "tolerations", "from_zero"}
        return PoolNeed(pods=pods, **self.model_dump(include=names))


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    pools: dict[str, Pool]
    default: str
    groups: dict[str, tuple[str, ...]]
    presets: dict[str, dict[str, str]]


def read(path: Path = FILE) -> _File:
    """The pools that there are.

    Raises:
        UsageError: the file names an unknown field, pool or stage, or a value does not fit.
    """
    try:
        found = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {error}") from None
    except ValidationError as error:
        raise UsageError("; ".join(_complaint(path, detail) for detail in error.errors())) from None
    known = {PREFLIGHT, *stage_names()}
    for group, stages in found.groups.items():
        for stage in stages:
            if stage not in known and "*" not in stage:
                raise UsageError(f"{path}: group {group}: no stage is called {stage!r}")
    for pool in [found.default, *(pool for chosen in found.presets.values() for pool in chosen.values())]:
        _known_pool(found, pool)
    return found


def _complaint(path: Path, detail: Any) -> str:
    *where, last = (str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        kind = Pool if where[:1] == ["pools"] and len(where) == 2 else None
        fields = f"; it has {', '.join(kind.model_fields)}" if kind else ""
        return f"{path}: {'.'.join(where) or 'the file'} has no field {last!r}{fields}"
    return f"{path}: {'.'.join([*where, last])}: {detail['msg'].removeprefix('Value error, ')}"


def _known_pool(file: _File, name: str) -> Pool:
    if name not in file.pools:
        raise UsageError(f"no pool is called {name!r}; infra/pools.yaml has {', '.join(file.pools)}")
    return file.pools[name]


def default(path: Path = FILE) -> tuple[str, Pool]:
    """Name and pool of what nothing else is said of."""
    file = read(path)
    return file.default, file.pools[file.default]


def choose(preset: str, chosen: Iterable[str], path: Path = FILE) -> dict[str, tuple[str, Pool]]:
    """Name and pool of every stage: the file's default, then what it has for the preset, then what was chosen.

    Args:
        preset: of the parameters.
        chosen: ``stage=pool`` or ``group=pool``, a later one before an earlier.

    Raises:
        UsageError: a pool, stage or group does not exist.
    """
    file = read(path)
    stages = [PREFLIGHT, *stage_names()]
    placed = dict.fromkeys(stages, file.default)
    pairs = list(file.presets.get(preset, {}).items())
    for word in chosen:
        who, equals, pool = word.partition("=")
        if not (who and equals):
            raise UsageError(f"pool {word!r} should be stage=pool, such as train=h100x8")
        pairs.append((who, pool))
    for who, pool in pairs:
        if who not in file.groups and who not in stages:
            raise UsageError(
                f"no stage or group is called {who!r}; groups are {', '.join(file.groups)}, stages {', '.join(stages)}"
            )
        _known_pool(file, pool)
        words = file.groups.get(who, (who,))
        placed |= {stage: pool for stage in stages if any(fnmatchcase(stage, word) for word in words)}
    return {stage: (pool, file.pools[pool]) for stage, pool in placed.items()}


def place(task: dsl.PipelineTask, name: str, pool: Pool) -> None:
    """Puts a task on a pool."""
    for size in (task.set_cpu_request, task.set_cpu_limit):
        size(pool.cpu)
    for size in (task.set_memory_request, task.set_memory_limit):
        size(pool.memory)
    if pool.accelerator:
        task.set_accelerator_type(pool.accelerator).set_accelerator_limit(pool.count)
    if pool.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=pool.shared_memory)
    for key, value in pool.selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in pool.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    # The required ones together: Kubernetes takes a node that fulfils one of several terms.
    required = [one.model_dump(exclude={"weight"}) for one in pool.affinity if one.weight is None]
    if required:
        kubernetes.add_node_affinity(task, match_expressions=required)
    for one in pool.affinity:
        if one.weight is not None:
            kubernetes.add_node_affinity(task, [one.model_dump(exclude={"weight"})], weight=one.weight)
    if pool.spot:
        task.set_retry(_SPOT_RETRIES, _FIRST_PAUSE, 2.0, _LONGEST_PAUSE)
    kubernetes.add_pod_label(task, LABEL, name)
