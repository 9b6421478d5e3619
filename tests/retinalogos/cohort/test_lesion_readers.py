"""Readers of lesion sets in their published layouts, on small copies of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from drawn_eye import draw_eye
from PIL import Image

from retinalogos.cohort.prepare import Prepared, prepare
from retinalogos.cohort.readers import Record, Source, ddr_seg, fgadr, read, retinal_lesions
from retinalogos.cohort.schema import LESION_CLASSES
from retinalogos.cohort.shards import decode_map
from retinalogos.errors import DataError, UsageError

SIDE = 64


def write_eye(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_eye(seed, SIDE)).save(path)


def write_mask(path: Path, top: int, value: int = 255) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[top : top + 6, 26:38] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def lesions_of(record: Record) -> set[str]:
    result = prepare(record, SIDE, 95)
    assert isinstance(result, Prepared), result
    return {LESION_CLASSES[value] for value in np.unique(decode_map(result.row["lesions"]["bytes"]))} - {"none"}


def test_fgadr(tmp_path: Path) -> None:
    for number, name in enumerate(("0508_1.png", "0508_2.png", "1000_1.png")):
        write_eye(tmp_path / "Original_Images" / name, number)
        for at, folder in enumerate(fgadr.MASKS):
            write_mask(tmp_path / folder / name, 12 + 10 * at)
    table = tmp_path / fgadr.GRADES
    table.write_text("0508_1.png,3\n0508_2.png,0\n1000_1.png,4\n")
    one, two, three = read("fgadr", Source(tmp_path))
    assert [record.dr_grade for record in (one, two, three)] == [3, 0, 4]
    assert one.patient == two.patient != three.patient
    assert lesions_of(one) == set(fgadr.MASKS.values())
    table.write_text("0508_1.png,7\n")
    with pytest.raises(DataError, match=r"Grading_Label\.csv, row 1, column 'grade': holds '7'"):
        list(read("fgadr", Source(tmp_path)))
    table.write_text("0508_1.png\n")
    with pytest.raises(DataError, match="should be a name and a grade"):
        list(read("fgadr", Source(tmp_path)))
    table.unlink()
    with pytest.raises(UsageError, match="Seg-set"):
        list(read("fgadr", Source(tmp_path)))


def test_ddr_seg(tmp_path: Path) -> None:
    home = tmp_path / "lesion_segmentation"
    for split, labels in (("train", "label"), ("valid", "segmentation label"), ("test", "label")):
        write_eye(home / split / "image" / f"007-{split}.jpg")
        for at, folder in enumerate(ddr_seg.MASKS):
            write_mask(home / split / labels / folder / f"007-{split}.tif", 12 + 10 * at)
    found = list(read("ddr_seg", Source(tmp_path)))
    assert [record.labels["split"] for record in found] == ["train", "valid", "test"]
    assert all(record.dr_grade is None and record.patient is None for record in found)
    assert all(lesions_of(record) == set(ddr_seg.MASKS.values()) for record in found)
    grading = tmp_path / "DR_grading"
    grading.mkdir()
    (grading / "train.txt").write_text("007-train.jpg 2\n007-other.jpg 1\n")
    (grading / "test.txt").write_text("007-test.jpg 5\n")
    assert [record.dr_grade for record in read("ddr_seg", Source(tmp_path))] == [2, None, None]
    (grading / "test.txt").write_text("007-test.jpg\n")
    with pytest.raises(DataError, match=r"test\.txt, row 1"):
        list(read("ddr_seg", Source(tmp_path)))
    with pytest.raises(UsageError, match="DDR-dataset"):
        list(read("ddr_seg", Source(home)))


def test_retinal_lesions(tmp_path: Path) -> None:
    for number, name in enumerate(("10_left", "10_right")):
        write_eye(tmp_path / "images_896x896" / f"{name}.jpg", number)
    masks = tmp_path / "lesion_segs_896x896" / "10_left"
    write_mask(masks / "hard_exudate.png", 12)
    write_mask(masks / "microaneurysm.png", 30, value=127)
    write_mask(masks / "fibrous_proliferation.png", 45)
    with (tmp_path / "dr_grades.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image id", "kaggle label", "our label"], ["10_left", 2, 3], ["10_right", 0, 0]])
    left, right = read("retinal_lesions", Source(tmp_path))
    assert (left.patient, left.eye, left.dr_grade) == ("10", "left", 3)
    assert (right.patient, right.eye, right.dr_grade) == ("10", "right", 0)
    assert lesions_of(left) == {"hard_exudate"}, "neither what breaks the guidelines nor what has no class here"
    assert lesions_of(right) == set()
    (tmp_path / "dr_grades.csv").write_text("image id,our label\n10,3\n")
    with pytest.raises(DataError, match="row 2, column 'image id'"):
        list(read("retinal_lesions", Source(tmp_path)))


def test_every_lesion_is_of_the_vocabulary() -> None:
    for module in (ddr_seg, fgadr, retinal_lesions):
        assert set(module.MASKS.values()) <= set(LESION_CLASSES)
