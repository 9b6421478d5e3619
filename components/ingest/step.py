"""Ingest: a data set or the phantom becomes a cohort."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.cohort.deidentify import pseudonym_key
from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.readers import Source, read
from retinalogos.cohort.schema import SPLITS
from retinalogos.cohort.split import check_fractions
from retinalogos.errors import DataError

Share = Annotated[float, Field(ge=0, le=1)]


class IngestParams(Params):
    """Parameters of the step; defaults and their sources stand in params.yaml."""

    reader: str
    source: Annotated[str | None, Field(exclude=True)]  # a place on this machine: its fingerprint stands for it
    mapping: Annotated[str | None, Field(exclude=True)]
    source_fingerprint: str | None
    repository: Annotated[str | None, Field(exclude=True)]  # a place too: its revision stands for it
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None
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
        if (self.repository is None) != (self.revision is None) or (self.revision and self.source is None):
            raise ValueError(
                "repository, revision (a full commit: `git rev-parse NAME`) and source (a path in the repository) go "
                "together"
            )
        return self

    def fractions(self) -> dict[str, float]:
        """Share of each split."""
        return {split: getattr(self, split) for split in SPLITS}


def run(params: IngestParams, inputs: Paths, outputs: Paths) -> Metrics:
    """Reads, prepares, splits and writes the cohort; see :func:`retinalogos.cohort.ingest.ingest`.

    Raises:
        DataError: the data are not fit, or DVC does not give them.
    """
    with _folder(params) as folder:
        return _run(params, folder, outputs["cohort"])


@contextlib.contextmanager
def _folder(params: IngestParams) -> Iterator[Path | None]:
    """The folder of the data set: on this machine, or as DVC has it at the revision, for as long as the block lasts."""
    if params.repository is None or params.revision is None or params.source is None:
        yield None if params.source is None else Path(params.source)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "source"
        # DVC stays outside: no step needs it but this one, and only here.
        words = ["get", params.repository, params.source, "--rev", params.revision, "--out", str(folder)]
        command = [sys.executable, "-m", "dvc", *words]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise DataError(
                f"DVC does not give {params.source} of {params.repository} at {params.revision}; its reason stands "
                "above (ingest.repository, ingest.revision, ingest.source; AWS_… for a remote in an object store)"
            )
        yield folder


def _run(params: IngestParams, folder: Path | None, cohort: Path) -> Metrics:
    source = Source(
        folder=folder,
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
    summary = ingest(read(params.reader, source), cohort, params.name or params.reader, how, total)
    return {
        "rows": summary.rows,
        "quarantined": summary.quarantined,
        "duplicates": summary.duplicates,
        "quality_mean": round(summary.quality, 6),
        **({} if params.revision is None else {"dvc_revision": params.revision}),
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
