"""The processes of a training on the node pool that was chosen for it, as parameters of its stage.

On a machine of several accelerators there is one for each. The workers of a TrainJob get the pool itself; the task asks
for no accelerator then and only waits. Nothing here imports kfp, so that a pod can hand over too.
"""

import json
from collections.abc import Mapping
from typing import Any

from components.launcher import Pool

FIELDS = set(Pool.model_fields)


def launchers(values: Mapping[str, Any]) -> dict[str, str]:
    """Who starts the processes of each stage that can train on several machines, of composed parameters."""
    sections = {stage: section for stage, section in values.items() if isinstance(section, dict)}
    return {stage: section["launcher"]["kind"] for stage, section in sections.items() if "launcher" in section}


def launched(values: Mapping[str, Any]) -> list[str]:
    """The stages whose work a TrainJob does, of composed parameters."""
    return [stage for stage, kind in launchers(values).items() if kind == "trainjob"]


def handed_over(values: Mapping[str, Any], pools: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings that follow from the pools of trainings.

    Args:
        values: composed parameters.
        pools: ``FIELDS`` of the pool by stage.
    """
    workers = (f"{stage}.launcher.trainjob.pool={json.dumps(pools[stage])}" for stage in launched(values))
    # One process would leave all accelerators of its machine but one idle.
    alone = [stage for stage, kind in launchers(values).items() if kind == "local" and pools[stage]["count"] > 1]
    several = [stage for stage in alone if _divides(values[stage], pools[stage]["count"])]
    return (*workers, *(f"{stage}.launcher.kind=torchrun" for stage in several))


def _divides(section: Mapping[str, Any], processes: int) -> bool:
    """Whether so many processes can share a batch; that of what `ablate` repeats stands in a manifest, unknown here."""
    return "batch_size" in section and section["batch_size"] % (processes * section["pieces"]) == 0
