"""Figures with their intervals, as result files and as flat metrics."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retinalogos.metrics.intervals import Estimate


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Writes nested results as JSON; six digits, since the last ones depend on the processor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def flat(results: Mapping[str, Any]) -> dict[str, float | int | str | None]:
    """Nested results as ``a.b.c``; of an estimate its value, and null for what is not defined."""
    return dict(_leaves(results, ""))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float | int | str | None]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, Estimate):
        yield name, _plain(value)["value"]
    else:
        yield name, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return _plain(value.as_json())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value else None
    return value
