"""The parameters of a run: params.yaml, then a preset, then the cohort, then single settings.

What was chosen is kept in ``run/choices.yaml``, so that a bare ``dvc repro`` repeats it; what comes of it is
``run/params.yaml``, which the stages read. Workflows beside the main line have these files in folders of their own.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from components import ROOT
from components.runner import check_params, load_step
from pipelines.graph import MAIN
from pipelines.workflows import workflow_of
from retinalogos.errors import UsageError

# Of these the contents count for the fingerprint of a data set, of all others (images) the name and the size.
TABLES = (".csv", ".tsv", ".txt", ".json", ".yaml", ".yml", ".xlsx", ".xls")


class _Plain(yaml.SafeDumper):
    """Writes a value that stands in two places twice, rather than an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Choices(BaseModel):
    """What a run was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workflow: str = MAIN
    preset: str = "laptop"
    cohort: str | None = None
    data: str | None = None
    settings: tuple[str, ...] = ()

    def over(self, settings: Iterable[str]) -> "Choices":
        """The same, laid over settings that follow from elsewhere."""
        return self.model_copy(update={"settings": (*settings, *self.settings)})


def presets(workflow: str = MAIN) -> list[str]:
    """Names of the presets that are shipped for a workflow."""
    return sorted(path.stem for path in (ROOT / workflow_of(workflow).presets).glob("*.yaml"))


def compose(choices: Choices) -> dict[str, Any]:
    """The parameters of all stages: a section a stage, and the ``seed`` that they share.

    Raises:
        UsageError: a workflow, preset, reader, folder, section or parameter does not exist, or a value does not fit.
    """
    workflow, known = workflow_of(choices.workflow), presets(choices.workflow)
    values = _read(ROOT / workflow.params)
    if choices.preset not in known:
        raise UsageError(f"no preset is called {choices.preset!r}; the presets are {', '.join(known)}")
    _overlay(values, _read(ROOT / workflow.presets / f"{choices.preset}.yaml"))
    _overlay(values, _source(choices))
    settings: dict[str, Any] = {}
    for setting in choices.settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise UsageError(f"setting {setting!r} should be section.parameter=value")
        _set(settings, key, text)
    _overlay(values, settings)
    for name, section in values.items():
        if name != "seed" and not isinstance(section, dict):
            raise UsageError(f"{name} should be a section with a parameter a line, not {section!r}")
    ingest = values["ingest"]
    if ingest["mapping"] is not None and not Path(ingest["mapping"]).is_file():
        raise UsageError(
            f"ingest.mapping: {ingest['mapping']} is no file: give the YAML of the `table` reader, or a table of cubes"
        )
    if ingest["reader"] == "table" and ingest["mapping"] is None:
        raise UsageError("cohort table needs the YAML that maps its columns: set ingest.mapping=FILE.yaml")
    if ingest["source"] is not None and ingest.get("repository") is None:
        ingest["source_fingerprint"] = fingerprint(Path(ingest["source"]), ingest["mapping"])
    for entry in _external(values):
        if not Path(entry["source"]).is_dir():
            raise UsageError(f"external: {entry['source']} is not a folder: give that of the data set")
        entry["source_fingerprint"] = fingerprint(Path(entry["source"]), entry.get("mapping"))
    return values


def validate(values: Mapping[str, Any], workflow: str = MAIN) -> None:
    """Checks every section against the parameters of its step in a workflow.

    Raises:
        UsageError: a section is unknown or missing, a parameter is unknown, missing or out of range, or two do not fit.
    """
    stages = {stage.name: stage for stage in workflow_of(workflow).stages}
    unknown = sorted(values.keys() - stages.keys() - {"seed"})
    if unknown:
        raise UsageError(f"no stage is called {unknown[0]!r}; the stages are {', '.join(stages)}")
    for name, stage in stages.items():
        check_params(load_step(stage.step), values.get(name, {}), name)
    for encoding in [name for name in ("encode", "encode_curated") if name in values]:
        for name in ("text_encoder", "token_budget"):
            if values[encoding][name] != values["caption"][name]:
                raise UsageError(
                    f"{encoding}.{name} is {values[encoding][name]}, caption.{name} {values['caption'][name]}: "
                    "captions are written for the tokens that the encoder reads, so both must be the same"
                )


def write(choices: Choices) -> Path:
    """Writes what was chosen and the parameters that come of it, each only if valid and changed."""
    values = compose(choices)
    workflow = workflow_of(choices.workflow)
    path = ROOT / workflow.composed
    text = yaml.dump(values, Dumper=_Plain, sort_keys=False, allow_unicode=True)
    # What stands there was valid when it was written; to check it again means to import every step.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        validate(values, workflow.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link into DVC's cache
        path.write_text(text, encoding="utf-8")
    (ROOT / workflow.choices).write_text(
        yaml.safe_dump(choices.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
    )
    return path


def check_idle() -> None:
    """Refuses to change the parameters under a workflow that DVC is running here: its next stages would read them.

    Raises:
        UsageError: such a workflow is running.
    """
    try:
        # DVC notes there who reads and writes what: path → one process or a list of them.
        held = json.loads((ROOT / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    for entry in (entry for paths in held.values() for entry in paths.values()):
        for holder in entry if isinstance(entry, list) else [entry]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder["pid"], 0)  # signal 0 asks whether the process is there
                raise UsageError(
                    f"`dvc repro` (process {holder['pid']}) runs here and reads run/params.yaml: wait until it has "
                    "ended, or use another clone"
                )


def last_choices(workflow: str = MAIN) -> Choices:
    """What the last run of a workflow was asked for; the laptop preset on the phantom where there was none."""
    path = ROOT / workflow_of(workflow).choices
    return Choices.model_validate(_read(path)) if path.exists() else Choices(workflow=workflow)


def fingerprint(source: Path, mapping: str | None = None) -> str:
    """sha256 over names and sizes of all files of a data set and the contents of its tables.

    Reading every image would take minutes; an image that changes and keeps its exact size goes unnoticed.
    """
    digest = hashlib.sha256()
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in [*files, *([Path(mapping)] if mapping else [])]:
        name = path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name
        digest.update(f"{name}\0{path.stat().st_size}\n".encode())
        if path.suffix.lower() in TABLES:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _source(choices: Choices) -> dict[str, Any]:
    """The overlay that names the cohort's reader and folder."""
    if choices.cohort is None:
        if choices.data is not None:
            raise UsageError("a data folder is given without the name of its cohort: add --cohort (COHORT=… for make)")
        return {}
    workflow = workflow_of(choices.workflow)
    if choices.cohort not in workflow.readers:
        known = ", ".join(sorted(workflow.readers))
        raise UsageError(f"no reader is called {choices.cohort!r}; the readers are {known}")
    if choices.cohort == "phantom":
        if choices.data is not None:
            raise UsageError("the phantom is drawn and reads no folder: leave --data (DATA for make) out")
        return {"ingest": {"reader": "phantom"}}
    if choices.data is None:
        raise UsageError(f"cohort {choices.cohort} needs the folder of its data: add --data DIR (DATA=DIR for make)")
    if not Path(choices.data).is_dir():
        raise UsageError(f"{choices.data} is not a folder: --data names the folder of the data set")
    left_open = dict.fromkeys(workflow.left_open)
    return {"ingest": {"reader": choices.cohort, "source": choices.data, **left_open}}


