"""From a result back to the source data: what every step noted beside its output, followed from input to input.

A manifest (``manifest.json``, written by the runner) names the step, its version and parameters, the content hashes of
its inputs, and under ``stages`` the same of everything that these were made from.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retinalogos.errors import DataError

MANIFEST = "manifest.json"
Entry = Mapping[str, Any]
_KEPT = ("step", "version", "params", "inputs")
# Digits of a hash that are shown: as git's.
_SHOWN = 12


def read(folder: Path) -> dict[str, Any] | None:
    """The manifest beside an output; None where there is none, as beside what was not made by a step."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def how_made(folder: Path) -> dict[str, Any]:
    """The manifest beside an output.

    Raises:
        DataError: there is none.
    """
    manifest = read(folder)
    if manifest is None:
        raise DataError(f"{folder} holds no {MANIFEST}, which says how it was made; run its step by the runner")
    return manifest


def before(inputs: Mapping[str, Path], hashes: Mapping[str, str]) -> dict[str, Entry]:
    """Content hash → step, version, parameters and inputs of every input that a step made, and of all before it.

    Args:
        inputs: path by port.
        hashes: content hash by port.
    """
    found: dict[str, Entry] = {}
    for port, path in inputs.items():
        manifest = read(path)
        if manifest is not None:
            found |= manifest.get("stages", {})
            found[hashes[port]] = {key: manifest[key] for key in _KEPT}
    return found


def gather(outputs: Mapping[str, Path]) -> dict[str, Any]:
    """The lineage of several outputs in one: ``outputs`` name → entry, ``stages`` hash → entry of all before them."""
    lineage: dict[str, Any] = {"outputs": {}, "stages": {}}
    for name, folder in outputs.items():
        manifest = read(folder)
        if manifest is not None:
            lineage["outputs"][name] = {key: manifest[key] for key in _KEPT}
            lineage["stages"] |= manifest.get("stages", {})
    return lineage


def tell(lineage: Mapping[str, Any], name: str, parameters: bool = False) -> Iterator[str]:
    """Lines of an output's lineage as a tree: under each step the steps that made its inputs.

    What was told already is named by its hash alone. Of steps without inputs, which read the source data, the
    parameters are always told: reader, fingerprint of the source and seed are among them.

    Args:
        lineage: of :func:`gather`.
        name: of the output.
        parameters: tell those of all steps.
    """
    yield from _tell(name, "", lineage["outputs"][name], lineage["stages"], 0, parameters, set())


def _tell(
    port: str,
    digest: str,
    entry: Entry | None,
    stages: Mapping[str, Entry],
    depth: int,
    parameters: bool,
    told: set[str],
) -> Iterator[str]:
    indent = "  " * depth
    if entry is None:
        yield f"{indent}{port} {digest[:_SHOWN]}: a file of its own, or made by no step"
        return
    again = digest in told
    yield f"{indent}{port} {digest[:_SHOWN]}".rstrip() + f": {entry['step']} {entry['version']}{', see above' * again}"
    if again:
        return
    told.add(digest)
    if parameters or not entry["inputs"]:
        for key, value in flat(entry["params"]):
            if value is not None:
                yield f"{indent}    {key} = {json.dumps(value, ensure_ascii=False)}"
    for source, of_source in entry["inputs"].items():
        yield from _tell(source, of_source, stages.get(of_source), stages, depth + 1, parameters, told)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Parameters by their dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
