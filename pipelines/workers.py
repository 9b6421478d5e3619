"""Workers of a TrainJob: the node pool that was chosen for a training goes to them, as parameters of its stage.

The task itself asks for no accelerator and only waits. Nothing here imports kfp, so that a pod can hand over too.
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
    """The settings that give the workers their pools.

    Args:
        values: composed parameters.
        pools: ``FIELDS`` of the pool by stage.
    """
    return tuple(f"{stage}.launcher.trainjob.pool={json.dumps(pools[stage])}" for stage in launched(values))
