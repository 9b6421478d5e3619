"""``lesion-map``: the commands of the lesion-map generator, which find it in the MLflow registry too."""

from pathlib import Path

from components.cli.registry import DEFAULT_TRACKING, resolve_model
from retinalogos.arguments import Commands
from retinalogos.generators.lesion_map import command

CHAMPION = "models:/retinalogos-lesion-map@champion"
# What `make run WORKFLOW=lesion_map` leaves.
LAST_TRAINED = Path("models/lesion_map/generator")
_ABOUT = (
    "folder of a trained generator, or models:/NAME@ALIAS or models:/NAME/VERSION of the MLflow registry "
    f"(MLFLOW_TRACKING_URI, else {DEFAULT_TRACKING} here); default {CHAMPION}, and where there is no champion "
    f"{LAST_TRAINED} here"
)


def add_commands(commands: Commands) -> None:
    """Adds ``lesion-map``."""
    command.add_commands(commands, lambda model: resolve_model(model, CHAMPION, LAST_TRAINED), _ABOUT)
