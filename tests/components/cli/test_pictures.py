import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from tiny_generator import save_tiny_generator

from components import cli
from components.cli import pictures
from retinalogos.generators.text.configuration import Solver
from retinalogos.phantom import draw, sample_records
from retinalogos.provenance import generator_hash, read_png


class DrawnByHash:
    """Stands for a generator: an image depends on prompt, seed and settings and on nothing else."""

    config = SimpleNamespace(
        size=32,
        steps=20,
        guidance=1.5,
        solver="euler",
        guidance_interval=[0.0, 1.0],
        renormalise=False,
        autoguidance=1.0,
    )

    def __call__(self, prompts, *, seeds, size=None, batch_size=16, **sampling):
        assert len(prompts) == len(seeds)
        images = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            key = hashlib.sha256(f"{prompt}|{seed}|{sorted(sampling.items())}".encode()).digest()
            images.append(np.random.default_rng(list(key)).integers(0, 256, (size, size, 3), np.uint8))
        return np.stack(images)


@pytest.fixture
def model(tmp_path, monkeypatch):
    folder = tmp_path / "generator"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "TextToFundusPipeline"}')
    (folder / "weights.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(pictures, "_load", lambda folder: DrawnByHash())
    return folder


def pixels(folder: Path) -> dict[str, bytes]:
    return {p.name: Image.open(p).tobytes() for p in folder.glob("*-seed*.png")}


def test_generate_writes_pictures_with_provenance_index_and_sheet(model, tmp_path):
    out = tmp_path / "out"
    prompts = ["left eye, severe non-proliferative diabetic retinopathy", "right eye, gesundes Auge – ø"]
    assert cli.main(["generate", *prompts, "--model", str(model), "--n", "3", "--seed", "5", "--out", str(out)]) == 0
    index = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    assert [(line["prompt"], line["seed"]) for line in index] == [(p, s) for p in prompts for s in (5, 6, 7)]
    for line in index:
        chunks = read_png(out / line["file"])
        assert chunks["prompt"] == line["prompt"]
        assert chunks["seed"] == str(line["seed"])
        assert chunks["generator_sha256"] == generator_hash(model)
        assert chunks["synthetic"] == "true"
        assert (line["guidance"], line["steps"], line["size"]) == (1.5, 20, 32), "what the generator does by itself"
        assert "not for diagnosis" in chunks["notice"]
        assert chunks["software"].startswith("retinalogos ")
    assert Image.open(out / "contact_sheet.png").width > 3 * 100
    assert read_png(out / "contact_sheet.png")["synthetic"] == "true"


def test_same_seed_gives_same_picture_whatever_the_batch(model, tmp_path):
    common = ["generate", "left eye", "--model", str(model), "--n", "5"]
    assert cli.main([*common, "--batch-size", "5", "--out", str(tmp_path / "a")]) == 0
    assert cli.main([*common, "--batch-size", "2", "--out", str(tmp_path / "b")]) == 0
    assert pixels(tmp_path / "a") == pixels(tmp_path / "b")
    assert len(set(pixels(tmp_path / "a").values())) == 5


def test_a_second_call_adds_to_the_folder_and_repeats_nothing(model, tmp_path):
    out = tmp_path / "out"
    call = ["generate", "left eye", "--model", str(model), "--n", "2", "--out", str(out)]
    assert cli.main(call) == 0
    assert cli.main(call) == 0
    assert len((out / "index.jsonl").read_text().splitlines()) == 2
    assert cli.main([*call, "--guidance", "1.5"]) == 0
    assert len((out / "index.jsonl").read_text().splitlines()) == 2
    assert cli.main([*call, "--guidance", "3"]) == 0
    assert len((out / "index.jsonl").read_text().splitlines()) == 4
    assert len(pixels(out)) == 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A generator that really draws, and an eye to edit, larger than it draws and with a dark margin."""
    folder = tmp_path_factory.mktemp("trained")
    save_tiny_generator(folder / "generator")
    eye = np.zeros((90, 120, 3), np.uint8)
    eye[5:85, 20:100] = draw(sample_records(1, 0), 80)[0].image
    Image.fromarray(eye).save(folder / "eye.png")
    mask = np.zeros((90, 120), np.uint8)
    mask[40:60, 50:70] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


def test_edit_redraws_what_is_masked_and_says_what_it_was_made_from(trained, tmp_path):
    call = ["edit", str(trained / "eye.png"), "left eye, large cup", "--model", str(trained / "generator")]
    masked = ["--mask", str(trained / "mask.png"), "--strength", "1", "--n", "2"]
    assert cli.main([*call, *masked, "--out", str(tmp_path)]) == 0
    assert cli.main([*call, "--strength", "0.01", "--out", str(tmp_path)]) == 0
    index = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in index] == [0, 1, 0]
    assert {line["edited_sha256"] for line in index} == {hashlib.sha256((trained / "eye.png").read_bytes()).hexdigest()}
    first, second, whole = (np.asarray(Image.open(tmp_path / line["file"])).astype(int) for line in index)
    assert read_png(tmp_path / index[0]["file"])["mask_sha256"] == index[0]["mask_sha256"]
    changed = np.abs(first - second).max(2) > 0
    assert 30 < changed.sum() < 200  # of 32 × 32, the mask being a quarter of the eye's width and height
    assert (np.abs(first - whole).max(2) > 0).sum() > 500


def test_every_solver_can_be_asked_for():
    parser = cli.parser()
    for solver in get_args(Solver):
        for words in (["generate", "a"], ["edit", "a.png", "b"], ["between", "a", "b"]):
            assert parser.parse_args([*words, "--solver", solver, "--out", "out"]).solver == solver


def test_how_it_samples_can_be_said_and_is_told(trained, tmp_path):
    call = ["generate", "left eye", "--model", str(trained / "generator"), "--seed", "3", "--guidance", "3"]
    said = ["--solver", "heun", "--guidance-interval", "0", "0.5", "--renormalise", "--autoguidance", "1.5"]
    for folder, options in (("own", []), ("said", said)):
        assert cli.main([*call, *options, "--out", str(tmp_path / folder)]) == 0
    assert pixels(tmp_path / "own").keys() != pixels(tmp_path / "said").keys()
    assert list(pixels(tmp_path / "own").values()) != list(pixels(tmp_path / "said").values())
    record = json.loads((tmp_path / "said" / "index.jsonl").read_text())
    wanted = {"solver": "heun", "guidance_interval": [0.0, 0.5], "renormalise": True, "autoguidance": 1.5}
    assert {name: record[name] for name in wanted} == wanted


def test_between_draws_both_ends_and_the_way(trained, tmp_path):
    call = ["between", "left eye", "right eye, glaucoma", "--model", str(trained / "generator"), "--n", "3"]
    assert cli.main([*call, "--out", str(tmp_path)]) == 0
    index = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [line["share"] for line in index] == [0, 0.5, 1]
    files = [line["file"] for line in index]
    assert sorted(files) == files
    assert "1-00-of-the-way-from-left-eye-to-right-eye-glauc" in files[-1]
    assert read_png(tmp_path / files[-1])["second_prompt"] == "right eye, glaucoma"
    assert len(pixels(tmp_path)) == len(set(pixels(tmp_path).values())) == 3
    assert cli.main(["generate", "left eye", "--model", str(trained / "generator"), "--out", str(tmp_path / "g")]) == 0
    (alone,) = pixels(tmp_path / "g").values()
    ends = np.frombuffer(pixels(tmp_path)[index[0]["file"]], np.uint8).astype(int), np.frombuffer(alone, np.uint8)
    assert np.abs(ends[0] - ends[1]).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{eye}", "left eye", "--strength", "0"], "from 0.01 to 1"),
        (["{eye}", "left eye", "--mask", "{generator}/model_index.json"], "not an image"),
        (["nowhere.png", "left eye"], "nowhere.png"),
        (["{eye}", "left eye", "--mask", "{small}"], "40×40"),
        (["{small}", "left eye"], "small.png: featureless"),
    ],
)
def test_wrong_edits_are_answered_with_one_line(arguments, says, trained, tmp_path, capsys):
    Image.new("L", (40, 40)).save(tmp_path / "small.png")
    places = {"eye": trained / "eye.png", "generator": trained / "generator", "small": tmp_path / "small.png"}
    filled = [argument.format(**places) for argument in arguments]
    out = tmp_path / "out"
    assert cli.main(["edit", *filled, "--model", str(trained / "generator"), "--out", str(out)]) == 2
    answer = capsys.readouterr().err
    assert says in answer
    assert answer.count("\n") == 1
    assert not out.exists()


def test_a_generator_that_cannot_draw_is_wrong_use(trained, tmp_path, capsys):
    call = ["generate", "left eye", "--out", str(tmp_path / "out"), "--model"]
    assert cli.main([*call, str(trained / "generator"), "--size", "33"]) == 2
    assert "near it are 32 and 36" in capsys.readouterr().err
    (tmp_path / "model_index.json").write_text("{}")
    assert cli.main([*call, str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path} holds no generator that can be loaded" in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_registered_model_is_wrong_use(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert cli.main(["generate", "left eye", "--model", "models:/nobody@champion", "--out", str(tmp_path / "o")]) == 2
    assert "models:/nobody@champion" in capsys.readouterr().err.splitlines()[-1]


def test_without_a_champion_the_last_generator_draws_and_that_is_said(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model.rename(tmp_path / "models_generator")
    (tmp_path / "models").mkdir()
    (tmp_path / "models_generator").rename(tmp_path / "models" / "generator")
    assert cli.main(["generate", "left eye", "--out", "out"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("retinalogos: ")]
    assert "no champion" in line
    (index,) = map(json.loads, (tmp_path / "out" / "index.jsonl").read_text().splitlines())
    assert index["generator_sha256"] == generator_hash(tmp_path / "models" / "generator")
