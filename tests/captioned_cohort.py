"""A cohort of phantom records without pictures, for the steps that read the table alone."""

import copy
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from components import ROOT
from retinalogos.cohort.schema import SPLITS
from retinalogos.cohort.shards import CohortWriter
from retinalogos.phantom.records import sample_records

Rows = list[dict[str, Any]]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def phantom_rows(n: int = 120) -> Rows:
    """Rows of ``n`` phantom eyes, split by patient; drawn once, so copy them before a change."""
    records = sample_records(n, seed=2)
    patients = list(dict.fromkeys(record.patient_id for record in records))
    split = {patient: SPLITS[max(0, i % 5 - 2)] for i, patient in enumerate(patients)}
    return [
        {
            **record.cohort_row(),
            "image_id": digest(f"image {i}")[:16],
            "sha256": digest(f"file {i}"),
            "split": split[record.patient_id],
            "source": "phantom",
            "licence": "Apache-2.0",
            "quality": 0.5 + 0.4 * (i % 7) / 7,
            "width": 128,
            "height": 128,
            "image": {"bytes": b"none", "path": f"{i}.jpg"},
        }
        for i, record in enumerate(records)
    ]


def write_cohort(folder: Path, change: Callable[[Rows], None] | None = None, n: int = 120) -> Path:
    """A cohort folder; ``change`` plants faults in its rows."""
    rows = copy.deepcopy(phantom_rows(n))
    if change is not None:
        change(rows)
    with CohortWriter(folder, "phantom") as writer:
        for row in rows:
            writer.add(row)
    return folder


def defaults(stage: str) -> dict[str, Any]:
    """The section of params.yaml."""
    section: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())[stage]
    return section
