"""RFMiD, 45 classes of disease: Pachade et al., Data 2021, 6(2):14."""

from collections.abc import Iterator
from pathlib import Path

from retinalogos.cohort.readers.record import Record, Source
from retinalogos.cohort.readers.rows import read_rows
from retinalogos.errors import DataError, UsageError

# Part of the set by its table → words by which its image folder is known.
PARTS = {"Training": ("train",), "Validation": ("valid", "evaluation"), "Testing": ("test",)}

CLASSES = {
    "DR": "diabetic_retinopathy",
    "ARMD": "amd",
    "MH": "media_opacity",
    "DN": "drusen",
    "MYA": "myopic_fundus",
    "BRVO": "branch_retinal_vein_occlusion",
    "TSLN": "tessellated_fundus",
    "ERM": "epiretinal_membrane",
    "LS": "laser_scar",
    "MS": "macular_scar",
    "CSR": "central_serous_chorioretinopathy",
    "ODC": "increased_cup_disc",
    "CRVO": "central_retinal_vein_occlusion",
    "TV": "vessel_tortuosity",
    "AH": "asteroid_hyalosis",
    "ODP": "disc_pallor",
    "ODE": "disc_oedema",
    "ST": "optociliary_shunt",
    "AION": "ischaemic_optic_neuropathy",
    "PT": "parafoveal_telangiectasia",
    "RT": "retinal_traction",
    "RS": "retinitis",
    "CRS": "chorioretinitis",
    "EDN": "exudate",
    "RPEC": "rpe_changes",
    "MHL": "macular_hole",
    "RP": "retinitis_pigmentosa",
    "CWS": "soft_exudate",
    "CB": "coloboma",
    "ODPM": "disc_pit_maculopathy",
    "PRH": "preretinal_haemorrhage",
    "MNF": "myelinated_nerve_fibre",
    "HR": "haemorrhagic_retinopathy",
    "CRAO": "central_retinal_artery_occlusion",
    "TD": "tilted_disc",
    "CME": "macular_oedema",
    "PTCR": "choroidal_rupture",
    "CF": "choroidal_folds",
    "VH": "vitreous_haemorrhage",
    "MCA": "macroaneurysm",
    "VS": "vasculitis",
    "BRAO": "branch_retinal_artery_occlusion",
    "PLQ": "retinal_embolus",
    "HPED": "haemorrhagic_pigment_epithelial_detachment",
    "CL": "collateral_vessels",
}


def read(source: Source) -> Iterator[Record]:
    """Reads the tables ``…RFMiD_<part>_Labels.csv`` (ID, Disease_Risk, 45 classes) and the images of each part.

    Raises:
        UsageError: there is no table.
        DataError: the images of a part are not found.
    """
    assert source.folder is not None
    tables = {part: sorted(source.folder.rglob(f"*RFMiD_{part}_Labels.csv")) for part in PARTS}
    if not any(tables.values()):
        raise UsageError(f"{source.folder} holds no RFMiD_<part>_Labels.csv: is this the folder of RFMiD?")
    for part, found in tables.items():
        for table in found:
            folder = _folder(source.folder, table, PARTS[part])
            for row in read_rows(table, ("ID", "Disease_Risk")):
                classes = [name for name in CLASSES if row.flag(name)]
                healthy = not row.flag("Disease_Risk")
                codes = tuple(dict.fromkeys(CLASSES[name] for name in classes))
                yield Record(
                    image=folder / f"{row.given('ID')}.png",
                    source="rfmid",
                    dr_grade=0 if healthy else None,
                    findings=() if healthy else codes or ("other",),
                    labels={"part": part, "Disease_Risk": int(not healthy), "classes": classes},
                    licence="CC BY 4.0",
                )


def _folder(root: Path, table: Path, words: tuple[str, ...]) -> Path:
    first = next((row.given("ID") for row in read_rows(table, ("ID",))), None)
    for path in sorted(root.rglob(f"{first}.png")):
        if any(word in part.lower() for part in path.relative_to(root).parts[:-1] for word in words):
            return path.parent
    raise DataError(f"{table}, row 2, column 'ID': no image {first}.png in a folder called after {' or '.join(words)}")
