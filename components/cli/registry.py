"""Models of the MLflow registry: which one draws, where it comes from, and back to an earlier one.

``lineage``, ``rollback``.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinalogos.arguments import Commands
from retinalogos.errors import DataError, UsageError
from retinalogos.registry import INDEX, LINEAGE, WITHDRAWN, moves, roll_back

CHAMPION = "models:/retinalogos-text@champion"
# Where `make run` tracks.
DEFAULT_TRACKING = "sqlite:///mlflow.db"
# What `make run` leaves, whether it passed the gates or not.
LAST_TRAINED = Path("models/generator")

_LINEAGE = """\
Tells where a model comes from: its version in the registry, by whom and why it was made champion, and from step to step
back to the source data, each with the hash of its output. A folder that a step wrote has a lineage too.

examples:
  retinalogos lineage models:/retinalogos-text@champion
  retinalogos lineage models/generator --parameters
"""

_ROLLBACK = """\
Points the alias to the version that it came from, or to --to, which must have passed its gates. The version it leaves
is marked, so that `register` does not promote it again. Who did it, when and why stays in the version's tags.

example:
  retinalogos rollback --why "discs are drawn twice"
"""


def add_commands(commands: Commands) -> None:
    """Adds `lineage` and `rollback`."""
    lineage = commands.add_parser("lineage", help="where a model comes from", description=_LINEAGE)
    lineage.add_argument("model", metavar="DIR_OR_URI", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder")
    lineage.add_argument("--parameters", action="store_true", help="tell those of every step")
    lineage.set_defaults(run=_lineage)
    rollback = commands.add_parser("rollback", help="point an alias to an earlier version", description=_ROLLBACK)
    name, _, alias = CHAMPION.removeprefix("models:/").partition("@")
    rollback.add_argument("--name", default=name, help=f"registered model (default {name})")
    rollback.add_argument("--alias", default=alias, help=f"of it (default {alias})")
    rollback.add_argument("--to", metavar="VERSION", help="version to go to (default: the one that it came from)")
    rollback.add_argument("--why", required=True, metavar="TEXT", help="reason, which is kept")
    rollback.set_defaults(run=_rollback)


def models_known(champion: str, last: Path) -> str:
    """What ``--model`` may be, for --help; arguments as of :func:`resolve_model`."""
    return (
        "folder of a trained generator, or models:/NAME@ALIAS or models:/NAME/VERSION of the MLflow registry "
        f"(MLFLOW_TRACKING_URI, else {DEFAULT_TRACKING} here); default {champion}, and where there is no champion "
        f"{last} here"
    )


def resolve_model(model: str | None, champion: str = CHAMPION, last: Path = LAST_TRAINED) -> Path:
    """Folder of the generator that ``model`` names: a folder, or a ``models:/`` URI of the MLflow registry.

    Args:
        model: what was asked for; ``None``: the champion, and where there is none, ``last``, and that is said.
        champion: URI.
        last: what `make run` leaves, whether it passed the gates or not.

    Raises:
        UsageError: there is no such folder, registry, model or version, or the version holds no generator.
    """
    if model is None:
        try:
            return resolve_model(champion)
        except UsageError as error:
            if not (last / INDEX).is_file():
                train = "make run" if last == LAST_TRAINED else f"make run WORKFLOW={last.parent.name}"
                raise UsageError(
                    f"no generator was found: {last} is not there, and of the champion is said: {error}. `{train}` "
                    "trains one; or name one by --model, or set MLFLOW_TRACKING_URI"
                ) from None
        print(
            f"retinalogos: no champion here, so {last} draws: it did not pass every gate or was not judged to the end, "
            "see the page of `report`",
            file=sys.stderr,
        )
        return last
    if not model.startswith("models:/"):
        folder = Path(model)
        if not (folder / INDEX).is_file():
            raise UsageError(f"--model {model}: no generator there (it has no {INDEX})")
        return folder
    mlflow = _connect(f"--model {model}")
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model))
    except MlflowException as error:
        raise UsageError(f"--model {model}: {str(error).splitlines()[0]}") from None
    notes = sorted(folder.rglob("weights.json"))
    if notes:  # the weights are too large to travel in the model
        from retinalogos.storage import follow

        return follow(notes[0])
    found = sorted(path.parent for path in folder.rglob(INDEX))
    if not found:
        raise UsageError(f"--model {model}: this version holds no generator (no {INDEX} in it)")
    return found[0]


def _connect(asked: str) -> Any:
    """MLflow, pointed at MLFLOW_TRACKING_URI or at the database in this folder.

    Args:
        asked: what the registry is wanted for, for the error.

    Raises:
        UsageError: neither is there.
    """
    # Here and not above: MLflow takes a second to import.
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        database = Path(DEFAULT_TRACKING.removeprefix("sqlite:///"))
        if not database.is_file():
            raise UsageError(
                f"{asked}: no registry here ({database} not found); set MLFLOW_TRACKING_URI, or name a folder"
            )
        mlflow.set_tracking_uri(DEFAULT_TRACKING)
    return mlflow


def _lineage(arguments: argparse.Namespace) -> None:
    from retinalogos import lineage

    model = arguments.model
    if not model.startswith("models:/"):
        found = lineage.gather({model: Path(model)})
        if not found["outputs"]:
            raise UsageError(f"{model}: no step wrote this folder (it has no {lineage.MANIFEST})")
        print("\n".join(lineage.tell(found, model, arguments.parameters)))
        return
    client, entry = _version_of(model)
    print(f"{model}: version {entry.version}")
    for key in ("generator_sha256", "cohort", "cohort_sha256", "software", "commit", "dvc_lock_sha256", "image"):
        print(f"  {key} = {entry.tags.get(key, 'not recorded')}")
    for key, value in sorted(entry.tags.items()):
        if key.startswith("gate.") or key in ("decision", WITHDRAWN):
            print(f"  {key}: {value}")
    _, at, alias = model.partition("@")
    for move in moves(client, entry.name, alias) if at else ():
        print(f"  {move['at']} {alias} {move['from'] or 'none'} → {move['to']} by {move['by']}: {move['why']}")
    registered = _registered_lineage(entry)
    for name in registered["outputs"]:
        print("\n".join(lineage.tell(registered, name, arguments.parameters)))


def _version_of(model: str) -> tuple[Any, Any]:
    """MLflow's client and the version that a ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names.

    Raises:
        UsageError: there is no registry or no such version.
    """
    mlflow = _connect(model)
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    name, at, alias = model.removeprefix("models:/").partition("@")
    try:
        if at:
            return client, client.get_model_version_by_alias(name, alias)
        name, _, number = name.partition("/")
        return client, client.get_model_version(name, number)
    except MlflowException as error:
        raise UsageError(f"{model}: {str(error).splitlines()[0]}") from None


def _registered_lineage(entry: Any) -> Mapping[str, Any]:
    """What :func:`retinalogos.lineage.gather` found when the version was registered.

    Raises:
        DataError: the version was registered without it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = f"models:/{entry.name}/{entry.version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = mlflow.artifacts.download_artifacts(f"{uri}/artifacts/{LINEAGE}", dst_path=folder)
        except (MlflowException, OSError):
            raise DataError(f"{uri} holds no {LINEAGE}: it was registered before lineages were kept") from None
        lineage: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return lineage


def _rollback(arguments: argparse.Namespace) -> None:
    mlflow = _connect(f"rollback of {arguments.name}")
    client = mlflow.MlflowClient()
    left, now = roll_back(client, arguments.name, arguments.alias, arguments.to, arguments.why)
    print(f"{arguments.name}@{arguments.alias}: version {left} → {now}")
