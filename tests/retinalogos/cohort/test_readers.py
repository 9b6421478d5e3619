import csv
import io
import json
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from drawn_eye import draw_eye
from PIL import Image

from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.prepare import Prepared, Rejected, prepare
from retinalogos.cohort.readers import READERS, Record, Source, read
from retinalogos.cohort.readers.odir5k import FINDINGS as ODIR_FINDINGS
from retinalogos.cohort.readers.odir5k import GLAUCOMA as ODIR_GLAUCOMA
from retinalogos.cohort.readers.odir5k import GRADES as ODIR_GRADES
from retinalogos.cohort.readers.odir5k import PICTURE as ODIR_PICTURE
from retinalogos.cohort.readers.rfmid import CLASSES as RFMID_CLASSES
from retinalogos.cohort.schema import EYES, GLAUCOMA, LESION_CLASSES, SEXES
from retinalogos.cohort.shards import decode_map
from retinalogos.errors import DataError, UsageError


def write_table(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_eye(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_eye(seed, 64)).save(path)
    return path


def write_mask(path: Path, values: dict[int, int], background: int = 0) -> None:
    """A mask of 64 × 64 with a square of each value: value → row of its top."""
    mask = np.full((64, 64), background, np.uint8)
    for value, top in values.items():
        mask[top : top + 6, 26:38] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def rows_of(reader: str, folder: Path, **options: object) -> list[Record]:
    found = list(read(reader, Source(folder, **options)))
    for record in found:
        check(record)
    return found


def check(record: Record) -> None:
    """What every record must be, whatever the source."""
    assert record.eye in (*EYES, None)
    assert record.sex in (*SEXES, None)
    assert record.dr_grade in (None, 0, 1, 2, 3, 4)
    assert record.dme in (None, 0, 1)
    assert record.glaucoma in (*GLAUCOMA, None)
    assert record.vcdr is None or 0 <= record.vcdr <= 1
    assert record.age is None or 0 < record.age < 120
    assert set(record.findings or ()) <= FINDINGS.keys()
    assert record.licence
    json.dumps(dict(record.labels))


def stored_map(record: Record, name: str, size: int = 64) -> np.ndarray:
    result = prepare(record, size, 95)
    assert isinstance(result, Prepared), result
    return decode_map(result.row[name]["bytes"])


# --- each set in its published layout


def test_odir5k(tmp_path: Path) -> None:
    base = {"age": 57, "sex": "Male", **dict.fromkeys("NDGCAHMO", 0), "eye_label": "N", "split": "test"}
    cases = [
        ("1", "left", "normal fundus", 57),
        ("1", "right", "moderate non proliferative retinopathy", 57),
        ("2", "left", "glaucoma; macular epiretinal membrane", 61),
        ("3", "right", "lens dust", 1),
        ("4", "left", "lens dust; normal fundus", 40),
        ("5", "left", "suspected glaucoma; severe proliferative diabetic retinopathy; laser spot", 40),
    ]
    write_table(
        tmp_path / "manifest.csv",
        [
            base | {"image": f"images/{p}_{eye}.jpg", "patient_id": p, "eye": eye, "keywords": words, "age": age}
            for p, eye, words, age in cases
        ],
    )
    found = rows_of("odir5k", tmp_path)
    assert [r.dr_grade for r in found] == [0, 2, None, None, 0, 4]
    assert [r.glaucoma for r in found] == ["no", "no", "glaucoma", None, "no", "suspect"]
    assert [r.findings for r in found] == [(), None, ("epiretinal_membrane",), None, (), ("laser_scar",)]
    assert [r.age for r in found] == [57, 57, 61, None, 40, 40]  # 1 is the set's placeholder
    assert found[0].labels["keywords"] == "normal fundus"
    assert "patient_id" not in found[0].labels


def test_odir5k_refuses_an_unknown_keyword(tmp_path: Path) -> None:
    row = {"image": "a.jpg", "patient_id": 1, "eye": "left", "age": 5, "sex": "Male", "keywords": "green retina"}
    write_table(tmp_path / "manifest.csv", [row | dict.fromkeys("NDGCAHMO", 0)])
    with pytest.raises(DataError, match=r"manifest\.csv, row 2, column 'keywords'.*green retina"):
        rows_of("odir5k", tmp_path)


def test_idrid_seg(tmp_path: Path) -> None:
    write_eye(tmp_path / "images/IDRiD_01.jpg")
    write_mask(tmp_path / "classes/IDRiD_01.png", {1: 10, 2: 20, 3: 30, 5: 42})
    areas = {"MA_px_orig": 6941, "HE_px_orig": 35430, "EX_px_orig": 113290, "SE_px_orig": 0}
    row = {"image": "images/IDRiD_01.jpg", "class_map": "classes/IDRiD_01.png", "split": "train", **areas}
    write_table(tmp_path / "manifest.csv", [row])
    (record,) = rows_of("idrid_seg", tmp_path)
    assert record.findings == ("microaneurysm", "haemorrhage", "hard_exudate")
    lesions = stored_map(record, "lesions")
    assert {LESION_CLASSES[value] for value in np.unique(lesions)} == {"none", *record.findings}
    assert set(np.unique(stored_map(record, "disc_cup"))) == {0, 1}


@pytest.mark.parametrize("reader", ["drive", "stare"])
def test_drive_and_stare(tmp_path: Path, reader: str) -> None:
    write_eye(tmp_path / "images/1.jpg")
    write_mask(tmp_path / "vessel/1.png", {255: 20})
    write_mask(tmp_path / "fov/1.png", {}, background=255)
    row = {"image": "images/1.jpg", "vessel_mask": "vessel/1.png", "fov_mask": "fov/1.png"}
    extra = {"drive": {"pathology_note": "", "split": "test"}, "stare": {"diagnosis": "drusen, large; vasculitis"}}
    write_table(tmp_path / "manifest.csv", [row | extra[reader]])
    (record,) = rows_of(reader, tmp_path)
    assert record.findings == {"drive": None, "stare": ("drusen", "vasculitis")}[reader]
    assert set(np.unique(stored_map(record, "vessels"))) == {0, 3}
    assert set(np.unique(stored_map(record, "fov"))) == {255}


@pytest.mark.parametrize(
    ("text", "grade", "findings"),
    [
        ("normal", 0, ()),
        ("background diabetic retinopathy", None, ("diabetic_retinopathy",)),
        ("normal; hypertensive retinopathy [v: how could it be]", None, None),
    ],
)
def test_stare_diagnoses(tmp_path: Path, text: str, grade: int | None, findings: tuple[str, ...] | None) -> None:
    row = {"image": "1.jpg", "vessel_mask": "v.png", "fov_mask": "f.png", "diagnosis": text}
    write_table(tmp_path / "manifest.csv", [row])
    (record,) = rows_of("stare", tmp_path)
    assert (record.dr_grade, record.findings) == (grade, findings)


def test_hrf(tmp_path: Path) -> None:
    write_eye(tmp_path / "images/01_h.jpg")
    write_mask(tmp_path / "vessel/01_h.png", {255: 10})
    write_mask(tmp_path / "av/01_h.png", {1: 20, 2: 30, 3: 42})
    names = {"image": "images/01_h.jpg", "vessel_mask": "vessel/01_h.png", "av_mask": "av/01_h.png"}
    labels = ("healthy", "diabetic retinopathy", "glaucoma")
    write_table(tmp_path / "manifest.csv", [names | {"label": label} for label in labels])
    healthy, diabetic, glaucoma = rows_of("hrf", tmp_path)
    assert (healthy.dr_grade, healthy.glaucoma, healthy.findings) == (0, "no", ())
    assert (diabetic.dr_grade, diabetic.findings) == (None, ("diabetic_retinopathy",))
    assert glaucoma.glaucoma == "glaucoma"
    assert set(np.unique(stored_map(healthy, "vessels"))) == {0, 1, 2, 3}


def test_drishti_gs(tmp_path: Path) -> None:
    write_eye(tmp_path / "images/a.jpg")
    write_mask(tmp_path / "disc/a.png", {255: 20})
    write_mask(tmp_path / "cup/a.png", {255: 22})
    row = {"image": "images/a.jpg", "disc_mask": "disc/a.png", "cup_mask": "cup/a.png", "vcdr": 0.8225, "split": "test"}
    more = [{"glaucoma": 1, "notching": "I"}, {"glaucoma": 0, "notching": "absent"}]
    write_table(tmp_path / "manifest.csv", [row | values for values in more])
    one, two = rows_of("drishti_gs", tmp_path)
    assert (one.glaucoma, one.vcdr, one.findings) == ("glaucoma", 0.8225, ("rim_notch",))
    assert (two.glaucoma, two.findings) == ("no", None)
    assert set(np.unique(stored_map(one, "disc_cup"))) == {0, 1, 2}


def test_srahim_dr(tmp_path: Path) -> None:
    row = {"class10": 5, "class_name": "Moderate DR with maculopathy", "stage": "", "label_conflict": 0, "split": "dev"}
    cases = [("058", "058", "left", 2, 1), ("155", "058", "right", 4, "")]
    write_table(
        tmp_path / "manifest.csv",
        [
            row
            | {"image": f"images/{p}_{eye}.jpg", "patient_id": p, "patient_group": group}
            | {"eye": eye, "dr_grade": grade, "maculopathy": maculopathy}
            for p, group, eye, grade, maculopathy in cases
        ],
    )
    one, two = rows_of("srahim_dr", tmp_path)
    assert one.patient == two.patient == "058"
    assert (one.dr_grade, one.findings, one.dme) == (2, ("maculopathy",), None)
    assert (two.dr_grade, two.findings, two.eye) == (4, None, "right")


def test_hei_med(tmp_path: Path) -> None:
    write_eye(tmp_path / "images/0003.jpg")
    write_mask(tmp_path / "exudate/0003.png", {255: 20})
    row = {
        "image": "images/0003.jpg",
        "exudate_mask": "exudate/0003.png",
        "patient_group": "p001",
        "eye": "left",
        "sex": "Female",
        "age_2010": 55,
        "has_exudate": 1,
        "ma_px_orig": 0,
        "hem_px_orig": 12,
        "dr_grade": "",
        "expert_note": "seen 1/2/2009; rare microaneurysms",
    }
    write_table(tmp_path / "manifest.csv", [row, row | {"sex": "Other", "has_exudate": 0, "hem_px_orig": 0}])
    one, two = rows_of("hei_med", tmp_path)
    assert (one.patient, one.age, one.sex, one.findings) == ("p001", 55, "female", ("exudate", "haemorrhage"))
    assert (two.sex, two.findings) == (None, None)
    assert set(np.unique(stored_map(one, "lesions"))) == {0, LESION_CLASSES.index("exudate")}
    result = prepare(one, 64, 95)
    assert isinstance(result, Prepared)
    assert result.row["report"] == "seen [date]; rare microaneurysms"


def test_aptos2019(tmp_path: Path) -> None:
    write_eye(tmp_path / "train_images/000c1434d8d7.png")
    rows = [{"id_code": "000c1434d8d7", "diagnosis": 2}, {"id_code": "gone", "diagnosis": 0}]
    write_table(tmp_path / "train.csv", rows)
    one, two = rows_of("aptos2019", tmp_path)
    assert (one.dr_grade, one.patient) == (2, None)
    assert one.image == tmp_path / "train_images/000c1434d8d7.png"
    assert two.image == tmp_path / "train_images/gone.png"  # for the quarantine


def test_eyepacs(tmp_path: Path) -> None:
    write_eye(tmp_path / "train/10_left.jpeg")
    rows = [{"image": "10_left", "level": 0}, {"image": "10_right", "level": 4}]
    write_table(tmp_path / "trainLabels.csv", rows)
    one, two = rows_of("eyepacs", tmp_path)
    assert (one.patient, one.eye, one.dr_grade) == ("10", "left", 0)
    assert (two.patient, two.eye, two.dr_grade) == ("10", "right", 4)
    write_table(tmp_path / "trainLabels.csv", [{"image": "10-left", "level": 0}])
    with pytest.raises(DataError, match=r"trainLabels\.csv, row 2, column 'image'"):
        rows_of("eyepacs", tmp_path)
    write_table(tmp_path / "trainLabels.csv", [{"image": "10_left", "level": 5}])
    with pytest.raises(DataError, match=r"row 2, column 'level'.*'5'"):
        rows_of("eyepacs", tmp_path)


@pytest.mark.parametrize(("name", "grade"), [("image_id", "adjudicated_dr_grade"), ("id_code", "diagnosis")])
def test_messidor2(tmp_path: Path, name: str, grade: str) -> None:
    write_eye(tmp_path / "IMAGES/20051020_43808_0100_PP.png")
    rows = [
        {name: "20051020_43808_0100_PP.png", grade: 3, "adjudicated_dme": 1, "adjudicated_gradable": 1},
        {name: "20051020_43832_0100_PP.png", grade: "", "adjudicated_dme": "", "adjudicated_gradable": 0},
    ]
    write_table(tmp_path / "messidor_data.csv", rows)
    one, two = rows_of("messidor2", tmp_path)
    assert (one.dr_grade, one.dme, one.patient) == (3, 1, None)
    assert one.image == tmp_path / "IMAGES/20051020_43808_0100_PP.png"
    assert (two.dr_grade, two.dme) == (None, None)
    pair = {"left": "20051020_43808_0100_PP.png", "right": "20051020_43832_0100_PP.png"}
    write_table(tmp_path / "messidor-2.csv", [pair], delimiter=";")
    one, two = rows_of("messidor2", tmp_path)
    assert one.patient == two.patient is not None
    assert (one.eye, two.eye) == ("left", "right")


def test_refuge2(tmp_path: Path) -> None:
    base = tmp_path / "Train/REFUGE1-train"
    write_eye(base / "Training400/Glaucoma/g0001.jpg")
    write_eye(base / "Training400/Non-Glaucoma/n0001.jpg")
    write_mask(base / "Disc_Cup_Masks/Glaucoma/g0001.bmp", {128: 20, 0: 28}, background=255)
    write_eye(tmp_path / "val/images/V0001.jpg")
    (tmp_path / "val/index.json").write_text(json.dumps({"0": {"ImgName": "V0001.jpg", "Label": 1}}))
    write_eye(tmp_path / "test/images/T0001.jpg")
    found = {record.name: record for record in rows_of("refuge2", tmp_path)}
    assert {name: record.glaucoma for name, record in found.items()} == {
        "g0001.jpg": "glaucoma",
        "n0001.jpg": "no",
        "V0001.jpg": "glaucoma",
        "T0001.jpg": None,
    }
    assert set(np.unique(stored_map(found["g0001.jpg"], "disc_cup"))) == {0, 1, 2}
    assert not found["n0001.jpg"].maps
    (tmp_path / "val/index.json").write_text("[1]")
    with pytest.raises(DataError, match=r"index\.json"):
        rows_of("refuge2", tmp_path)


def workbook(rows: list[list[object]]) -> bytes:
    """A minimal xlsx with shared and inline strings, as Excel and other writers make them."""
    words: list[str] = []

    def cell(place: int, line: int, value: object) -> str:
        where = f'r="{chr(65 + place)}{line}"'
        if value is None:
            return f"<c {where}/>"
        if isinstance(value, str) and line % 2:
            words.append(value)
            return f'<c {where} t="s"><v>{len(words) - 1}</v></c>'
        if isinstance(value, str):
            return f'<c {where} t="inlineStr"><is><t>{value}</t></is></c>'
        return f"<c {where}><v>{value}</v></c>"

    body = "".join(
        f'<row r="{line}">' + "".join(cell(place, line, value) for place, value in enumerate(row)) + "</row>"
        for line, row in enumerate(rows, start=1)
    )
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{body}</sheetData></worksheet>")
        strings = "".join(f"<si><t>{word}</t></si>" for word in words)
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{strings}</sst>")
    return buffer.getvalue()


def test_papila(tmp_path: Path) -> None:
    headings = [
        [None, "Age", "Gender", "Diagnosis", "Refractive_Defect", None, None, "Phakic/Pseudophakic", "IOP"],
        [None, None, None, None, "dioptre_1", "dioptre_2", "astigmatism", None, "Pneumatic", "Perkins"],
        ["ID"],
    ]
    write_eye(tmp_path / "FundusImages/RET002OD.jpg")
    (tmp_path / "ClinicalData").mkdir()
    od = [["#002", 47, 0, 2, 0.75, -1.75, 90, 0, 21], ["#004", 58, 1, 1, 1.5, -1.75, 85, 0, None, 19]]
    (tmp_path / "ClinicalData/patient_data_od.xlsx").write_bytes(workbook([*headings, *od]))
    (tmp_path / "ClinicalData/patient_data_os.xlsx").write_bytes(workbook([*headings, ["#002", 47, 0, 0]]))
    one, two, three = rows_of("papila", tmp_path)
    assert (one.patient, one.eye, one.age, one.sex, one.glaucoma) == ("002", "right", 47, "male", "suspect")
    assert (two.glaucoma, two.sex, two.labels["Perkins"]) == ("glaucoma", "female", "19")
    assert (three.patient, three.eye, three.glaucoma) == ("002", "left", "no")
    assert one.image.is_file()
    (tmp_path / "ClinicalData/patient_data_os.xlsx").write_bytes(workbook([*headings, ["#002", "old", 0, 0]]))
    with pytest.raises(DataError, match=r"patient_data_os\.xlsx, row 4, column 'Age'.*'old'"):
        rows_of("papila", tmp_path)
    (tmp_path / "ClinicalData/patient_data_os.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(DataError, match="not a readable Excel workbook"):
        rows_of("papila", tmp_path)


def test_rfmid(tmp_path: Path) -> None:
    none = dict.fromkeys(RFMID_CLASSES, 0)
    for part, folder in (("Training", "Training_Set/Training"), ("Validation", "Evaluation_Set/Validation")):
        write_eye(tmp_path / folder / "1.png")
        rows = [
            {"ID": 1, "Disease_Risk": 1, **none, "DR": 1, "ODC": 1},
            {"ID": 2, "Disease_Risk": 0, **none},
            {"ID": 3, "Disease_Risk": 1, **none},
        ]
        write_table(tmp_path / folder.split("/")[0] / f"RFMiD_{part}_Labels.csv", rows)
    found = rows_of("rfmid", tmp_path)
    assert len(found) == 6
    assert found[0].findings == ("diabetic_retinopathy", "increased_cup_disc")
    assert (found[1].findings, found[1].dr_grade) == ((), 0)
    assert found[2].findings == ("other",)
    assert found[0].image == tmp_path / "Training_Set/Training/1.png"
    assert found[3].image == tmp_path / "Evaluation_Set/Validation/1.png"
    assert found[3].labels["part"] == "Validation"


def test_brset(tmp_path: Path) -> None:
    from retinalogos.cohort.readers.brset import FINDINGS as COLUMNS

    write_eye(tmp_path / "fundus_photos/img00001.jpg")
    row = {"image_id": "img00001", "patient_id": 7, "patient_age": 48, "patient_sex": 1, "exam_eye": 2, "DR_ICDR": 0}
    rows = [
        row | dict.fromkeys(COLUMNS, 0),
        row | dict.fromkeys(COLUMNS, 0) | {"exam_eye": 1, "patient_sex": 2, "DR_ICDR": 3, "macular_edema": 1},
        row | dict.fromkeys(COLUMNS, 0) | {"patient_age": "", "DR_ICDR": 2},
    ]
    write_table(tmp_path / "labels.csv", rows)
    one, two, three = rows_of("brset", tmp_path)
    assert (one.eye, one.sex, one.dr_grade, one.findings) == ("left", "male", 0, ())
    assert (two.eye, two.sex, two.dr_grade, two.findings) == ("right", "female", 3, ("macular_oedema",))
    assert (three.age, three.findings) == (None, None)
    assert one.patient == "7"


# --- any table


MAPPING = """
name: clinic
table: labels.csv
images: photos
image: file
patient: subject
age: years
sex: {column: gender, values: {1: male, 2: female}}
eye: side
dr_grade: {column: dr, values: {none: 0, mild: 1, severe: 3}}
findings: {column: seen, separator: ";", values: {MA: microaneurysm, bleed: [haemorrhage, microaneurysm], nil: null}}
flags: {has_drusen: drusen}
report: text
labels: [dr, seen]
licence: hospital
"""
TABLE = [
    {"file": "a", "subject": "s1", "years": 50, "gender": 1, "side": "OD", "dr": "mild", "seen": "MA; bleed"},
    {"file": "b.png", "subject": "s1", "years": "", "gender": 2, "side": "left", "dr": "", "seen": "nil"},
]
MORE = [{"has_drusen": 1, "text": "seen by Dr. Anna Meyer"}, {"has_drusen": 0, "text": ""}]


def clinic(tmp_path: Path, mapping: str = MAPPING, **changes: object) -> list[Record]:
    for name in "ab":
        write_eye(tmp_path / f"photos/{name}.png")
    write_table(tmp_path / "labels.csv", [row | more | changes for row, more in zip(TABLE, MORE, strict=True)])
    (tmp_path / "columns.yaml").write_text(mapping)
    return rows_of("table", tmp_path, mapping=tmp_path / "columns.yaml")


def test_table(tmp_path: Path) -> None:
    one, two = clinic(tmp_path)
    assert one.image == tmp_path / "photos/a.png"
    assert (one.source, one.patient, one.age, one.sex, one.eye) == ("clinic", "s1", 50, "male", "right")
    assert (one.dr_grade, one.findings) == (1, ("microaneurysm", "haemorrhage", "drusen"))
    assert (two.dr_grade, two.findings, two.eye, two.age) == (None, (), "left", None)
    assert one.labels == {"dr": "mild", "seen": "MA; bleed"}
    result = prepare(one, 64, 95)
    assert isinstance(result, Prepared)
    assert result.row["report"] == "seen by Dr. [name]"


def test_a_row_of_a_table_without_a_file_is_left_to_the_quarantine(tmp_path: Path) -> None:
    one, _ = clinic(tmp_path, file="")
    result = prepare(one, 64, 95)
    assert isinstance(result, Rejected)
    assert (result.reason, one.name) == ("missing", "row 2 names no file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"years": "fifty"}, r"labels\.csv, row 2, column 'years'.*'fifty'"),
        ({"years": 300}, r"labels\.csv, row 2, column 'years'.*300"),
        ({"side": "up"}, r"labels\.csv, row 2, column 'side'.*'up'"),
        ({"dr": "bad"}, r"row 2, column 'dr'.*mild, none, severe"),
        ({"seen": "MA; dragon"}, r"row 2, column 'seen'.*'dragon'"),
        ({"subject": ""}, r"row 2, column 'subject'.*empty"),
        ({"has_drusen": 7}, r"row 2, column 'has_drusen'.*'7'"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        clinic(tmp_path, **changes)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("table: labels.csv", "table: none.csv", UsageError, r"none\.csv not found"),
        ("table: labels.csv", "", UsageError, "'table' is missing"),
        ("image: file", "image: nofile", DataError, r"labels\.csv, row 1: columns \['nofile'\]"),
        ("age: years", "ago: years", UsageError, r"columns\.yaml: unknown entries \['ago'\]"),
        ("drusen: drusen", "drusen: dragons", UsageError, r"'dragons' is not a finding"),
        ("mild: 1", "mild: 9", DataError, "9 is not of the schema"),
        ("eye: side", "eye: [side]", UsageError, "expected a column name"),
        ("name: clinic", "name: [clinic", UsageError, "is no YAML"),
    ],
)
def test_a_bad_mapping_is_named(tmp_path: Path, old: str, new: str, error: type[Exception], message: str) -> None:
    assert old in MAPPING
    with pytest.raises(error, match=message):
        clinic(tmp_path, MAPPING.replace(old, new))


def test_table_needs_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set `mapping`"):
        rows_of("table", tmp_path)


# --- all readers


def test_an_unknown_reader_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'odir5k'"):
        read("odir", Source())


@pytest.mark.parametrize("reader", sorted(READERS.keys() - {"phantom"}))
def test_a_missing_folder_is_named(tmp_path: Path, reader: str) -> None:
    with pytest.raises(UsageError, match="set `source`"):
        list(read(reader, Source()))
    with pytest.raises(UsageError, match="is not a folder"):
        list(read(reader, Source(tmp_path / "none")))
    mapping = tmp_path / "columns.yaml"
    mapping.write_text("{table: labels.csv, image: file}")
    with pytest.raises(UsageError):
        list(read(reader, Source(tmp_path, mapping=mapping)))


def test_vocabularies_agree() -> None:
    from retinalogos.phantom import LESION_CLASSES as DRAWN

    assert LESION_CLASSES[: len(DRAWN)] == DRAWN
    assert set(LESION_CLASSES[1:]) <= FINDINGS.keys()


def test_phantom() -> None:
    found = list(read("phantom", Source(n=12, seed=3, size=64)))
    assert len(found) == 12
    for record in found:
        check(record)
        assert record.findings is not None
        assert json.loads(record.truth or "")["disc_side"] == record.eye
    result = prepare(found[0], 64, 95)
    assert isinstance(result, Prepared)
    assert {"lesions", "vessels", "disc_cup", "fov"} <= result.row.keys()
    with pytest.raises(UsageError, match="set `n`"):
        list(read("phantom", Source()))


# --- the real sets, all rows

COUNTS = {
    "odir5k": 4888,
    "srahim_dr": 358,
    "hei_med": 169,
    "drishti_gs": 101,
    "idrid_seg": 20,
    "hrf": 20,
    "drive": 40,
    "stare": 20,
}


@pytest.mark.data
@pytest.mark.parametrize("reader", sorted(COUNTS))
def test_all_rows_of_the_real_set(real_data: Path, reader: str) -> None:
    found = rows_of(reader, real_data / reader)
    assert len(found) == COUNTS[reader]
    for record in found:
        assert record.image.is_file()
        assert all(layer.image.is_file() for layers in record.maps.values() for layer in layers)
    for record in found[:: max(1, len(found) // 4)]:
        result = prepare(record, 128, 95)
        assert isinstance(result, Prepared), result
        for name in record.maps:
            assert decode_map(result.row[name]["bytes"]).shape == (128, 128)


@pytest.mark.data
def test_odir_keywords_all_map_and_agree_with_the_derived_labels(real_data: Path) -> None:
    with (real_data / "odir5k/manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    words = {word for row in rows for word in row["keywords"].split("; ")}
    assert words <= ODIR_GRADES.keys() | ODIR_GLAUCOMA.keys() | ODIR_PICTURE | ODIR_FINDINGS.keys()
    found = rows_of("odir5k", real_data / "odir5k")
    grades = Counter()
    for row, record in zip(rows, found, strict=True):
        if row["dr_grade"] and int(row["dr_grade"]) != record.dr_grade:
            grades[row["keywords"]] += 1
        if record.glaucoma is not None:
            assert record.glaucoma == row["glaucoma"], row["keywords"]
    assert not grades


@pytest.mark.data
def test_the_disc_is_on_the_left_in_a_left_eye(real_data: Path) -> None:
    """Our convention (docs/cohorts.md), as ODIR-5K and HEI-MED show it: HEI-MED has the disc marked by hand."""
    with (real_data / "hei_med/manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert (float(row["disc_x"]) < float(row["width"]) / 2) == (row["eye"] == "left")
    sides = Counter()
    for record in rows_of("odir5k", real_data / "odir5k")[:600]:
        if record.findings != ():
            continue
        result = prepare(record, 128, 95)
        assert isinstance(result, Prepared)
        image = np.asarray(Image.open(io.BytesIO(result.row["image"]["bytes"])).convert("L").resize((16, 16)), float)
        axis = np.arange(16) - 7.5
        image[np.hypot(axis[:, None], axis[None, :]) > 6.5] = 0
        column = np.unravel_index((image * (np.abs(axis)[:, None] < 4)).argmax(), image.shape)[1]
        sides[record.eye, "left" if column < 8 else "right"] += 1
    for eye in EYES:
        other = "right" if eye == "left" else "left"
        assert sides[eye, eye] > 3 * sides[eye, other], sides
