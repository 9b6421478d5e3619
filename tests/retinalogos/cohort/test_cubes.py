"""Cubes in cohorts: encoded, streamed, read from files, quarantined."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hn
from PIL import Image

from retinalogos.cohort.cubes import Cube, band_shifts, check_cube, decode_cube, encode_cube, render_rgb
from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.picture import UnusableImage
from retinalogos.cohort.readers import cubes as cube_reader
from retinalogos.cohort.readers.cubes import read_cube
from retinalogos.cohort.schema import SCHEMA
from retinalogos.cohort.shards import CUBE_GROUP_BYTES, Cohort, CohortWriter
from retinalogos.errors import DataError, UsageError

WAVELENGTHS = (450.0, 550.0, 650.0, 850.0)


def eye(seed: int, size: int = 64) -> np.ndarray:
    """Something with edges that all bands share: bands × size × size, 0-1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    field = np.hypot(x, y) < 0.45
    lines = np.zeros((size, size))
    for _ in range(6):
        a, b, c = rng.uniform(-1, 1, 3)
        lines = np.maximum(lines, np.exp(-(((a * x + b * y + 0.3 * c) / 0.03) ** 2)))
    bands = [level * (1 - depth * lines) for level, depth in ((0.02, 0.6), (0.05, 0.5), (0.2, 0.2), (0.3, 0.15))]
    return np.stack(bands).astype(np.float32) * field


@given(values=hn.arrays(np.uint16, hn.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)))
@settings(max_examples=25, deadline=None)
def test_a_cube_comes_back_as_it_was(values: np.ndarray) -> None:
    cube = Cube(values, tuple(float(450 + b) for b in range(len(values))))
    again = decode_cube(encode_cube(cube))
    assert np.array_equal(again.values, values)
    assert again.wavelengths == cube.wavelengths
    last = decode_cube(encode_cube(cube), bands=[len(values) - 1])
    assert np.array_equal(last.values[0], values[-1])


def test_a_damaged_band_is_named_as_such() -> None:
    cell = encode_cube(Cube.of(eye(0), WAVELENGTHS))
    cell["bands"][1] = cell["bands"][1][:40]
    with pytest.raises(DataError, match="damaged"):
        decode_cube(cell)


def bad(kind: str) -> tuple[np.ndarray, tuple[float, ...] | None]:
    cube, wavelengths = eye(1), WAVELENGTHS
    if kind == "missing wavelengths":
        return cube, None
    if kind == "wrong band count":
        return cube[:3], wavelengths[:3]
    if kind == "wavelengths not ascending":
        return cube, wavelengths[::-1]
    if kind == "not finite":
        cube[2, 5, 5] = np.nan
    if kind == "saturated band":
        cube[3] *= 5
    if kind == "empty band":
        cube[0] = 0.1
    if kind == "mis-registered bands":
        cube[2] = np.roll(cube[2], 9, axis=1)
    return cube, wavelengths


@pytest.mark.parametrize(
    "reason",
    [
        "missing wavelengths",
        "wrong band count",
        "wavelengths not ascending",
        "not finite",
        "saturated band",
        "empty band",
        "mis-registered bands",
    ],
)
def test_a_cube_that_is_no_good_says_why(reason: str) -> None:
    cube, wavelengths = bad(reason)
    with pytest.raises(UnusableImage) as refused:
        check_cube(cube, wavelengths, 4, most_shift=4.0)
    assert refused.value.reason == reason
    check_cube(eye(1), WAVELENGTHS, 4, most_shift=4.0)


def test_a_shift_is_measured() -> None:
    cube = eye(2)
    cube[1:] = np.roll(cube[1:], 5, axis=2)
    assert band_shifts(cube) == pytest.approx([5, 0, 0], abs=0.8)


def test_a_grey_surface_is_rendered_grey_and_blood_red() -> None:
    wavelengths = np.linspace(450, 905, 16)
    grey = render_rgb(np.full((16, 4, 4), 0.2), wavelengths)
    assert np.ptp(grey.astype(int)) <= 2
    red = render_rgb(np.broadcast_to(np.where(wavelengths > 590, 0.2, 0.02)[:, None, None], (16, 4, 4)), wavelengths)
    assert int(red[0, 0, 0]) > 1.5 * int(red[0, 0, 1])


def row(number: int) -> dict:
    return {
        "image_id": f"{number:016x}", "patient_id": str(number), "split": ("train", "test")[number % 2], "source": "s",
        "width": 4, "height": 4, "sha256": "0", "image": {"bytes": b"", "path": "x"},
    }  # fmt: skip


