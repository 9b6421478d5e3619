"""The steps of the vessel-map workflow, one after another, as its smoke preset has them."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks import consistency
from components import cli, runner
from components.runner import run_step
from pipelines.params import Choices, compose
from pipelines.vessel_map import STAGES
from retinalogos.cohort.shards import Cohort, CohortWriter, decode_map, encode_png
from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.examples import landmarks
from retinalogos.generators.vessel_map.maps import tells_kinds, to_colour
from retinalogos.provenance import generator_hash, read_png
from retinalogos.training.loop import Gradients

VALUES = compose(Choices(workflow="vessel_map", preset="smoke"))
BY_NAME = {stage.name: stage for stage in STAGES}


def run(stage: str, folder: Path, inputs: dict[str, Path] | None = None, **settings: Any) -> dict[str, Any]:
    """Runs a stage in a folder of its own, fed by the stages before it."""
    declared, values = BY_NAME[stage], VALUES[stage] | settings
    if "checkpoints" in values:
        values["checkpoints"] = str(folder / "checkpoints")
    given = {port: folder / BY_NAME[source.stage].path(source.output) for port, source in declared.inputs.items()} | (
        inputs or {}
    )
    outputs = {port: folder / declared.path(port) for port in (*declared.outputs, "metrics")}
    return run_step(declared.step, values, given, outputs, stage=stage)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("vessel_map")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "ROOT", folder)
        return folder, {
            stage.name: run(stage.name, folder, **({"workers": 1} if stage.name == "ingest" else {}))
            for stage in STAGES
        }


def test_every_stage_leaves_what_it_declares(line: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, metrics = line
    assert not list((folder / "checkpoints").rglob("*.pt"))
    assert metrics["label_vessels"]["kept"] == metrics["ingest"]["rows"]
    assert 0 <= metrics["segment_vessels"]["cohort.dice"] <= 1
    for part in ("masks", "paint", "enlarge"):
        assert list((folder / f"models/vessel_map/{part}_log/samples").glob("*.png"))


def test_the_synthetic_cohort_says_where_it_comes_from(line: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, _ = line
    cohort = Cohort(folder / "data/vessel_map/synthetic")
    rows = list(cohort.rows())
    assert len(rows) == VALUES["draw_vessels"]["n"]
    for row in rows:
        assert row["generator"].startswith("VesselMapCascade:")
        assert row["source"] == "synthetic"
        assert row["patient_id"].startswith("synthetic-")
        assert decode_map(row["vessels"]["bytes"]).shape == (64, 64)
        asked = json.loads(row["labels"])
        marks, diameter = landmarks(row)
        assert marks.ravel().tolist() == [asked[name] for name in ("disc_x", "disc_y", "fovea_x", "fovea_y")]
        assert 0.05 < diameter < 0.4
    with Image.open(folder / "metrics/vessel_map/grid/grid.png") as grid:
        assert grid.info["synthetic"] == "true"


def test_seams_and_baselines_are_measured(line: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    _, metrics = line
    assert metrics["draw_vessels"]["seam.blended"] > 0
    # At the smoke preset's 64 pixels tiles are 32: no picture is drawn whole.
    assert "seam.whole" not in metrics["draw_vessels"]
    for name in ("synthetic", "floor", "closed_form"):
        assert metrics["judge_vessels"][f"realism.random_conv.{name}.kernel"] is not None


def test_other_generators_are_told_of_beside(
    line: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, metrics = line
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    declared = BY_NAME["judge_vessels"]
    given = {port: folder / BY_NAME[source.stage].path(source.output) for port, source in declared.inputs.items()}
    again = str(folder / "data/vessel_map/synthetic")
    found = run("judge_vessels", tmp_path, given, baselines={"again": again})
    same = metrics["judge_vessels"]["realism.random_conv.synthetic.frechet"]
    assert found["realism.random_conv.again.frechet"] == pytest.approx(same)
    with pytest.raises(UsageError, match="the name floor is taken"):
        run("judge_vessels", tmp_path / "other", given, baselines={"floor": again})


def test_a_painter_with_captions_draws_by_them(
    line: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = line
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    labelled = folder / "data/vessel_map/labelled"
    text = {"encoder": "minilm", "layer": -1, "token_budget": 64, "wordings": 1}
    run("train_vessel_paint", tmp_path, {"cohort": labelled}, text=text)
    models = {part: folder / f"models/vessel_map/{part}" for part in ("masks", "enlarge")}
    run("draw_vessels", tmp_path, {"cohort": labelled, **models}, n=6)
    for row in Cohort(tmp_path / "data/vessel_map/synthetic").rows(("eye", "prompt")):
        assert row["eye"] in row["prompt"].lower()
        assert len(row["prompt"].split()) > 4, "a caption, not the side alone"
    with pytest.raises(UsageError, match="text goes with part paint alone"):
        run("train_vessel_masks", tmp_path, {"cohort": labelled}, text=text)


class Killed(Exception):
    """Stands for a signal that ends the process."""


@pytest.mark.parametrize(
    "stage", ["segment_vessels", "train_vessel_masks", "train_vessel_paint", "train_vessel_enlarge"]
)
def test_a_killed_training_ends_with_the_same_weights(
    stage: str,
    line: tuple[Path, dict[str, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = line
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    declared = BY_NAME[stage]
    inputs = {port: folder / BY_NAME[source.stage].path(source.output) for port, source in declared.inputs.items()}
    call = Gradients.__call__

    def killed(self: Gradients, step: int) -> Any:
        if step == 7:
            raise Killed
        return call(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Gradients, "__call__", killed)
        with pytest.raises(Killed):
            run(stage, tmp_path, inputs)
    port = "segmenter" if stage == "segment_vessels" else "model"
    assert not (tmp_path / declared.path(port)).exists(), "nothing half-written stays"
    capsys.readouterr()
    run(stage, tmp_path, inputs)
    assert "going on from step 5 of 10" in capsys.readouterr().out
    name = "diffusion_pytorch_model.safetensors"
    whole, resumed = (load_file(base / declared.path(port) / name) for base in (folder, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_killed_trials_keep_what_is_trained(
    line: tuple[Path, dict[str, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, metrics = line
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    declared = BY_NAME["use_vessels"]
    inputs = {port: folder / BY_NAME[source.stage].path(source.output) for port, source in declared.inputs.items()}
    count = 0
    call = Gradients.__call__

    def killed(self: Gradients, step: int) -> Any:
        nonlocal count
        count += 1
        if count == 10:
            raise Killed
        return call(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Gradients, "__call__", killed)
        with pytest.raises(Killed):
            run("use_vessels", tmp_path, inputs)
    capsys.readouterr()
    found = run("use_vessels", tmp_path, inputs)
    assert capsys.readouterr().out.count("trained before") == 2
    assert found == metrics["use_vessels"]
    assert not list((tmp_path / "checkpoints").rglob("*.safetensors"))


def test_judgement_stands_beside_real_eyes(line: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, metrics = line
    results = json.loads((folder / "metrics/vessel_map/judgement/results.json").read_text())
    density = results["masks"]["vein_density"]
    assert density["real"]["low"] <= density["real"]["value"] <= density["real"]["high"]
    assert density["difference"]["value"] == pytest.approx(
        density["synthetic"]["value"] - density["real"]["value"], rel=1e-3
    )
    assert metrics["judge_vessels"]["realism.random_conv.synthetic.frechet"] > 0
    use = json.loads((folder / "metrics/vessel_map/use/results.json").read_text())
    assert set(use["eyes"]) == {"real", "real_plus_25", "synthetic"}
    assert use["test"]["figures"]["real"]["dice"]["n"] == results["eyes"]["test"]


def test_ways_of_painting_are_compared(
    line: tuple[Path, dict[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = line
    models = folder / "models/vessel_map"
    words = ["--cohort", folder / "data/vessel_map/labelled", "--segmenter", models / "segmenter"]
    words += ["--generator", models / "generator", "--guidance", 1, 2, "--steps", 2, "--resamples", 20]
    consistency.main([str(word) for word in words])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "photograph" not in line]
    assert [row[0] for row in rows[1:]] == [
        f"{name}, {how}"
        for name in ("the same at the painter's size", *(f"painted, 2 steps, guidance {g}" for g in (1, 2)))
        for how in ("cubic", "enlarged")
    ]
    assert len({row[3] for row in rows[3:]}) == 4, "each way paints something else"


def test_eyes_without_kinds_are_labelled(line: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path) -> None:
    folder, _ = line
    with CohortWriter(tmp_path / "unlabelled", "unlabelled") as writer:
        for number, row in enumerate(Cohort(folder / "data/vessel_map/cohort").rows()):
            classes = decode_map(row["vessels"]["bytes"])
            unknown = {"bytes": encode_png(np.where(classes > 0, 3, 0).astype(np.uint8)), "path": "map.png"}
            writer.add(row | {"vessels": [None, unknown, row["vessels"]][number % 3]})
    run("label_vessels", tmp_path, {
        "cohort": tmp_path / "unlabelled", "segmenter": folder / "models/vessel_map/segmenter",
    })  # fmt: skip
    before = Cohort(folder / "data/vessel_map/cohort").rows()
    for number, (row, own) in enumerate(zip(Cohort(tmp_path / "data/vessel_map/labelled").rows(), before, strict=True)):
        classes, truth = decode_map(row["vessels"]["bytes"]), decode_map(own["vessels"]["bytes"])
        if number % 3 == 1:
            assert ((classes > 0) <= (truth > 0)).all()
            assert not tells_kinds(np.where(truth > 0, 3, 0).astype(np.uint8))
        if number % 3 == 2:
            assert (classes == truth).all()


def test_cohorts_without_maps_are_refused_with_advice(
    line: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = line
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    with CohortWriter(tmp_path / "bare", "bare") as writer:
        for row in Cohort(folder / "data/vessel_map/cohort").rows():
            writer.add(row | {"vessels": None})
    with pytest.raises(UsageError, match="label_vessels"):
        run("train_vessel_paint", tmp_path, {"cohort": tmp_path / "bare"})
    with pytest.raises(UsageError, match="nothing to learn from"):
        run("segment_vessels", tmp_path, {"cohort": tmp_path / "bare"})


def test_the_page_shows_the_grid_tables_curves_and_gates(line: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    folder, metrics = line
    page = folder / "metrics/vessel_map/report"
    html = (page / "index.html").read_text()
    for said in (
        "mask, photograph, enlarged",
        "Centre-line Dice",
        "closed form alone",
        "Fractal dimension, veins",
        "real eyes and 25 drawn ones for each 100",
        "difference to real eyes alone",
        "Enlargement",
        "No patient was photographed",
    ):
        assert said in html, said
    assert html.count("<img") >= 2 + 3, "grid, anatomy and samples of three trainings"
    assert html.count('data-name="training"') >= 4, "curves of all that was trained"
    assert "http:" not in html  # with the colon: the letters alone may stand in a picture's base64
    assert "https:" not in html
    gates = json.loads((page / "gates.json").read_text())
    assert {gate["name"] for gate in gates} == {"consistency", "realism", "density", "harmless"}
    assert metrics["report"]["gates"] == 4
    assert all(gate["value"] is not None for gate in gates), "each gate has its figure"
    figures = (page / "figures.csv").read_text()
    assert "use.test.difference.real_plus_25.dice" in figures
    assert "segmenter.cohort.figures.dice" in figures


def test_the_generator_is_registered_and_draws_from_the_registry(
    line: tuple[Path, dict[str, dict[str, Any]]],
    mlflow_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = line
    for variable, value in {
        "MLFLOW_TRACKING_URI": mlflow_store,
        "RETINALOGOS_TRACKING": "on",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }.items():
        monkeypatch.setenv(variable, value)
    mlflow.set_tracking_uri(mlflow_store)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("vessel_map", (tmp_path / "mlruns").as_uri()))
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    declared = BY_NAME["report"]
    inputs = {port: folder / BY_NAME[source.stage].path(source.output) for port, source in declared.inputs.items()}
    gate = {"title": "Dice", "figure": "judgement.consistency.synthetic.dice"}
    registered = {
        port: folder / BY_NAME[source.stage].path(source.output) for port, source in BY_NAME["register"].inputs.items()
    }
    try:
        for least, said in ((2, "refused: report.gates.consistency failed"), (0, "promoted")):
            home = tmp_path / str(least)
            run("report", home, inputs, gates={"consistency": gate | {"min": least}})
            run("register", home, registered | {"report": home / declared.path("report")})
            assert said in capsys.readouterr().out
        card = (home / BY_NAME["register"].path("registration") / "model_card.md").read_text()
        assert "vessel-map render mask.png" in card
        assert "| masks | 32 × 32 pixels |\n| paint | 32 × 32 pixels |\n| enlarge | 64 × 64 pixels |" in card
        model = "models:/retinalogos-vessel-map@champion"
        served = mlflow.pyfunc.load_model(model).predict(pd.DataFrame({"prompt": ["left eye", None], "seed": [3, 4]}))
        assert len(set(served["image"])) == 2
        words = ["vessel-map", "generate", "--n", "2", "--seed", "3", "--eye", "left", "--batch-size", "2"]
        generator = folder / BY_NAME["draw_vessels"].path("generator")
        for home, source in ((tmp_path / "registry", model), (tmp_path / "folder", str(generator))):
            assert cli.main([*words, "--model", source, "--out", str(home)]) == 0
            for column, kind in (("map", "mask"), ("image", "enlarged")):
                (file,) = home.glob(f"*-seed3-{kind}.png")
                answer = np.asarray(Image.open(io.BytesIO(base64.b64decode(served[column][0]))))
                assert np.abs(np.asarray(Image.open(file)).astype(int) - answer).max() <= 1, (
                    "but for rounding; batches are alike, since guidance multiplies what other ones differ by"
                )
                assert read_png(file)["generator_sha256"] == generator_hash(generator)
        mask, out = tmp_path / "mask.png", tmp_path / "out"
        colours = to_colour(decode_map(next(iter(Cohort(inputs["cohort"]).rows()))["vessels"]["bytes"]))
        Image.fromarray(colours).save(mask)
        assert cli.main(["vessel-map", "render", str(mask), "--model", model, "--out", str(out)]) == 0
        assert len(list(out.glob("*-enlarged.png"))) == 1
        assert cli.main(["lineage", model]) == 0
        assert re.search(r" masks [0-9a-f]{12}: train_vessel_map ", capsys.readouterr().out)
        assert cli.main(["vessel-map", "generate", "--model", "models:/nothing@champion", "--out", str(out)]) == 2
    finally:
        mlflow.set_tracking_uri(None)
