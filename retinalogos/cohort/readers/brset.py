"""BRSET, Brazilian multilabel ophthalmological data set: Nakayama et al., PLOS Digital Health 2024."""

from collections.abc import Iterator

from retinalogos.cohort.readers.files import image_of, images_by_stem
from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import read_rows

SEX = {"1": "male", "2": "female"}
EYE = {"1": "right", "2": "left"}
FINDINGS = {
    "macular_edema": "macular_oedema",
    "scar": "chorioretinal_scar",
    "nevus": "choroidal_naevus",
    "amd": "amd",
    "vascular_occlusion": "vascular_occlusion",
    "hypertensive_retinopathy": "hypertensive_retinopathy",
    "drusens": "drusen",
    "hemorrhage": "haemorrhage",
    "retinal_detachment": "retinal_detachment",
    "myopic_fundus": "myopic_fundus",
    "increased_cup_disc": "increased_cup_disc",
    "other": "other",
}
LABELS = (
    "camera",
    "diabetes",
    "diabetes_time_y",
    "insuline",
    "optic_disc",
    "vessels",
    "macula",
    "DR_SDRG",
    "DR_ICDR",
    "focus",
    "iluminaton",
    "image_field",
    "artifacts",
    "diabetic_retinopathy",
    *FINDINGS,
)


def read(source: Source) -> Iterator[Record]:
    """Reads ``labels.csv`` and ``fundus_photos/<image_id>.jpg``.

    Retinopathy is in the grade; macular oedema is a finding, since the source does not say that it is diabetic.
    """
    assert source.folder is not None
    folder = source.folder / "fundus_photos"
    files = images_by_stem(folder)
    columns = ("image_id", "patient_id", "patient_age", "patient_sex", "exam_eye", "DR_ICDR", *FINDINGS)
    for row in read_rows(source.folder / "labels.csv", columns):
        grade = row.grade("DR_ICDR")
        codes = tuple(code for column, code in FINDINGS.items() if row.flag(column))
        yield Record(
            image=image_of(files, folder, f"{row.given('image_id')}.jpg"),
            source="brset",
            patient=row.given("patient_id"),
            eye=row.choice("exam_eye", EYE),
            age=row.number("patient_age"),
            sex=row.choice("patient_sex", SEX),
            dr_grade=grade,
            # Without retinopathy and without a finding the eye was examined and is normal.
            findings=codes or (() if grade == 0 else None),
            labels=row.labels(*LABELS),
            licence="PhysioNet credentialed health data licence",
        )
