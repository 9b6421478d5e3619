"""Real data sets beside the cohort, which are read for one purpose and not kept."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from retinalogos.cohort.shards import Cohort


class External(BaseModel):
    """A real data set of another place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reader: str = Field(description="one of the readers of `ingest`")
    name: Annotated[str | None, Field(pattern=r"^[a-z0-9_]+$", description="in the results; null: the reader's")] = None
    # A place on this machine, which its fingerprint stands for: the composer of parameters sets it.
    source: Annotated[str | None, Field(exclude=True)] = None
    mapping: Annotated[str | None, Field(exclude=True)] = None
    source_fingerprint: str | None = None
    n: Annotated[int | None, Field(ge=1, description="eyes to draw (phantom)")] = None
    seed: Annotated[int, Field(description="of what is drawn (phantom)")] = 0

    @property
    def title(self) -> str:
        """Its name in the results."""
        return self.name or self.reader


def read_external(entry: External, size: int, fractions: Mapping[str, float], seed: int, folder: Path) -> "Cohort":
    """The data set as a cohort in ``folder``, prepared as `ingest` does: pictures of ``size`` pixels, in splits."""
    # Here, because the declarations of steps import this module.
    from retinalogos.cohort.deidentify import pseudonym_key
    from retinalogos.cohort.ingest import Ingestion, ingest
    from retinalogos.cohort.readers import Source, read
    from retinalogos.cohort.shards import Cohort

    source = Source(
        folder=None if entry.source is None else Path(entry.source),
        mapping=None if entry.mapping is None else Path(entry.mapping),
        n=entry.n,
        seed=entry.seed,
        size=size,
    )
    how = Ingestion(
        size=size,
        jpeg_quality=100,  # these pictures are not kept
        fractions=dict(fractions),
        seed=seed,
        quarantine_share=0.05,  # as ingest
        near_distance=0,  # copies among them change no verdict
        key=pseudonym_key(open_source=entry.reader != "table"),
        workers=len(os.sched_getaffinity(0)),
    )
    ingest(read(entry.reader, source), folder, entry.title, how)
    return Cohort(folder)
