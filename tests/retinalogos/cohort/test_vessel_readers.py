"""The readers of vessel sets, each in its published layout."""

from pathlib import Path

import numpy as np
import pytest
from drawn_eye import draw_eye
from PIL import Image

from retinalogos.cohort.picture import read_classes
from retinalogos.cohort.prepare import Prepared, prepare
from retinalogos.cohort.readers import Record, Source, read
from retinalogos.cohort.shards import decode_map
from retinalogos.errors import DataError, UsageError

SIDE = 64
COLOURS = {"artery": (255, 0, 0), "vein": (0, 0, 255), "overlap": (0, 255, 0), "uncertain": (255, 255, 255)}


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def kinds() -> np.ndarray:
    """A square of each colour, from the top."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    for place, colour in enumerate(COLOURS.values()):
        picture[12 + 10 * place : 18 + 10 * place, 26:38] = colour
    return picture


def stored(record: Record) -> np.ndarray:
    result = prepare(record, SIDE, 95)
    assert isinstance(result, Prepared), result
    return decode_map(result.row["vessels"]["bytes"])


def check_kinds(record: Record) -> None:
    """The middle of each square, and of a vessel that the map of kinds leaves out."""
    found = stored(record)
    assert [int(found[15 + 10 * place, 32]) for place in range(4)] == [1, 2, 3, 3]
    assert found[57, 32] == 3


def vessels() -> np.ndarray:
    grey = (kinds().max(2) > 0).astype(np.uint8) * 255
    grey[54:60, 26:38] = 255
    return grey


@pytest.mark.parametrize("top", ["AV_groundTruth", "."])
def test_rite(tmp_path: Path, top: str) -> None:
    for split, stem in (("training", "21_training"), ("test", "01_test")):
        folder = tmp_path / top / split
        write(folder / "images" / f"{stem}.tif", draw_eye(0, SIDE))
        write(folder / "av" / f"{stem}.png", kinds())
        write(folder / "vessel" / f"{stem}.png", vessels())
    records = list(read("rite", Source(tmp_path)))
    assert [record.labels["split"] for record in records] == ["training", "test"]
    for record in records:
        check_kinds(record)


def test_les_av(tmp_path: Path) -> None:
    folder = tmp_path / "LES-AV"
    write(folder / "images" / "276.png", draw_eye(0, SIDE))
    write(folder / "masks" / "276.png", np.full((SIDE, SIDE), 255, np.uint8))
    write(folder / "vessel-segmentations" / "276.png", vessels())
    write(folder / "arteries-and-veins" / "276.png", kinds())
    (record,) = read("les_av", Source(tmp_path))
    check_kinds(record)
    assert set(record.maps) == {"vessels", "fov"}


def test_fives(tmp_path: Path) -> None:
    for split, stem in (("train", "1_A"), ("train", "7_N"), ("test", "3_G")):
        write(tmp_path / split / "Original" / f"{stem}.png", draw_eye(0, SIDE))
        write(tmp_path / split / "Ground truth" / f"{stem}.png", vessels())
    records = list(read("fives", Source(tmp_path)))
    assert [(r.labels["split"], r.labels["disease"]) for r in records] == [
        ("train", "A"),
        ("train", "N"),
        ("test", "G"),
    ]
    assert (records[0].findings, records[1].findings, records[2].glaucoma) == (("amd",), (), "glaucoma")
    assert set(np.unique(stored(records[0]))) == {0, 3}
    write(tmp_path / "test" / "Original" / "4_X.png", draw_eye(0, SIDE))
    with pytest.raises(DataError, match="4_X"):
        list(read("fives", Source(tmp_path)))


def test_drive_spreads_its_centre_lines_over_the_vessels(tmp_path: Path) -> None:
    """Two bars, one with a line of arteries and one with a line of veins; of a second eye nothing is known."""
    vessel, line = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    for column, kind in ((20, 1), (40, 2)):
        vessel[12:52, column : column + 6] = 255
        line[12:52, column + 3] = kind
    line[30, 50:60] = 1  # beside the vessels: paints nothing
    for stem in ("01_test", "21_training"):
        write(tmp_path / "images" / f"{stem}.png", draw_eye(0, SIDE))
        write(tmp_path / "vessel" / f"{stem}.png", vessel)
        write(tmp_path / "fov" / f"{stem}.png", np.full((SIDE, SIDE), 255, np.uint8))
    write(tmp_path / "av_centerline" / "01_test.png", line)
    columns = "image,vessel_mask,fov_mask,av_centerline,split,pathology_note\n"
    rows = [
        f"images/{stem}.png,vessel/{stem}.png,fov/{stem}.png,{lines},test,\n"
        for stem, lines in (("01_test", "av_centerline/01_test.png"), ("21_training", ""))
    ]
    (tmp_path / "manifest.csv").write_text(columns + "".join(rows))
    known, unknown = (read_classes(record.maps["vessels"]) for record in read("drive", Source(tmp_path)))
    assert (known[30, 20:26] == 1).all()
    assert (known[30, 40:46] == 2).all()
    assert not known[30, 50:60].any()
    assert set(np.unique(unknown)) == {0, 3}


def test_inspire_avr(tmp_path: Path) -> None:
    write(tmp_path / "INSPIRE-AVR" / "org" / "image1.jpg", draw_eye(0, SIDE))
    (record,) = read("inspire_avr", Source(tmp_path))
    assert record.maps == {}


@pytest.mark.parametrize("reader", ["rite", "les_av", "fives", "inspire_avr"])
def test_another_folder_is_refused(reader: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is missing"):
        list(read(reader, Source(tmp_path)))
