"""The digital fundus phantom as a cohort: pictures are drawn by the workers, not read."""

from collections.abc import Iterator
from dataclasses import dataclass

from retinalogos.cohort.readers.record import Drawing, Record, Source
from retinalogos.cohort.schema import MAPS
from retinalogos.errors import UsageError
from retinalogos.phantom import PhantomRecord, draw, sample_records


@dataclass(frozen=True)
class DrawEye:
    """Draws one phantom eye when it is called, so that only its parameters travel to a worker."""

    record: PhantomRecord
    size: int

    def __call__(self) -> Drawing:
        """Pixels and truth maps, size × size."""
        eye = draw([self.record], self.size)[0]
        return Drawing(eye.image, {name: getattr(eye, name) for name in MAPS})


def read(source: Source) -> Iterator[Record]:
    """Draws ``source.n`` eyes with ``source.seed``."""
    if source.n is None:
        raise UsageError("reader 'phantom' needs the number of eyes: set `n`")
    for record in sample_records(source.n, source.seed):
        row = record.cohort_row()
        yield Record(
            image=DrawEye(record, source.size),
            source="phantom",
            patient=row["patient_id"],
            eye=row.get("eye"),
            age=row.get("age"),
            sex=row.get("sex"),
            dr_grade=row.get("dr_grade"),
            dme=row.get("dme"),
            glaucoma=row.get("glaucoma"),
            vcdr=row.get("vcdr"),
            findings=tuple(row["findings"]) if row.get("findings") is not None else None,
            licence="Apache-2.0",
            truth=row.get("truth"),
        )
