"""Ingest: a data set or the phantom becomes a cohort."""

import os
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.cohort.deidentify import pseudonym_key
from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.readers import Source, read
from retinalogos.cohort.schema import SPLITS
from retinalogos.cohort.split import check_fractions

Share = Annotated[float, Field(ge=0, le=1)]


class IngestParams(Params):
    """Parameters of the step; defaults and their sources stand in params.yaml."""

    reader: str
    source: Annotated[str | None, Field(exclude=True)]  # a place on this machine: its fingerprint stands for it
    mapping: Annotated[str | None, Field(exclude=True)]
    source_fingerprint: str | None
    name: str | None
    size: Annotated[int, Field(ge=32, le=4096)]
    n: Annotated[int, Field(ge=1)] | None
    seed: int
    train: Share
    validation: Share
    test: Share
    quarantine_share: Share
    jpeg_quality: Annotated[int, Field(ge=50, le=100)]
    near_distance: Annotated[int, Field(ge=0, le=256)]
    workers: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        check_fractions(self.fractions())
        return self

    def fractions(self) -> dict[str, float]:
        """Share of each split."""
        return {split: getattr(self, split) for split in SPLITS}


def run(params: IngestParams, inputs: Paths, outputs: Paths) -> Metrics:
    """Reads, prepares, splits and writes the cohort; see :func:`retinalogos.cohort.ingest.ingest`."""
    source = Source(
        folder=None if params.source is None else Path(params.source),
        mapping=None if params.mapping is None else Path(params.mapping),
        n=params.n,
        seed=params.seed,
        size=params.size,
    )
    how = Ingestion(
        size=params.size,
        jpeg_quality=params.jpeg_quality,
        fractions=params.fractions(),
        seed=params.seed,
        quarantine_share=params.quarantine_share,
        near_distance=params.near_distance,
        key=pseudonym_key(open_source=params.reader != "table"),
        workers=params.workers or len(os.sched_getaffinity(0)),
    )
    # Readers tell no number: to go through their tables twice takes seconds, and no picture is opened.
    total = params.n if params.reader == "phantom" else sum(1 for _ in read(params.reader, source))
    summary = ingest(read(params.reader, source), outputs["cohort"], params.name or params.reader, how, total)
    return {
        "rows": summary.rows,
        "quarantined": summary.quarantined,
        "duplicates": summary.duplicates,
        "quality_mean": round(summary.quality, 6),
        **{f"rows_{split}": count for split, count in summary.splits.items()},
        **{f"images_{name.replace(':', '_')}": count for name, count in summary.classes.items()},
    }


STEP = Step(
    name="ingest",
    summary="reads a data set or draws the phantom, de-identifies, crops, judges, finds duplicates, splits by patient",
    params=IngestParams,
    run=run,
    outputs={"cohort": Port("cohort: parquet shards, cohort.json, quarantine.csv", "Dataset")},
)
