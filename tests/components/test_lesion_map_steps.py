"""The steps of lesion maps one after another, as the preset smoke has them but smaller."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components import cli
from components.runner import content_hash, load_step
from pipelines.params import Choices, compose
from pipelines.workflows import WORKFLOWS
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.examples import read
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.provenance import NOTICE, read_png

SETTINGS = (
    "ingest.workers=1",
    "ingest.n=40",
    "train_layout.training.steps=3",
    "train_render.training.steps=3",
    "draw_lesion_maps.per_grade=[2,2,2,2,2]",
    "judge_lesion_maps.resamples=5",
    "try_lesion_maps.resamples=5",
    "try_lesion_maps.grader.steps=1",
    "try_lesion_maps.segmenter.steps=2",
)


@pytest.fixture(scope="module")
def store(sqlite_stores) -> Iterator[str]:
    """A registry of its own."""
    uri = sqlite_stores()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("RETINALOGOS_TRACKING", "on")
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        mlflow.set_tracking_uri(uri)
        yield uri
        mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def line(tmp_path_factory, store) -> tuple[dict[str, Path], dict[str, dict]]:
    """Places of all outputs by ``stage.port``, and the metrics of all stages."""
    folder = tmp_path_factory.mktemp("lesion_map")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("lesion_map", (folder / "mlruns").as_uri()))
    values = compose(Choices(workflow="lesion_map", preset="smoke", settings=SETTINGS))
    made: dict[str, Path] = {}
    metrics = {}
    for stage in WORKFLOWS["lesion_map"].stages:
        step, home = load_step(stage.step), folder / stage.name
        home.mkdir()
        section = dict(values[stage.name])
        if "checkpoints" in section:
            section["checkpoints"] = str(folder / "checkpoints")
        outputs = {port: home / port for port in step.outputs}
        inputs = {port: made[".".join(source)] for port, source in stage.inputs.items()}
        metrics[stage.name] = dict(step.run(step.params.model_validate(section), inputs, outputs))
        made |= {f"{stage.name}.{port}": path for port, path in outputs.items()}
    return made, metrics


def test_the_synthetic_cohort_has_maps_grades_and_provenance(line) -> None:
    made, metrics = line
    cohort = Cohort(made["draw_lesion_maps.synthetic"])
    rows = list(cohort.rows())
    assert len(rows) == metrics["draw_lesion_maps"]["kept"]
    assert {row["dr_grade"] for row in rows} <= set(range(5))
    assert all(row["source"] == "synthetic" and row["generator"].startswith("LesionMapPipeline:") for row in rows)
    assert all(row["patient_id"].startswith("synthetic-") for row in rows)
    examples = read(cohort, None, rows[0]["width"])
    assert (examples.classes != maps.UNKNOWN).all()


def test_eyes_are_stored_bit_for_bit_as_they_were_drawn(line) -> None:
    made, _ = line
    cohort = Cohort(made["draw_lesion_maps.synthetic"])
    rows = list(cohort.rows())
    pipeline = LesionMapPipeline.from_pretrained(made["draw_lesion_maps.generator"])
    examples, seeds = read(cohort, None, pipeline.size), [row["seed"] for row in rows]
    drawn = pipeline.draw([row["dr_grade"] for row in rows], seeds)
    np.testing.assert_array_equal(examples.classes, drawn)
    assert np.abs(examples.images.astype(int) - pipeline.render(drawn, seeds)).max() <= 1, "but for the batch's size"


def test_drawing_again_gives_the_same_cohort(line, tmp_path) -> None:
    made, _ = line
    step = load_step("draw_lesion_maps")
    inputs = {port: made[f"train_{port}.{port}"] for port in ("layout", "render")} | {"cohort": made["ingest.cohort"]}
    outputs = {port: tmp_path / port for port in step.outputs}
    told = {"seed": 0, "per_grade": [2, 2, 2, 2, 2], "truncation": 1.0, "spread": 1.0}
    step.run(step.params.model_validate(told), inputs, outputs)
    for port in step.outputs:
        assert content_hash(made[f"draw_lesion_maps.{port}"]) == content_hash(outputs[port])


def test_the_judgement_is_whole(line) -> None:
    made, metrics = line
    folder = made["judge_lesion_maps.judgement"]
    results = json.loads((folder / "results.json").read_text())
    parts = {"grade_from_map", "grade_from_photograph", "lesions", "found_again", "realism", "edits", "images"}
    parts |= {"style", "copies"}
    assert set(results) == parts
    assert set(results["found_again"]) == {"real", "rerendered", "restyled", "drawn"}
    sides = {"drawn", "floor", "rerendered", "restyled", "drawn_styles", "drawn_maps"}
    assert set(results["realism"]["frechet"]) == set(results["realism"]["kernel"]) == sides
    assert results["realism"]["frechet"]["rerendered"] != results["realism"]["frechet"]["restyled"]
    grid = np.asarray(Image.open(folder / "grid.png"))
    assert grid.shape[1] > 100
    names = {"grid", "styles", "closest_photographs"}
    assert names <= {path.stem for path in folder.glob("*.png")}
    notices = {name: read_png(folder / f"{name}.png")["notice"] for name in names}
    assert set(notices.values()) == {NOTICE}
    kept = metrics["judge_lesion_maps"]["edits.kept"]
    assert kept is None or kept == 1


def test_the_trial_is_whole(line) -> None:
    made, _ = line
    results = json.loads((made["try_lesion_maps.trial"] / "results.json").read_text())
    assert set(results["grading"]) == {"real", "undersampled", "oversampled", "padded"}
    assert set(results["grading_against_real"]) == {"undersampled", "oversampled", "padded"}
    assert set(results["segmentation"]) == {"real", "synthetic", "synthetic_then_real"}
    assert set(results["segmentation_against_real"]) == {"synthetic", "synthetic_then_real"}
    assert {"EX", "HE", "SE", "MA", "OD"} == set(results["segmentation_against_real"]["synthetic"])


def test_the_page_shows_what_was_judged_and_asks_for_nothing_from_elsewhere(line) -> None:
    made, metrics = line
    folder = made["report.report"]
    html = (folder / "index.html").read_text()
    for said in (
        "Weighted kappa",
        "Optic disc",
        "Kept bit for bit",
        "drawn, then real eyes",
        "Layout network",
        "gates",
    ):
        assert said in html, said
    for code, name, colour in zip(maps.CLASSES, maps.NAMES, maps.COLOURS, strict=True):
        assert re.search(f'fill="#{bytes(colour.tolist()).hex()}"[^#]*{code} {name}', html), name
    lesions = json.loads((made["judge_lesion_maps.judgement"] / "results.json").read_text())["lesions"]
    few = [grade for grade in range(5) if str(grade) not in lesions]
    assert few, "of 40 eyes"
    assert f"lack grades {', '.join(map(str, few))}: " in html or f"lack grade {few[0]}: " in html
    assert html.count("<img") >= 5 + 2, "pictures of the judgement and of both trainings"
    assert "http:" not in html  # with the colon: the letters alone may stand in a picture's base64
    assert "https:" not in html
    gates = json.loads((folder / "gates.json").read_text())
    assert len(gates) == metrics["report"]["gates"]
    assert "assessment.found_again.drawn.OD" in (folder / "figures.csv").read_text()


def test_the_generator_is_registered_with_its_gates_and_draws_the_same_from_there(line, tmp_path) -> None:
    made, metrics = line
    name = "retinalogos-lesion-map"
    (version,) = mlflow.MlflowClient().search_model_versions(f"name='{name}'")
    assert version.tags["generator_sha256"] == metrics["register"]["generator_sha256"]
    assert version.tags["gates_passed"] == "false", "no gate is kept after three steps"
    assert "report.gates.grade" in version.tags["gate.grade"]
    card = (made["register.registration"] / "model_card.md").read_text()
    assert "lesion-map generate --grade" in card
    assert "LayoutGenerator" in card
    uri = f"models:/{name}/{version.version}"
    answer = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"grade": [3, 1], "seed": [5, 6]}))
    words = ["lesion-map", "generate", "--grade", "3", "--seed", "5", "--out"]
    assert cli.main([*words, str(tmp_path / "registry"), "--model", uri]) == 0
    assert cli.main([*words, str(tmp_path / "folder"), "--model", str(made["draw_lesion_maps.generator"])]) == 0
    for column, file in (("map", "grade-3-*-seed5-map.png"), ("image", "grade-3-*-seed5.png")):
        served = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer[column][0]))))
        for home in ("registry", "folder"):
            (path,) = (tmp_path / home).glob(file)
            np.testing.assert_array_equal(np.asarray(Image.open(path)), served)
    told = [
        read_png(next((tmp_path / home).glob("*-seed5.png")))["generator_sha256"] for home in ("registry", "folder")
    ]
    assert told[0] == told[1] == version.tags["generator_sha256"]


def test_trainings_leave_logs_and_no_checkpoints(line) -> None:
    made, _ = line
    for stage in ("train_layout", "train_render"):
        folder = made[f"{stage}.training"]
        assert json.loads((folder / "curves.json").read_text())[-1]["step"] == 3
        assert list((folder / "samples").glob("*.png"))
    checkpoints = made["train_layout.layout"].parents[1] / "checkpoints"
    assert not list(checkpoints.glob("*/*"))


def test_a_cohort_without_grades_goes_through_with_its_own_maps(line, tmp_path) -> None:
    made, _ = line
    values = compose(Choices(workflow="lesion_map", preset="smoke", settings=SETTINGS))
    (tmp_path / "cohort").mkdir()
    with CohortWriter(tmp_path / "cohort", "ungraded") as writer:
        for row in Cohort(made["ingest.cohort"]).rows():
            writer.add(row | {"dr_grade": None})
    at = {f"train_render.{port}": made[f"train_render.{port}"] for port in ("render", "training")}
    at["ingest.cohort"] = tmp_path / "cohort"
    for stage in WORKFLOWS["lesion_map"].stages:
        if stage.name in ("ingest", "train_render"):
            continue
        step = load_step(stage.step)
        outputs = {port: tmp_path / stage.name / port for port in step.outputs}
        section = step.params.model_validate(values[stage.name])
        step.run(section, {port: at[".".join(source)] for port, source in stage.inputs.items()}, outputs)
        at |= {f"{stage.name}.{port}": path for port, path in outputs.items()}
    training = read(Cohort(tmp_path / "cohort"), "train", 32).classes
    known = {each.tobytes() for each in (*training, *training[:, :, ::-1])}
    rows = list(Cohort(at["draw_lesion_maps.synthetic"]).rows())
    assert {each.tobytes() for each in read(Cohort(at["draw_lesion_maps.synthetic"]), None, 32).classes} <= known
    assert {(row["dr_grade"], row["prompt"]) for row in rows} == {(None, "lesion map of a training eye")}
    judged = json.loads((at["judge_lesion_maps.judgement"] / "results.json").read_text())
    tried = json.loads((at["try_lesion_maps.trial"] / "results.json").read_text())
    assert judged["left_out"] == ["grade_from_map", "grade_from_photograph", "lesions", "copies.maps"]
    assert not judged.keys() & {"grade_from_map", "grade_from_photograph", "lesions"}
    assert {"found_again", "realism", "style", "edits"} < judged.keys()
    assert judged["copies"].keys() == {"photographs"}
    assert tried["left_out"] == ["grading"]
    assert tried["segmentation"].keys() == {"real", "synthetic", "synthetic_then_real"}
    page = (at["report.report"] / "index.html").read_text()
    assert "Too few training eyes have a grade" in page
    assert "Weighted kappa" not in page
    assert "The tables of lesions lack" not in page, "they are left out"
    assert "none: it renders maps" in (at["register.registration"] / "model_card.md").read_text()


def test_a_cohort_without_lesion_maps_is_refused(line, tmp_path) -> None:
    made, _ = line
    step = load_step("train_layout")
    with CohortWriter(tmp_path / "bare", "bare") as writer:
        for row in Cohort(made["ingest.cohort"]).rows():
            writer.add(row | {"lesions": None})
    section = compose(Choices(workflow="lesion_map", preset="smoke"))["train_layout"]
    outputs = {port: tmp_path / port for port in step.outputs}
    with pytest.raises(DataError, match="has a `lesions` map"):
        step.run(step.params.model_validate(section), {"cohort": tmp_path / "bare"}, outputs)
