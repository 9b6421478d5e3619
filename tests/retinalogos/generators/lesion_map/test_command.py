"""``retinalogos lesion-map`` from its words to its files."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.cli import main
from components.register.kinds import KINDS
from retinalogos.arguments import Parser
from retinalogos.errors import UsageError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.command import add_commands
from retinalogos.provenance import read_png
from retinalogos.registry import COMMANDS


def call(*words: str) -> None:
    parser = Parser()
    add_commands(parser.add_subparsers(), lambda model: Path(model or "nowhere"), "a folder")
    arguments = parser.parse_args(["lesion-map", *words])
    arguments.run(arguments)


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def model(pipeline, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    pipeline.save_pretrained(folder)
    return str(folder)


def test_generate_then_edit_then_render(model, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    call("generate", "--grade", "3", "--n", "2", "--seed", "5", "--model", model, "--out", str(out))
    names = {path.name for path in out.iterdir()} - {"index.jsonl", "contact_sheet.png"}
    assert sorted(re.sub("[0-9a-f]{8}", "#", name) for name in names) == [
        "grade-3-#-seed5-map.png", "grade-3-#-seed5.png", "grade-3-#-seed6-map.png", "grade-3-#-seed6.png"
    ]  # fmt: skip
    drawn_map, drawn = only(out, "*seed5-map.png"), only(out, "*seed5.png")
    told = read_png(drawn)
    assert (told["synthetic"], told["grade"], told["seed"]) == ("true", "3", "5")
    before = maps.read_drawn(drawn_map, 16)
    after = before.copy()
    after[7:9, 7:9] = maps.EX if before[7, 7] != maps.EX else maps.HE
    Image.fromarray(maps.to_rgb(after)).save(tmp_path / "edited.png")
    words = ["--seed", "5", "--margin", "2", "--model", model, "--out", str(out)]
    call("render", str(tmp_path / "edited.png"), "--before", str(drawn_map), *words)
    rendered = only(out, "edited-rendered-*.png")
    old, new = (np.asarray(Image.open(path)) for path in (drawn, rendered))
    outside = np.ones((16, 16), bool)
    outside[5:11, 5:11] = False
    assert (old[outside] == new[outside]).all()
    entries = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    assert {entry["file"] for entry in entries} == names | {rendered.name}
    assert "research use only" in capsys.readouterr().out


def test_a_map_that_was_drawn_on_is_not_written_over(model, tmp_path) -> None:
    words = ["--grade", "3", "--n", "2", "--seed", "5", "--model", model, "--out", str(tmp_path)]
    call("generate", *words)
    call("generate", *words)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    edited = only(tmp_path, "*seed6-map.png")
    drawn = maps.to_rgb(maps.template(16))
    for damage in (lambda: Image.fromarray(drawn).save(edited), lambda: edited.write_bytes(b"half a picture")):
        damage()
        before[edited] = edited.read_bytes()
        with pytest.raises(UsageError, match=re.escape(edited.name) + ".*another --out"):
            call("generate", *words)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_other_settings_are_other_files(model, eyes, tmp_path) -> None:
    Image.fromarray(eyes.images[0]).resize((64, 64)).save(tmp_path / "ref.jpg")
    common = ["--model", model, "--out", str(tmp_path / "out")]
    style = ["--style", str(tmp_path / "ref.jpg")]
    for words in ([], ["--truncation", "0.5"], style, []):
        call("generate", "--grade", "3", *words, *common)
    assert len(list((tmp_path / "out").glob("*-map.png"))) == 3
    for name, size in (("before", 3), ("edited", 5)):
        classes = maps.template(16)
        classes[6 : 6 + size, 6:8] = maps.HE
        Image.fromarray(maps.to_rgb(classes)).save(tmp_path / f"{name}.png")
    edit = ["--before", str(tmp_path / "before.png")]
    for words in ([], ["--seed", "4"], style, edit, [*edit, "--margin", "2"], [*edit, "--margin", "6"]):
        call("render", str(tmp_path / "edited.png"), *words, *common)
    assert len(list((tmp_path / "out").glob("edited-rendered-*.png"))) == 5, "the margin is 6 if none is given"
    entries = (tmp_path / "out" / "index.jsonl").read_text().splitlines()
    assert len(entries) == 2 * 3 + 5


def test_an_edit_that_is_none_is_told(model, tmp_path) -> None:
    Image.fromarray(maps.to_rgb(maps.template(16))).save(tmp_path / "map.png")
    words = ["render", str(tmp_path / "map.png"), "--model", model, "--out", str(tmp_path / "out")]
    with pytest.raises(UsageError, match="give --before"):
        call(*words, "--margin", "2")
    with pytest.raises(UsageError, match="nothing was edited"):
        call(*words, "--before", str(tmp_path / "map.png"))
    assert not (tmp_path / "out").exists()


def test_style_of_a_photograph(model, eyes, tmp_path) -> None:
    Image.fromarray(maps.to_rgb(maps.template(16))).save(tmp_path / "map.png")
    Image.fromarray(eyes.images[0]).resize((64, 64)).save(tmp_path / "ref.jpg")
    words = [str(tmp_path / "map.png"), "--model", model, "--out", str(tmp_path / "out")]
    call("render", *words, "--style", str(tmp_path / "ref.jpg"))
    told = read_png(only(tmp_path / "out", "map-rendered-*.png"))
    assert "ref" not in " ".join(told.values()), "no name of a patient's file"
    styled = ["--seed", "3", "--model", model, "--out", str(tmp_path / "styled"), "--style", str(tmp_path / "ref.jpg")]
    call("generate", "--grade", "2", "--n", "2", *styled)
    drawn = only(tmp_path / "styled", "grade-2-*-seed4.png")
    assert read_png(drawn)["style"] == "of a photograph"
    call("render", str(only(tmp_path / "styled", "grade-2-*-seed4-map.png")), *styled[2:])
    again = only(tmp_path / "styled", "grade-2-*-seed4-map-rendered-*.png")
    assert (np.asarray(Image.open(drawn)) == np.asarray(Image.open(again))).all(), "the same map and style"
    with pytest.raises(UsageError, match="cannot be used as a picture: missing"):
        call("render", *words, "--style", str(tmp_path / "no.jpg"))


def test_the_command_is_one_of_retinalogos(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["lesion-map", "render", "--help"])
    assert "--before" in capsys.readouterr().out


def test_template_can_be_read_again(model, tmp_path, capsys) -> None:
    call("template", "--model", model, "--out", str(tmp_path / "map.png"))
    assert (maps.read_drawn(tmp_path / "map.png", 16) == maps.template(16)).all()
    assert "EX  #efa400  hard exudate" in capsys.readouterr().out
    with pytest.raises(UsageError, match="may be drawn on"):
        call("template", "--size", "32", "--out", str(tmp_path / "map.png"))
    call("template", "--size", "32", "--out", str(tmp_path / "large.png"))
    assert Image.open(tmp_path / "large.png").size == (32, 32)


def test_wrong_words_are_answered(model, tmp_path, capsys) -> None:
    with pytest.raises(UsageError, match="grade 5 is no ICDR grade"):
        call("generate", "--grade", "5", "--model", model, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="holds no layout network"):
        call("generate", "--grade", "1", "--model", str(tmp_path / "none"), "--out", str(tmp_path))
    assert main(["lesion-map", "generate", "--grade", "1", "--model", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "it has no model_index.json" in capsys.readouterr().err
    for words, said in (
        (["--n", "0"], "less than 1"),
        (["--truncation", "2"], "from 0 to 1"),
        (["--seed", "-1"], "-1"),
    ):
        with pytest.raises(UsageError, match=said):
            call("generate", "--grade", "1", *words, "--out", str(tmp_path))


def test_a_style_in_which_nothing_is_seen_is_refused(model, tmp_path) -> None:
    Image.fromarray(maps.to_rgb(maps.template(16))).save(tmp_path / "map.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    out = tmp_path / "out"
    for name, said in (("black", "featureless"), ("huge", "too large")):
        with pytest.raises(UsageError, match=said):
            call(
                "render",
                str(tmp_path / "map.png"),
                "--model",
                model,
                "--out",
                str(out),
                "--style",
                f"{tmp_path / name}.png",
            )
    assert not out.exists()


def test_bad_words_and_damaged_weights_end_in_one_line(model, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = json.loads((other / "layout" / "config.json").read_text())
    (other / "layout" / "config.json").write_text(json.dumps(config | {"latent": 2 * config["latent"]}))
    kept = tmp_path / "kept"
    kept.write_text("kept")
    start = ["lesion-map", "generate", "--grade", "1"]
    for words, code, said in (
        (["--model", str(other), "--out", str(out)], 2, "weights are not those of its config.json"),
        (["--model", model, "--out", str(out), "--seed", "9" * 20], 2, "too large a number"),
        (["--model", model, "--out", str(kept)], 2, "is a file; name a folder"),
    ):
        assert main([*start, *words]) == code
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert said in lines[0]
    assert not out.exists()
    assert kept.read_text() == "kept"


def test_a_map_too_large_is_an_error_that_names_its_parameter(tmp_path, capsys) -> None:
    assert main(["lesion-map", "template", "--size", "100000", "--out", str(tmp_path / "map.png")]) == 2
    assert "argument --size: 100000 is too large a number; the largest is 8192" in capsys.readouterr().err
    assert not (tmp_path / "map.png").exists()


def test_a_map_too_large_for_the_memory_is_an_error_and_no_traceback(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(maps, "template", lambda size: np.empty((10**9, 10**9)))
    assert main(["lesion-map", "template", "--size", "8192", "--out", str(tmp_path / "map.png")]) == 1
    assert "allocate" in capsys.readouterr().err


def test_a_map_is_written_as_png_alone(tmp_path) -> None:
    Image.new("L", (20, 20), 255).save(tmp_path / "field.png")
    for words in (["template", "--size", "32"], ["join", f"VB={tmp_path / 'field.png'}"]):
        with pytest.raises(UsageError, match=r"map\.jpg must end in \.png"):
            call(*words, "--out", str(tmp_path / "map.jpg"))
    assert not (tmp_path / "map.jpg").exists()


def test_a_generator_of_another_kind_is_named(tmp_path, capsys) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "TextToFundusPipeline"}))
    words = ["--model", str(tmp_path), "--out", str(tmp_path / "map.png")]
    for command in (["lesion-map", "generate", "--grade", "1"], ["lesion-map", "template"], ["vessel-map", "generate"]):
        assert main([*command, *words]) == 2
        said = capsys.readouterr().err
        assert "holds a text generator, and a " in said
        assert "`retinalogos generate`" in said
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LesionMapPipeline"}))
    assert main(["generate", "left eye", *words]) == 2
    assert "draw with `retinalogos lesion-map`" in capsys.readouterr().err


def test_every_kind_of_generator_has_its_command() -> None:
    assert set(COMMANDS) == set(KINDS)
    for _, command in COMMANDS.values():
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])


def test_a_map_is_split_into_masks_and_joined_again(pipeline, tmp_path, capsys) -> None:
    classes = maps.template(32)
    classes[8:12, 10:14], classes[20:22, 6:9], classes[14:18, 20:25] = maps.HE, maps.EX, maps.OD
    Image.fromarray(maps.to_rgb(classes)).save(tmp_path / "map.png")
    call("split", str(tmp_path / "map.png"), "--out", str(tmp_path / "masks"))
    words = [f"{name}={tmp_path / 'masks' / name}.png" for name in ("VB", "EX", "HE", "OD")]
    call("join", *words, "--out", str(tmp_path / "again.png"))
    assert (maps.read_drawn(tmp_path / "again.png", 32) == classes).all()
    assert "of the field: EX 0.74 %, HE 1.97 %, OD 2.46 %" in capsys.readouterr().out
    # As data sets have them: oblong, of any mode.
    for name in ("VB", "HE"):
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{name}.png"))
        Image.fromarray(mask[4:-4]).convert("P" if name == "HE" else "1").save(tmp_path / f"{name}.png")
    oblong = [f"{name}={tmp_path / name}.png" for name in ("VB", "HE")]
    call("join", *oblong, "--size", "16", "--out", str(tmp_path / "small.png"))
    small = maps.read_drawn(tmp_path / "small.png", 16)
    assert (small[4:6, 5:7] == maps.HE).all()
    assert (small == maps.HE).sum() == 4
    assert (small[:2] == maps.BG).all(), "background was put around"


def test_masks_that_do_not_fit_are_named(tmp_path) -> None:
    Image.new("L", (20, 20), 255).save(tmp_path / "field.png")
    Image.new("L", (20, 20), 0).save(tmp_path / "black.png")
    Image.new("L", (16, 12), 255).save(tmp_path / "other.png")
    Image.new("L", (20, 20), 255).save(tmp_path / "blurred.jpg")
    field = f"VB={tmp_path / 'field.png'}"
    for words, said in (
        ([f"EX={tmp_path / 'field.png'}"], "lack 'VB'"),
        ([field, f"XX={tmp_path / 'field.png'}"], "'XX' is no class"),
        ([field, f"HE={tmp_path / 'other.png'}"], r"field.png is 20 × 20, .*other.png is 16 × 12"),
        ([f"VB={tmp_path / 'black.png'}"], "black.png is all black"),
        ([field, "EX="], "'EX=' is no CLASS=PICTURE"),
        ([field, f"HE={tmp_path / 'blurred.jpg'}"], "is a JPEG"),
        ([field, f"HE={tmp_path / 'none.png'}"], "is not there"),
        ([field, "HE"], "no CLASS=PICTURE"),
        ([field, field], "given twice"),
    ):
        with pytest.raises(UsageError, match=said):
            call("join", *words, "--out", str(tmp_path / "map.png"))
    assert not (tmp_path / "map.png").exists()
