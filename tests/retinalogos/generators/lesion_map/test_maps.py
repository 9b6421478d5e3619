"""Lesion maps: conversions there and back, repair, and what a drawn map must be."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from retinalogos.cohort.schema import LESION_CLASSES
from retinalogos.cohort.shards import encode_png
from retinalogos.errors import UsageError
from retinalogos.generators.lesion_map import maps
from retinalogos.phantom import draw, sample_records

SIZE = 32
classes_of_any_map = arrays.arrays(np.uint8, (12, 12), elements=st.integers(0, len(maps.CLASSES) - 1))


def row(**arrays_of_maps: np.ndarray) -> dict:
    found = {"source": "phantom", "lesions": None, "disc_cup": None, "fov": None}
    return found | {name: {"bytes": encode_png(array)} for name, array in arrays_of_maps.items()}


def written(path: Path, classes: np.ndarray, **options) -> Path:
    Image.fromarray(maps.to_rgb(classes)).save(path, **options)
    return path


def test_colours_are_those_published() -> None:
    assert dict(zip(maps.CLASSES, maps.COLOURS.tolist(), strict=True)) == {
        "BG": [0, 0, 0],
        "EX": [239, 164, 0],
        "HE": [0, 186, 127],
        "SE": [0, 185, 255],
        "MA": [34, 80, 242],
        "OD": [73, 73, 73],
        "VB": [255, 255, 255],
    }


@given(classes_of_any_map)
def test_masks_there_and_back(classes) -> None:
    assert (maps.from_masks(maps.to_masks(classes)) == classes).all()


@given(classes_of_any_map)
def test_cohort_maps_there_and_back(classes) -> None:
    found = maps.from_row(row(**maps.to_cohort(classes)), np.zeros((12, 12, 3), np.uint8), 12)
    assert (maps.classes_of(found) == classes).all()


@given(classes_of_any_map)
@settings(max_examples=20)
def test_pictures_there_and_back(tmp_path_factory, classes) -> None:
    if (classes == maps.BG).all():
        classes = maps.template(12)
    path = written(tmp_path_factory.mktemp("map") / "map.png", classes)
    assert (maps.read_drawn(path, 12) == classes).all()


def test_phantom_eyes_are_known_at_every_pixel() -> None:
    eyes = draw(sample_records(12, seed=1), SIZE)
    for eye in eyes:
        found = maps.from_row(row(lesions=eye.lesions, disc_cup=eye.disc_cup, fov=eye.fov), eye.image, SIZE)
        classes = maps.classes_of(found)
        assert (classes == maps.BG).sum() == (eye.fov == 0).sum()
        assert (maps.one_hot(classes[None]).sum(1) == 1).all()
        blood = np.isin(eye.lesions, [LESION_CLASSES.index(n) for n in ("haemorrhage", "preretinal_haemorrhage")])
        assert ((classes == maps.HE) == (blood & (eye.fov > 0))).all()


def test_what_is_not_marked_is_not_known() -> None:
    lesions = np.zeros((SIZE, SIZE), np.uint8)
    lesions[10:12, 10:12] = LESION_CLASSES.index("exudate")
    fov = maps.to_cohort(maps.template(SIZE))["fov"]
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    found = maps.from_row(row(lesions=lesions, fov=fov) | {"source": "hei_med"}, image, SIZE)
    assert (found[10:12, 10:12] == maps.bits((maps.EX, maps.SE))).all()
    assert found[20, 20] == maps.bits((maps.VB, maps.HE, maps.MA, maps.OD)), "exudates are marked, the others are not"
    assert maps.classes_of(found)[0, 0] == maps.BG
    unmarked = maps.from_row(row(fov=fov), image, SIZE)
    assert unmarked[20, 20] == maps.bits((maps.VB, maps.OD, *maps.LESIONS))


def test_classes_that_no_pixel_tells_apart_are_one() -> None:
    background, retina = maps.bits((maps.BG,)), maps.bits((maps.VB, maps.HE, maps.MA, maps.OD))
    of_exudates = np.array([background, retina, maps.bits((maps.EX, maps.SE))], np.uint8)
    assert maps.classes_of(maps.told_apart(of_exudates)[of_exudates]).tolist() == [maps.BG, maps.VB, maps.EX]
    # Beside eyes in which blood is marked, the others may have some.
    whole = np.array([maps.bits((c,)) for c in range(len(maps.CLASSES))], np.uint8)
    both = np.concatenate([of_exudates, whole])
    assert (maps.told_apart(both)[both] == both).all()
    without_disc = np.array([background, maps.bits((maps.VB, maps.OD)), maps.bits((maps.HE,))], np.uint8)
    assert maps.classes_of(maps.told_apart(without_disc)[without_disc]).tolist() == [maps.BG, maps.VB, maps.HE]


def test_a_field_of_view_is_found_where_none_is_marked() -> None:
    (eye,) = draw(sample_records(1, seed=3), 128)
    found = maps.from_row(row(lesions=eye.lesions, disc_cup=eye.disc_cup), eye.image, 128)
    assert ((maps.classes_of(found) == maps.BG) == (eye.fov == 0)).mean() > 0.97


def test_small_lesions_survive_a_smaller_map() -> None:
    classes = maps.template(64)
    classes[20, 20] = maps.MA  # a quarter of a pixel of half the side
    classes[40:48, 40:48] = maps.HE
    found = maps.classes_of(maps.from_row(row(**maps.to_cohort(classes)), np.zeros((64, 64, 3), np.uint8), 32))
    assert found[10, 10] == maps.MA
    assert (found[20:24, 20:24] == maps.HE).all()


@given(arrays.arrays(np.uint8, (SIZE, SIZE), elements=st.integers(0, len(maps.CLASSES) - 1)))
@settings(max_examples=30)
def test_a_repaired_map_is_a_field_with_one_disc_at_most(classes) -> None:
    from scipy.ndimage import label

    repaired = maps.repair(classes)
    inside = repaired != maps.BG
    assert (inside <= maps.circle(SIZE)).all()
    if inside.any():  # the field is a circle, cut off above and below at most
        rows = np.flatnonzero(inside.any(1))
        assert (np.diff(rows) == 1).all()
    assert label(repaired == maps.OD, np.ones((3, 3)))[1] <= 1
    lesions = np.isin(repaired, maps.LESIONS)
    assert (repaired[lesions] == classes[lesions]).all()


def test_repair_leaves_a_whole_map_nearly_as_it_is() -> None:
    eyes = draw(sample_records(20, seed=5), 64)
    for eye in eyes:
        truth = row(lesions=eye.lesions, disc_cup=eye.disc_cup, fov=eye.fov)
        classes = maps.classes_of(maps.from_row(truth, eye.image, 64))
        assert (maps.repair(classes) != classes).mean() < 0.03


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p, c: written(p.with_suffix(".jpg"), c, quality=90), "JPEG"),
        (lambda p, c: _saved(Image.fromarray(maps.to_rgb(c)).convert("RGBA"), p), "alpha"),
        (lambda p, c: _saved(Image.fromarray(maps.to_rgb(c)).convert("P"), p), "palette"),
        (lambda p, c: _saved(Image.fromarray(maps.to_rgb(c)).convert("L"), p), "mode L"),
        (lambda p, c: written(p, c[:, :20]), "20 × 32 pixels and must be 32 × 32"),
        (lambda p, c: written(p, np.zeros_like(c)), "all background"),
        (lambda p, c: p, "is not there"),
        (lambda p, c: _bytes(p, b"no picture"), "cannot be read"),
    ],
    ids=["jpeg", "alpha", "palette", "grey", "size", "empty", "missing", "damaged"],
)
def test_what_is_no_map_is_refused(tmp_path, change, said) -> None:
    path = change(tmp_path / "map.png", maps.template(SIZE))
    with pytest.raises(UsageError, match=said):
        maps.read_drawn(path, SIZE)


def _saved(picture: Image.Image, path: Path) -> Path:
    picture.save(path)
    return path


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_an_unknown_colour_is_named_with_its_place(tmp_path) -> None:
    pixels = maps.to_rgb(maps.template(SIZE))
    pixels[7, 19] = (240, 165, 3)
    Image.fromarray(pixels).save(tmp_path / "map.png")
    with pytest.raises(UsageError, match=r"#f0a503 \(1 pixels, first at x 19, y 7; nearest is EX #efa400\)"):
        maps.read_drawn(tmp_path / "map.png", SIZE)


def test_traces_of_a_jpeg_in_a_png_are_recognised(tmp_path) -> None:
    path = written(tmp_path / "map.jpg", maps.template(SIZE), quality=60)
    Image.open(path).save(tmp_path / "map.png")
    with pytest.raises(UsageError, match="JPEG artefacts"):
        maps.read_drawn(tmp_path / "map.png", SIZE)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ({"VB": np.ones((4, 4)), "XX": np.ones((4, 4))}, "'XX' is no class"),
        ({"EX": np.ones((4, 4))}, "lack 'VB'"),
        ({"VB": np.ones((4, 4)), "EX": np.ones((4, 5))}, "differ in size"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, said) -> None:
    with pytest.raises(UsageError, match=said):
        maps.from_masks(masks)


@pytest.mark.data
def test_real_lesion_maps(real_data) -> None:
    from retinalogos.cohort.prepare import Prepared, prepare
    from retinalogos.cohort.readers import Source, read

    for reader, known in (("idrid_seg", True), ("hei_med", False)):
        record = next(iter(read(reader, Source(folder=real_data / reader))))
        prepared = prepare(record, 128, 95)
        assert isinstance(prepared, Prepared)
        blank = dict.fromkeys(("lesions", "disc_cup", "fov"))
        image = np.asarray(Image.open(__import__("io").BytesIO(prepared.row["image"]["bytes"])))
        classes = maps.classes_of(maps.from_row(blank | prepared.row, image, 128))
        assert (classes != maps.UNKNOWN).all() == known
        assert 0.1 < (classes == maps.BG).mean() < 0.5
