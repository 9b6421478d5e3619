"""STARE, vessels and diagnoses: Hoover et al., IEEE TMI 2000, 19(3):203."""

from collections.abc import Iterator

from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.cohort.readers.rows import Row, read_rows

FINDINGS = {
    "arteriosclerotic retinopathy": "arteriosclerosis",
    "background diabetic retinopathy": "diabetic_retinopathy",
    "central retinal artery occlusion": "central_retinal_artery_occlusion",
    "central retinal vein occlusion": "central_retinal_vein_occlusion",
    "choroidal neovascularization": "choroidal_neovascularisation",
    "cilio-retinal artery occlusion": "cilioretinal_artery_occlusion",
    "drusen, large": "drusen",
    "emboli, non-hollenhorst": "retinal_embolus",
    "geographic atrophy rpe": "geographic_atrophy",
    "hollenhorst plaque": "retinal_embolus",
    "hypertensive retinopathy": "hypertensive_retinopathy",
    "retinitis, disease": "retinitis",
    "vasculitis": "vasculitis",
}


def read(source: Source) -> Iterator[Record]:
    """Reads ``manifest.csv``: image, vessels (observer A. Hoover), field of view, diagnosis."""
    assert source.folder is not None
    for row in read_rows(source.folder / "manifest.csv", ("image", "vessel_mask", "fov_mask", "diagnosis")):
        normal, codes = diagnose(row)
        yield Record(
            image=source.folder / row.given("image"),
            source="stare",
            dr_grade=0 if normal else None,
            findings=codes,
            report=row.text("diagnosis"),
            labels=row.labels("diagnosis"),
            maps={
                "vessels": (Layer(source.folder / row.given("vessel_mask"), {255: 3}),),
                "fov": (Layer(source.folder / row.given("fov_mask"), {255: 255}),),
            },
            licence="not stated; research use only",
        )


def diagnose(row: Row) -> tuple[bool, tuple[str, ...] | None]:
    """Whether the eye is normal, and its findings.

    An entry that the experts doubted themselves (in brackets: one calls an eye normal and hypertensive) says nothing.
    """
    text = row.given("diagnosis")
    if "[" in text:
        return False, None
    if text == "normal":
        return True, ()
    words = [word.strip() for word in text.split(";")]
    for word in words:
        if word not in FINDINGS:
            raise row.error("diagnosis", f"holds {word!r}, which is not a known diagnosis of STARE")
    return False, tuple(dict.fromkeys(FINDINGS[word] for word in words))