def test_a_cohort_of_cubes_streams_and_one_without_knows_nothing_of_them(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "cubes", "c", wavelengths=WAVELENGTHS) as writer:
        for number in range(6):
            writer.add(row(number) | {"cube": encode_cube(Cube.of(eye(number), WAVELENGTHS))})
    cohort = Cohort(tmp_path / "cubes")
    assert cohort.wavelengths == list(WAVELENGTHS)
    found = list(cohort.cubes(("patient_id",), split="test"))
    assert [r["patient_id"] for r, _ in found] == ["1", "3", "5"]
    assert np.array_equal(found[1][1].values, Cube.of(eye(3), WAVELENGTHS).values)

    with CohortWriter(tmp_path / "plain", "c") as writer:
        writer.add(row(0))
    plain = Cohort(tmp_path / "plain")
    assert "wavelengths_nm" not in plain.meta
    assert next(plain.rows()).keys() == set(SCHEMA.names)
    with pytest.raises(UsageError, match="no hyperspectral cubes"):
        list(plain.cubes())
    with pytest.raises(DataError, match="cube"), CohortWriter(tmp_path / "wrong", "c") as writer:
        writer.add(row(0) | {"cube": None})


def test_row_groups_of_large_cubes_stay_small(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    noise = Cube(np.random.default_rng(0).integers(0, 65536, (4, 768, 768), np.uint16), WAVELENGTHS)
    cell = encode_cube(noise)
    with CohortWriter(tmp_path / "large", "c", wavelengths=WAVELENGTHS) as writer:
        for number in range(12):
            writer.add(row(number) | {"cube": cell})
    groups = pq.ParquetFile(tmp_path / "large" / "shard-00000.parquet").metadata
    size = sum(map(len, cell["bands"]))
    largest = max(groups.row_group(g).total_byte_size for g in range(groups.num_row_groups))
    assert largest < CUBE_GROUP_BYTES + 2 * size


def write_envi(folder: Path, cube: np.ndarray, interleave: str, unit: str = "Nanometers") -> Path:
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]
    header = folder / "scan.hdr"
    (cube.transpose(axes) * 10000).astype("<u2").tofile(folder / "scan.raw")
    scale = 1000 if unit == "Micrometers" else 1
    header.write_text(
        "ENVI\ndescription = {two\n lines}\n"
        f"samples = {cube.shape[2]}\nlines = {cube.shape[1]}\nbands = {len(cube)}\nheader offset = 0\n"
        f"data type = 12\ninterleave = {interleave}\nbyte order = 0\nreflectance scale factor = 10000\n"
        f"wavelength units = {unit}\nwavelength = {{{', '.join(str(nm / scale) for nm in WAVELENGTHS)}}}\n"
    )
    return header


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("unit", ["Nanometers", "Micrometers"])
def test_envi_is_read_in_every_order(tmp_path: Path, interleave: str, unit: str) -> None:
    cube = eye(0)[:, :40]
    values, wavelengths = read_cube(write_envi(tmp_path, cube, interleave, unit))
    assert np.allclose(values, cube, atol=1e-4)
    assert wavelengths == pytest.approx(WAVELENGTHS)


def test_envi_is_read_with_empty_fields_an_offset_and_the_large_end_first(tmp_path: Path) -> None:
    cube = eye(0)[:, :40]
    header = write_envi(tmp_path, cube, "bip")
    text = header.read_text().replace("wavelength units = Nanometers", "wavelength units =").replace("\n", "\r\n")
    header.write_text(
        text.replace("header offset = 0", "header offset = 7").replace("byte order = 0", "byte order = 1")
    )
    raw = np.fromfile(tmp_path / "scan.raw", "<u2").astype(">u2").tobytes()
    (tmp_path / "scan.raw").unlink()
    (tmp_path / "scan.bip").write_bytes(b"a label" + raw)
    values, wavelengths = read_cube(header)
    assert np.allclose(values, cube, atol=1e-4)
    assert wavelengths == pytest.approx(WAVELENGTHS)


def test_tiff_and_numpy_are_read(tmp_path: Path) -> None:
    cube = Cube.of(eye(0), WAVELENGTHS)
    pages = [Image.fromarray(band) for band in cube.values]
    said = "wavelengths: " + ", ".join(f"{nm:g}" for nm in WAVELENGTHS)
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], description=said)
    pages[0].save(tmp_path / "bare.tif", save_all=True, append_images=pages[1:])
    np.savez(tmp_path / "a.npz", cube=cube.values, wavelengths=np.array(WAVELENGTHS))
    for name in ("a.tif", "a.npz"):
        values, wavelengths = read_cube(tmp_path / name)
        assert np.allclose(values, cube.reflectance)
        assert wavelengths == WAVELENGTHS
    assert read_cube(tmp_path / "bare.tif")[1] is None


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="h5py is installed")
def test_hdf5_names_the_package_that_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(UsageError, match="h5py"):
        read_cube(tmp_path / "a.h5")


