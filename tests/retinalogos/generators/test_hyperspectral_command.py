"""``retinalogos hyperspectral`` from its words to its files, and what it answers to cubes that are none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_cube_generator import WAVELENGTHS, save_tiny_cube_generator

from components.cli import main
from retinalogos.cohort.cubes import Cube, encode_cube
from retinalogos.cohort.shards import CohortWriter
from retinalogos.generators.hyperspectral.pictures import band_pictures
from retinalogos.provenance import read_png


def reflectance() -> np.ndarray:
    return np.random.default_rng(0).random((4, 16, 12)) * np.array([0.05, 0.1, 0.3, 0.4])[:, None, None]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_cube_generator(tmp_path_factory.mktemp("generator"))


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["hyperspectral", *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("retinalogos: ")]
    assert len(lines) == 1
    return lines[0]


def test_what_is_drawn_says_what_it_is_and_can_be_shown(generator: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["hyperspectral", "generate", "--n", "2", "--model", str(generator), "--out", str(out)]) == 0
    entry = json.loads((out / "index.jsonl").read_text().splitlines()[0])
    assert (entry["file"], entry["synthetic"], entry["generator"]) == ("cube-seed0.npz", True, "CubePipeline")
    assert "not for diagnosis" in entry["notice"]
    with np.load(out / "cube-seed0.npz") as file:
        assert json.loads(str(file["provenance"])) == entry | {"synthetic": "true"}
    shown = tmp_path / "shown"
    words = ["--against", str(out / "cube-seed1.npz"), "--at", "1", "1", "--out", str(shown)]
    assert main(["hyperspectral", "show", str(out / "cube-seed0.npz"), *words]) == 0
    assert read_png(shown / "colour.png")["synthetic"] == "true"
    assert (shown / "sweep.gif").is_file()


def test_a_generator_of_another_kind_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "TextToFundusPipeline"}')
    said = complaint(capsys, "generate", "--model", str(tmp_path), "--out", str(tmp_path / "out"))
    assert "`retinalogos generate`" in said


def test_a_patient_s_cube_is_not_called_synthetic_and_its_name_is_kept_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "doe-jane.npz", cube=reflectance(), wavelengths=WAVELENGTHS)
    assert main(["hyperspectral", "show", str(tmp_path / "doe-jane.npz"), "--out", str(tmp_path / "out")]) == 0
    told = read_png(tmp_path / "out" / "band-480nm.png")
    assert "synthetic" not in told
    assert told["notice"].startswith("Real photographs")
    assert "doe" not in " ".join(told.values())
    with Image.open(tmp_path / "out" / "sweep.gif") as sweep:
        assert b"Real photographs" in sweep.info["comment"]


def test_a_phantom_s_cube_is_called_what_it_is(tmp_path: Path) -> None:
    with CohortWriter(tmp_path / "cohort", "c", wavelengths=WAVELENGTHS) as writer:
        row = {
            "image_id": "0", "patient_id": "0", "source": "phantom", "sha256": "0", "split": "train",
            "width": 12, "height": 16, "image": {"bytes": b"", "path": "x"},
        }  # fmt: skip
        writer.add(row | {"cube": encode_cube(Cube.of(reflectance(), WAVELENGTHS))})
    assert main(["hyperspectral", "show", f"{tmp_path / 'cohort'}:0", "--out", str(tmp_path / "out")]) == 0
    told = read_png(tmp_path / "out" / "colour.png")
    assert told["synthetic"] == "true"
    assert told["notice"].startswith("Phantom eyes")


def test_dark_bands_of_reflectance_are_shown_as_bright_as_65535ths() -> None:
    shown = band_pictures(reflectance())
    assert min(int(picture.max()) for picture in shown) == 255
    for one, other in zip(shown, band_pictures(np.rint(reflectance() * 65535)), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    assert not band_pictures(np.zeros((1, 4, 4)))[0].any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cube": np.where(reflectance() > 0.3, np.nan, reflectance())}, "not finite"),
        ({"cube": reflectance()[:3]}, "3 bands, 4 wavelengths"),
        ({"cube": reflectance()[:, :0]}, "no pixel"),
        ({"cube": reflectance()[0]}, "2 dimensions"),
        ({"cube": reflectance().astype(complex)}, "complex"),
        ({"wavelengths": WAVELENGTHS[::-1]}, "not ascending"),
        ({"wavelengths": [np.nan] * 4}, "not ascending"),
        ({"wavelengths": [-4.0, -3.0, -2.0, -1.0]}, "not ascending"),
        ({"wavelengths": np.ones((2, 2))}, "unreadable"),
        ({"wavelengths": 5.0}, "unreadable"),
        ({"wavelengths": None}, "missing wavelengths"),
        ({"cube": None}, "lacks"),
    ],
)
def test_what_is_no_cube_is_refused(changes: dict, said: str, tmp_path: Path, capsys) -> None:
    values = {"cube": reflectance(), "wavelengths": WAVELENGTHS} | changes
    np.savez(tmp_path / "cube.npz", **{name: value for name, value in values.items() if value is not None})
    assert said in complaint(capsys, "show", str(tmp_path / "cube.npz"), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".npz", ".tif", ".hdr"])
def test_damaged_files_are_refused(suffix: str, tmp_path: Path, capsys) -> None:
    np.savez_compressed(tmp_path / "cube.npz", cube=reflectance(), wavelengths=WAVELENGTHS)
    whole = (tmp_path / "cube.npz").read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    np.save(tmp_path / "bare.npy", reflectance())
    file = tmp_path / f"damaged{suffix}"
    for content in (b"", b"no cube", whole[: len(whole) // 2], bytes(changed), (tmp_path / "bare.npy").read_bytes()):
        file.write_bytes(content)
        assert "unreadable" in complaint(capsys, "show", str(file), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_wrong_words_leave_nothing_behind(generator: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    shutil.copytree(generator, other)
    (other / "unet" / "config.json").unlink()
    out = ["--out", str(tmp_path / "out")]
    for words, said in (
        (["--model", str(generator), "--size", "17"], "multiple of 16"),
        (["--model", str(generator), "--steps", "21"], "more than the 20"),
        (["--model", str(generator), "--seed", "9" * 20], "too large"),
        (["--model", str(other)], "is damaged"),
        (["--model", str(tmp_path)], "no generator"),
    ):
        assert said in complaint(capsys, "generate", *words, *out)
    for point in ("nan", "1.5", "-0.1"):
        assert "--at" in complaint(capsys, "show", "x:0", "--at", point, "0.5", *out)
    assert "no cohort.json" in complaint(capsys, "show", f"{tmp_path}:0", *out)
    assert not (tmp_path / "out").exists()
