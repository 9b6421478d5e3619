"""The steps of lesion maps one after another, as the preset smoke has them but smaller."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.runner import load_step
from pipelines.params import Choices, compose
from pipelines.workflows import WORKFLOWS
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.examples import read

SETTINGS = (
    "ingest.workers=1",
    "ingest.n=40",
    "train_layout.training.steps=3",
    "train_render.training.steps=3",
    "draw_lesion_maps.per_grade=[2,2,2,2,2]",
    "judge_lesion_maps.resamples=5",
    "try_lesion_maps.resamples=5",
    "try_lesion_maps.grader.steps=1",
    "try_lesion_maps.segmenter.steps=1",
)


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> tuple[dict[str, Path], dict[str, dict]]:
    """Places of all outputs by ``stage.port``, and the metrics of all stages."""
    folder = tmp_path_factory.mktemp("lesion_map")
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


def test_drawing_again_gives_the_same_cohort(line, tmp_path) -> None:
    made, _ = line
    step = load_step("draw_lesion_maps")
    inputs = {port: made[f"train_{port}.{port}"] for port in ("layout", "render")} | {"cohort": made["ingest.cohort"]}
    told = {"seed": 0, "per_grade": [2, 2, 2, 2, 2], "truncation": 1.0, "spread": 1.0}
    step.run(step.params.model_validate(told), inputs, {"synthetic": tmp_path / "again"})
    hashes = [Cohort(path).meta["content_sha256"] for path in (made["draw_lesion_maps.synthetic"], tmp_path / "again")]
    assert hashes[0] == hashes[1]


def test_the_judgement_is_whole(line) -> None:
    made, metrics = line
    folder = made["judge_lesion_maps.judgement"]
    results = json.loads((folder / "results.json").read_text())
    parts = {"grade_from_map", "grade_from_photograph", "lesions", "found_again", "realism", "edits", "images"}
    assert set(results) == parts
    assert set(results["found_again"]) == {"real", "rerendered", "drawn"}
    assert {"drawn", "floor"} <= set(results["realism"]["frechet"])
    grid = np.asarray(Image.open(folder / "grid.png"))
    assert grid.shape[1] > grid.shape[0] > 100
    kept = metrics["judge_lesion_maps"]["edit_kept"]
    assert kept is None or kept == 1


def test_the_trial_is_whole(line) -> None:
    made, _ = line
    results = json.loads((made["try_lesion_maps.trial"] / "results.json").read_text())
    assert set(results["grading"]) == {"real", "undersampled", "oversampled", "padded"}
    assert set(results["grading_against_real"]) == {"undersampled", "oversampled", "padded"}
    assert set(results["segmentation"]) == {"real", "synthetic", "synthetic_then_real"}


def test_trainings_leave_logs_and_no_checkpoints(line) -> None:
    made, _ = line
    for stage in ("train_layout", "train_render"):
        folder = made[f"{stage}.training"]
        assert json.loads((folder / "curves.json").read_text())[-1]["step"] == 3
        assert list((folder / "samples").glob("*.png"))
    checkpoints = made["train_layout.layout"].parents[1] / "checkpoints"
    assert not list(checkpoints.glob("*/*"))


def test_a_cohort_without_lesion_maps_is_refused(line, tmp_path) -> None:
    made, _ = line
    step = load_step("train_layout")
    from retinalogos.cohort.shards import CohortWriter

    with CohortWriter(tmp_path / "bare", "bare") as writer:
        for row in Cohort(made["ingest.cohort"]).rows():
            writer.add(row | {"lesions": None})
    section = compose(Choices(workflow="lesion_map", preset="smoke"))["train_layout"]
    outputs = {port: tmp_path / port for port in step.outputs}
    with pytest.raises(DataError, match="has a `lesions` map"):
        step.run(step.params.model_validate(section), {"cohort": tmp_path / "bare"}, outputs)
