"""Who moved the alias of a registered model, when and why, and moving it back.

Each move leaves a tag ``audit.<time>`` on the version that the alias went to. Tags are added and never changed, so that
they are the whole history, whatever happens to the alias later.
"""

import datetime
import getpass
import json
import os
import socket
from pathlib import Path
from typing import Any

from retinalogos.errors import UsageError

AUDIT = "audit."
# A version with this tag is not promoted again by itself; its value says why.
WITHDRAWN = "withdrawn"
LINEAGE = "lineage.json"
# What makes a folder a generator; it says of what kind.
INDEX = "model_index.json"
# Kind of a generator → what it is called, and the command that draws with it.
COMMANDS = {
    "TextToFundusPipeline": ("text", "generate"),
    "LesionMapPipeline": ("lesion-map", "lesion-map"),
    "VesselMapCascade": ("vessel-map", "vessel-map"),
    "CubePipeline": ("hyperspectral", "hyperspectral"),
}


def check_kind(folder: Path, kind: str) -> None:
    """Refuses the folder of a generator of another known kind; a folder that says nothing is left to who loads it.

    Args:
        folder: of a generator.
        kind: name of the class that is to load it.

    Raises:
        UsageError: its ``model_index.json`` names another class.
    """
    try:
        found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if found != kind and found in COMMANDS:
        name, command = COMMANDS[found]
        raise UsageError(
            f"{folder} holds a {name} generator, and a {COMMANDS[kind][0]} generator is needed: "
            f"draw with `retinalogos {command}`, or give another --model"
        )


def mover() -> str:
    """Who acts: user and machine, and on Kubeflow the run."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without names of users
        user = f"user {os.getuid()}"
    run = os.environ.get("MLFLOW_RUN_ID")
    return f"{user}@{socket.gethostname()}" + (f", run {run}" if run else "")


def move_alias(client: Any, name: str, alias: str, version: str, why: str) -> None:
    """Points the alias to a version and notes it there.

    Args:
        client: ``mlflow.MlflowClient``.
        name: registered model.
        alias: of it.
        version: to point to.
        why: reason, in words.
    """
    record = {"alias": alias, "from": holder(client, name, alias), "to": version, "by": mover(), "why": why}
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    client.set_registered_model_alias(name, alias, version)
    client.set_model_version_tag(name, version, f"{AUDIT}{at}", json.dumps(record, ensure_ascii=False))


def holder(client: Any, name: str, alias: str) -> str | None:
    """Version that the alias points to; None where there is no such model or alias."""
    held = (model.aliases.get(alias) for model in client.search_registered_models(f"name='{name}'"))
    return next((str(version) for version in held if version is not None), None)


def moves(client: Any, name: str, alias: str) -> list[dict[str, Any]]:
    """All moves of the alias from the first: ``at``, ``from``, ``to``, ``by``, ``why``."""
    found = []
    for entry in client.search_model_versions(f"name='{name}'"):
        for key, value in entry.tags.items():
            if key.startswith(AUDIT):
                found.append({"at": key.removeprefix(AUDIT), **json.loads(value)})
    return sorted((record for record in found if record["alias"] == alias), key=lambda record: record["at"])


def roll_back(client: Any, name: str, alias: str, to: str | None, why: str) -> tuple[str, str]:
    """Points the alias to an earlier version, and marks the one it leaves so that it is not promoted again by itself.

    Args:
        client: ``mlflow.MlflowClient``.
        name: registered model.
        alias: of it.
        to: version to go to; None for the one that the alias came from.
        why: reason, in words.

    Returns:
        The version left and the version that the alias points to now.

    Raises:
        UsageError: there is no version to leave or to go to, or that one did not pass its gates.
    """
    now = holder(client, name, alias)
    if now is None:
        raise UsageError(f"no version of {name} is {alias}: there is nothing to roll back")
    if to is None:
        to = next((record["from"] for record in reversed(moves(client, name, alias)) if record["to"] == now), None)
        if to is None:
            raise UsageError(f"version {now} of {name} is the first {alias}: name the version to go to with --to")
    versions = {str(entry.version): entry for entry in client.search_model_versions(f"name='{name}'")}
    if to not in versions:
        raise UsageError(f"{name} has no version {to}; there are {', '.join(sorted(versions, key=int))}")
    target = versions[to]
    if str(target.version) == now:
        raise UsageError(f"version {now} of {name} is {alias} already")
    if target.tags.get("gates_passed") != "true":
        failed = [value for key, value in sorted(target.tags.items()) if key.startswith("gate.") and " failed" in value]
        raise UsageError(f"version {to} of {name} did not pass its gates: {'; '.join(failed) or 'none is recorded'}")
    if WITHDRAWN in target.tags:
        client.delete_model_version_tag(name, str(target.version), WITHDRAWN)
    client.set_model_version_tag(name, now, WITHDRAWN, why)
    move_alias(client, name, alias, str(target.version), f"rolled back from version {now}: {why}")
    return now, str(target.version)