def _external(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The external data sets of all stages that are read from a folder; what is wrong with others the step says."""
    lists = [section.get("external") for section in values.values() if isinstance(section, dict)]
    entries = [entry for found in lists if isinstance(found, list) for entry in found]
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("source")]


def _read(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise UsageError(f"{path} should be a mapping")
    # An anchor and its aliases are one object to the YAML reader: a change to one section would change the other.
    unshared: dict[str, Any] = json.loads(json.dumps(values))
    return unshared


def _set(values: dict[str, Any], key: str, text: str) -> None:
    *outer, last = key.split(".")
    for name in outer:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise UsageError(f"setting {key}: {name} is set to a value already")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"setting {key}: {text!r} is no YAML value") from None


def _overlay(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Lays ``changes`` over ``values`` in place; the seed of the whole goes to every section that has one."""
    if "seed" in changes:
        for section in values.values():
            if isinstance(section, dict) and "seed" in section:
                section["seed"] = changes["seed"]
    for name, change in changes.items():
        if isinstance(change, Mapping) and isinstance(values.get(name), dict):
            _merge(values[name], change)
        else:
            values[name] = change


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, change in changes.items():
        if isinstance(change, Mapping) and isinstance(values.get(name), dict):
            _merge(values[name], change)
        else:
            values[name] = change
