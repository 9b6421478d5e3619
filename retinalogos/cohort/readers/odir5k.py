"""ODIR-5K, Peking University 2019: both eyes of a patient, age, sex, diagnostic keywords per eye."""

from collections.abc import Iterator
from typing import Any

from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import Row, read_rows

LICENCE = "research use only (the owners state no licence)"

SEX = {"male": "male", "female": "female"}
EYE = {"left": "left", "right": "right"}

# Diabetic retinopathy by its stage; the stage is the ICDR grade.
GRADES = {
    "normal fundus": 0,
    "mild nonproliferative retinopathy": 1,
    "moderate non proliferative retinopathy": 2,
    "severe nonproliferative retinopathy": 3,
    "proliferative diabetic retinopathy": 4,
    "severe proliferative diabetic retinopathy": 4,
}
GLAUCOMA = {"glaucoma": "glaucoma", "suspected glaucoma": "suspect"}

# Keywords about the picture and not the eye.
PICTURE = {"lens dust", "low image quality", "image offset", "no fundus image", "no fundus image-optic disk"}

FINDINGS = {
    "atrophic change": "retinal_atrophy",
    "branch retinal vein occlusion": "branch_retinal_vein_occlusion",
    "cataract": "cataract",
    "central retinal vein occlusion": "central_retinal_vein_occlusion",
    "chorioretinal atrophy": "chorioretinal_atrophy",
    "diabetic retinopathy": "diabetic_retinopathy",
    "diffuse chorioretinal atrophy": "chorioretinal_atrophy",
    "diffuse retinal atrophy": "retinal_atrophy",
    "drusen": "drusen",
    "dry age-related macular degeneration": "dry_amd",
    "epiretinal membrane": "epiretinal_membrane",
    "epiretinal membrane over the macula": "epiretinal_membrane",
    "fundus laser photocoagulation spots": "laser_scar",
    "hypertensive retinopathy": "hypertensive_retinopathy",
    "laser spot": "laser_scar",
    "macular epiretinal membrane": "epiretinal_membrane",
    "maculopathy": "maculopathy",
    "myelinated nerve fibers": "myelinated_nerve_fibre",
    "myopic maculopathy": "pathological_myopia",
    "old branch retinal vein occlusion": "branch_retinal_vein_occlusion",
    "old central retinal vein occlusion": "central_retinal_vein_occlusion",
    "optic disc edema": "disc_oedema",
    "optic disk epiretinal membrane": "epiretinal_membrane",
    "optic nerve atrophy": "optic_atrophy",
    "pathological myopia": "pathological_myopia",
    "post laser photocoagulation": "laser_scar",
    "refractive media opacity": "media_opacity",
    "retina fold": "retinal_fold",
    "retinal pigment epithelial hypertrophy": "rpe_hypertrophy",
    "retinitis pigmentosa": "retinitis_pigmentosa",
    "spotted membranous change": "other",
    "suspected diabetic retinopathy": "suspected_diabetic_retinopathy",
    "vessel tortuosity": "vessel_tortuosity",
    "vitreous degeneration": "vitreous_degeneration",
    "vitreous opacity": "media_opacity",
    "wet age-related macular degeneration": "wet_amd",
    "white vessel": "vessel_sheathing",
}

LABELS = ("keywords", *"NDGCAHMO", "eye_label", "eye_labels_cleaned", "has_dr", "split")


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``: image, patient_id, eye, age, sex, keywords and ODIR's patient-level labels.

    Keywords name diagnoses, not lesions: an eye whose only keyword is a stage of diabetic retinopathy has the
    grade, and its findings are unknown.
    """
    assert source.folder is not None
    columns = ("image", "patient_id", "eye", "age", "sex", "keywords", *"NDGCAHMO")
    for row in read_rows(source.folder / "manifest.csv", columns):
        keywords = [word.strip() for word in row.given("keywords").split(";")]
        yield Record(
            image=source.folder / row.given("image"),
            source="odir5k",
            patient=row.given("patient_id"),
            eye=row.choice("eye", EYE),
            age=age_of(row),
            sex=row.choice("sex", SEX),
            licence=LICENCE,
            labels=row.labels(*LABELS),
            **diagnose(row, keywords),
        )


def age_of(row: Row) -> float | None:
    """Age in years; 1 is a placeholder of the source (adults with myopia carry it) and means not known."""
    age = row.number("age")
    return None if age == 1 else age


def diagnose(row: Row, keywords: list[str]) -> dict[str, Any]:
    """Grade, glaucoma and findings of one eye from its keywords.

    Raises:
        DataError: a keyword is not of ODIR's vocabulary.
    """
    known = GRADES.keys() | GLAUCOMA.keys() | PICTURE | FINDINGS.keys()
    for word in keywords:
        if word not in known:
            raise row.error("keywords", f"holds {word!r}, which is not of ODIR's vocabulary")
    disease = [word for word in keywords if word != "normal fundus" and word not in PICTURE]
    graded = [GRADES[word] for word in disease if word in GRADES]
    healthy = "normal fundus" in keywords and not disease
    # The keywords list every diagnosis of the eye, so one that lacks glaucoma says no.
    otherwise = "no" if disease or healthy else None
    codes = tuple(dict.fromkeys(FINDINGS[word] for word in disease if word in FINDINGS))
    return {
        "dr_grade": 0 if healthy else max(graded, default=None),
        "glaucoma": next((GLAUCOMA[word] for word in disease if word in GLAUCOMA), otherwise),
        "findings": () if healthy else codes or None,
    }
