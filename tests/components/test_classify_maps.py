"""The tasks of `classify` whose truth is a map."""

import json
from pathlib import Path

import pytest
import yaml
from drawn_structures import SIZE, draw_annotated, write_annotated

from components.classify.step import STEP, ClassifyParams
from components.report import figures as report_figures
from components.report import layout

ROOT = Path(__file__).parent.parent.parent
TASKS = ["dr_grade", "vessels", "lesions", "disc_cup"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cohorts")
    parts = {split: draw_annotated(split, n, seed) for seed, (split, n) in enumerate(
        {"train": 24, "validation": 6, "test": 16}.items())}  # fmt: skip
    drawn = {"train": draw_annotated("synthetic", 16, 3)}
    return {
        "cohort": write_annotated(folder / "cohort", parts),
        "synthetic": write_annotated(folder / "synthetic", drawn),
        "captioned": write_annotated(folder / "captioned", drawn, maps=()),
    }


@pytest.fixture(scope="module")
def params() -> ClassifyParams:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["classify"]
    values["grader"] |= {"size": SIZE, "widths": [8], "features": 16, "steps": 2, "validate_every": 1}
    values["segmenter"] |= {"size": SIZE, "widths": [8, 16], "steps": 6, "batch_size": 4, "validate_every": 3}
    external = [{"reader": "phantom", "name": "elsewhere", "n": 8, "seed": 2}]
    mixes = ["real", "real_plus_100", "real_ratio_2000", "synthetic"]
    return ClassifyParams.model_validate(
        values
        | {"runs": 2, "resamples": 20, "external": external, "tasks": TASKS, "mixes": mixes, "structure_images": 5}
    )


@pytest.fixture(scope="module")
def done(inputs, params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "classification"
    return STEP.run(params, inputs, {"classification": folder}), folder


def test_segmenters_are_compared_as_classifiers_are(done):
    metrics, folder = done
    results = json.loads((folder / "results.json").read_text())
    assert list(results["tasks"]) == TASKS
    segmentation = results["segmentation"]
    assert segmentation["structures"] == ["vessel", "haemorrhage", "disc", "cup"]
    assert list(segmentation["arms"]) == ["real", "real_plus_100", "synthetic"]
    assert segmentation["images"] == {"train": 24, "synthetic": 16, "validation": 6, "test": 16, "elsewhere": 8}
    assert "asks for 480 synthetic images" in segmentation["skipped"]["arms"]["real_ratio_2000"]
    for found in (results["test"], results["external"]["elsewhere"]):
        for task in ("vessels", "disc_cup"):
            assert found["figures"][task]["real"].keys() == {"dice", "iou", "auc", "average_precision"}
            assert found["verdicts"][task]["real_plus_100"]["figure"] == "dice"
            assert found["difference"][task]["synthetic"]["dice"]["low"] is not None
        assert set(found["structures"]) <= set(segmentation["structures"])
    assert set(results["test"]["structures"]) == set(segmentation["structures"])
    assert metrics["vessels.real.dice"] == results["test"]["figures"]["vessels"]["real"]["dice"]["value"]
    assert "external.elsewhere.disc_cup.synthetic.dice" in metrics
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in results["pictures"])


def test_the_report_shows_tasks_and_structures(done):
    results = report_figures.read_results(done[1])
    tables = {table.title: table for table in layout.classification(results)}
    shown = tables["Vessels, segmented"]
    assert shown.columns == ("AUC", "Dice", "Intersection over union", "Average precision")
    assert [line.means for line, _ in shown.lines][1] == "24 real and 16 synthetic images"
    assert "Haemorrhage, segmented" in tables
    assert "Vessels, segmented, by sex: Dice" in tables
    sentences = layout.conclusion(results)
    assert any(sentence.startswith("Disc and cup, segmented (mean of both), training on") for sentence in sentences)


def test_a_cohort_without_maps_is_told_so(inputs, params, tmp_path):
    captioned = {"cohort": inputs["cohort"], "synthetic": inputs["captioned"]}
    alone = params.model_copy(update={"external": ()})
    metrics = STEP.run(alone, captioned, {"classification": tmp_path / "out"})
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    reason = "no synthetic image has a map of vessels: images that are drawn from captions have none"
    assert results["skipped"]["tasks"]["vessels"] == reason
    assert list(results["tasks"]) == ["dr_grade"]
    assert not any(name.startswith("vessels") for name in metrics)
    assert f"Left out: Vessels, segmented: {reason}." in layout.left_out(results)
