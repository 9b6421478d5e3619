"""HEI-MED, macular oedema screening: Giancardo et al., Medical Image Analysis 2012, 16(1):216."""

from collections.abc import Iterator

from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import read_rows
from retinalogos.cohort.schema import LESION_CLASSES

EYE = {"left": "left", "right": "right"}
SEX = {"female": "female", "male": "male", "other": None}
LESIONS = {"has_exudate": "exudate", "ma_px_orig": "microaneurysm", "hem_px_orig": "haemorrhage"}
LABELS = (
    "ethnicity",
    "diabetes_type",
    "quality_elvd",
    "has_exudate",
    "has_bright_lesion",
    "healthy",
    "npdr",
    "pdr",
    "csme",
    "graded_findings",
)


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``; the person is ``patient_group``.

    The authors do not tell hard from soft exudates, and marked dark lesions in a few pictures only: a lesion that is
    not marked is not known to be absent. Age is that in 2010, when the collection ended.
    """
    assert source.folder is not None
    columns = ("image", "exudate_mask", "patient_group", "eye", "sex", "age_2010", "dr_grade", *LESIONS)
    for row in read_rows(source.folder / "manifest.csv", columns):
        yield Record(
            image=source.folder / row.given("image"),
            source="hei_med",
            patient=row.given("patient_group"),
            eye=row.choice("eye", EYE),
            age=row.number("age_2010"),
            sex=row.choice("sex", SEX),
            dr_grade=row.grade("dr_grade"),
            findings=tuple(code for column, code in LESIONS.items() if row.number(column)) or None,
            report=row.text("expert_note"),
            labels=row.labels(*LABELS),
            maps={
                "lesions": (Layer(source.folder / row.given("exudate_mask"), {255: LESION_CLASSES.index("exudate")}),)
            },
            licence="non-commercial research only",
        )
