"""SRahimDR, diabetic retinopathy and maculopathy in ten classes: Rahim 2025."""

from collections.abc import Iterator

from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import read_rows

EYE = {"left": "left", "right": "right"}
MACULOPATHY = {"0": None, "1": ("maculopathy",)}


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``; the person is ``patient_group``, since four persons have two patient numbers.

    The source says maculopathy, which may be oedema or ischaemia: it is a finding here and not macular oedema.
    """
    assert source.folder is not None
    columns = ("image", "patient_group", "eye", "class10", "class_name", "dr_grade", "maculopathy")
    for row in read_rows(source.folder / "manifest.csv", columns):
        yield Record(
            image=source.folder / row.given("image"),
            source="srahim_dr",
            patient=row.given("patient_group"),
            eye=row.choice("eye", EYE),
            dr_grade=row.grade("dr_grade"),
            findings=row.choice("maculopathy", MACULOPATHY),
            labels=row.labels("class10", "class_name", "maculopathy", "stage", "label_conflict", "split"),
            licence="academic use with attribution",
        )
