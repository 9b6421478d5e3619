"""``lesion-map``, ``vessel-map``, ``hyperspectral``: commands of generators, which find theirs in the registry too."""

from functools import partial
from pathlib import Path

from components.cli.registry import models_known, resolve_model
from retinalogos.arguments import Commands
from retinalogos.generators.hyperspectral import command as hyperspectral
from retinalogos.generators.lesion_map import command as lesion_map
from retinalogos.generators.vessel_map import command as vessel_map

# By the workflow that trains them: it names the registered model, and the folder that `make run WORKFLOW=NAME` leaves.
COMMANDS = {
    "lesion_map": lesion_map.add_commands,
    "vessel_map": vessel_map.add_commands,
    "hyperspectral": hyperspectral.add_commands,
}


def add_commands(commands: Commands) -> None:
    """Adds those of each workflow that has a generator of its own."""
    for workflow, add in COMMANDS.items():
        champion = f"models:/retinalogos-{workflow.replace('_', '-')}@champion"
        last_trained = Path("models", workflow, "generator")
        find = partial(resolve_model, champion=champion, last=last_trained)
        add(commands, find, models_known(champion, last_trained))