def test_hdf5_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"], file["wavelengths"] = eye(0), WAVELENGTHS
    values, wavelengths = read_cube(tmp_path / "a.h5")
    assert np.allclose(values, eye(0))
    assert wavelengths == WAVELENGTHS


def test_other_files_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"\.hdr"):
        read_cube(tmp_path / "a.jpg")
    for name in ("a.hdr", "a.tif", "a.npz"):
        (tmp_path / name).write_bytes(b"no such thing")
        with pytest.raises(UnusableImage):
            read_cube(tmp_path / name)
    np.savez(tmp_path / "b.npz", picture=eye(0))
    with pytest.raises(UnusableImage) as refused:
        read_cube(tmp_path / "b.npz")
    assert refused.value.detail == "it lacks 'cube', or its value is not known"
    write_envi(tmp_path, eye(0), "bsq")
    (tmp_path / "scan.raw").write_bytes(b"short")
    with pytest.raises(UnusableImage, match="unreadable"):
        read_cube(tmp_path / "scan.hdr")


def how(quarantine_share: float) -> Ingestion:
    return Ingestion(
        size=48,
        jpeg_quality=95,
        fractions={"train": 0.6, "validation": 0.2, "test": 0.2},
        seed=0,
        quarantine_share=quarantine_share,
        near_distance=0,
        key=b"k",
        wavelengths=WAVELENGTHS,
    )


def test_files_become_a_cohort_and_bad_ones_are_quarantined(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(8):
        np.savez(folder / f"anna-{number}.npz", cube=eye(number), wavelengths=np.array(WAVELENGTHS))
    np.savez(folder / "bare.npz", cube=eye(9))
    table = tmp_path / "table.csv"
    rows = [f"anna-{n}.npz,p{n // 2},{('left', 'right')[n % 2]},61" for n in range(8)] + ["bare.npz,p9,left,50"]
    table.write_text("\n".join(["file,patient,eye,age", *rows]))
    records = cube_reader.read(folder, table, 48, WAVELENGTHS, 4.0)
    summary = ingest(records, tmp_path / "cohort", "files", how(0.2))
    assert (summary.rows, summary.quarantined) == (8, 1)
    with (tmp_path / "cohort" / "quarantine.csv").open() as handle:
        assert [(line["row"], line["file"], line["reason"]) for line in csv.DictReader(handle)] == [
            ("9", "bare.npz", "missing wavelengths")
        ]
    cohort = Cohort(tmp_path / "cohort")
    found = cohort.table(("patient_id", "split", "eye", "age")).to_pylist()
    assert {(r["patient_id"], r["split"]) for r in found} == {(r["patient_id"], r["split"]) for r in found[::2]}
    assert "anna" not in json.dumps(found)
    assert next(cohort.cubes())[1].values.shape == (4, 48, 48)

    table.write_text("file,patient\nmissing.npz,p0")
    with pytest.raises(DataError, match=r"line 2: 'missing\.npz'"):
        list(cube_reader.read(folder, table, 48, WAVELENGTHS, 4.0))
    with pytest.raises(UsageError, match="set `source`"):
        list(cube_reader.read(tmp_path / "nowhere", None, 48, WAVELENGTHS, 4.0))


def test_labels_of_the_table_are_true_or_false(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", cube=eye(0), wavelengths=np.array(WAVELENGTHS))
    table = tmp_path / "table.csv"
    table.write_text("file,amyloid,other\na.npz,TRUE,\na.npz,0,1\n")
    one, two = cube_reader.read(tmp_path, table, 48, WAVELENGTHS, 4.0)
    assert one.labels == {"amyloid": True}
    assert two.labels == {"amyloid": False, "other": True}
    table.write_text("file,amyloid\na.npz,maybe\n")
    with pytest.raises(DataError, match="line 2: label amyloid is 'maybe'"):
        list(cube_reader.read(tmp_path, table, 48, WAVELENGTHS, 4.0))


def test_wavelengths_are_those_that_most_of_the_first_cubes_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", cube=eye(0))
    (tmp_path / "b.npz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="none of the 2 cubes looked at"):
        cube_reader.wavelengths_of(tmp_path)
    np.savez(tmp_path / "c.npz", cube=eye(0)[:3], wavelengths=np.array(WAVELENGTHS[:3]))
    assert cube_reader.wavelengths_of(tmp_path) == WAVELENGTHS[:3]
    for name in "de":
        np.savez(tmp_path / f"{name}.npz", cube=eye(0), wavelengths=np.array(WAVELENGTHS))
    assert cube_reader.wavelengths_of(tmp_path) == WAVELENGTHS, "one cube of other bands does not decide for all"
