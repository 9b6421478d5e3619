"""``hyperspectral``: the commands of the generator of cubes, which find it in the MLflow registry too."""

from pathlib import Path

from components.cli.registry import DEFAULT_TRACKING, resolve_model
from retinalogos.arguments import Commands
from retinalogos.generators.hyperspectral import command

CHAMPION = "models:/retinalogos-hyperspectral@champion"
# What `make run WORKFLOW=hyperspectral` leaves.
LAST_TRAINED = Path("models/hyperspectral/generator")
_ABOUT = (
    "folder of a trained generator, or models:/NAME@ALIAS or models:/NAME/VERSION of the MLflow registry "
    f"(MLFLOW_TRACKING_URI, else {DEFAULT_TRACKING} here); default {CHAMPION}, and where there is no champion "
    f"{LAST_TRAINED} here"
)


def add_commands(commands: Commands) -> None:
    """Adds ``hyperspectral``."""
    command.add_commands(commands, lambda model: resolve_model(model, CHAMPION, LAST_TRAINED), _ABOUT)
