"""The step on cohorts of drawn phantoms: what it writes, and that it refuses a leak."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from components.classify.figures import words
from components.classify.step import STEP, ClassifyParams
from components.report import figures as report_figures
from components.report import layout
from components.runner import content_hash
from retinalogos.cohort.shards import CohortWriter, encode_png
from retinalogos.errors import DataError
from retinalogos.phantom import PhantomRecord, draw, sample_records

SIZE = 48
ROOT = Path(__file__).parent.parent.parent
ARMS = ("real", "real_plus_50", "real_plus_100", "synthetic")


def write(folder: Path, records: list[PhantomRecord], splits: list[str], generator: str | None = None) -> Path:
    with CohortWriter(folder, folder.name) as writer:
        eyes = draw(records, SIZE)
        for number, (record, eye, split) in enumerate(zip(records, eyes, splits, strict=True)):
            data = encode_png(eye.image)
            row = record.cohort_row() | {
                "image_id": hashlib.sha256(f"{folder.name}{number}".encode()).hexdigest()[:16],
                "width": SIZE,
                "height": SIZE,
                "sha256": hashlib.sha256(data).hexdigest(),
                "image": {"bytes": data, "path": f"{number}.png"},
                "source": "phantom",
                "split": split,
                "generator": generator,
            }
            if generator:
                row["patient_id"] = f"synthetic-{number}"
            writer.add(row)
    return folder


def by_patient(records: list[PhantomRecord], train: int, validation: int) -> list[str]:
    """Splits of about these sizes; records come patient by patient, so both eyes are kept together."""
    splits: list[str] = []
    for number, record in enumerate(records):
        same = number and record.cohort_row()["patient_id"] == records[number - 1].cohort_row()["patient_id"]
        place = "train" if number < train else "validation" if number < train + validation else "test"
        splits.append(splits[-1] if same else place)
    return splits


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("cohorts")
    records = sample_records(120, seed=0)
    return {
        "cohort": write(folder / "cohort", records, by_patient(records, 60, 20)),
        "synthetic": write(folder / "synthetic", sample_records(30, seed=1), ["train"] * 30, "drawn"),
        "external": write(folder / "external", sample_records(30, seed=2), ["test"] * 30),
    }


@pytest.fixture(scope="module")
def params() -> ClassifyParams:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["classify"]
    values["grader"] |= {"size": SIZE, "widths": [8, 16], "features": 16, "steps": 4, "validate_every": 2}
    return ClassifyParams.model_validate(values | {"resamples": 50})


@pytest.fixture(scope="module")
def done(inputs, params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "classification"
    return STEP.run(params, inputs, {"classification": folder}), folder


def test_params_yaml_holds_every_parameter():
    ClassifyParams.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())["classify"])
    assert all(field.is_required() for field in ClassifyParams.model_fields.values())


def test_every_arm_is_judged_on_every_real_set(done):
    metrics, folder = done
    results = json.loads((folder / "results.json").read_text())
    assert tuple(results["arms"]) == ARMS
    assert [results["arms"][arm]["synthetic"] for arm in ARMS] == [0, 15, 30, 30]
    assert {results["arms"][arm]["optimiser_steps"] for arm in ARMS} == {4}
    for name in ("test", "external"):
        for task, figures in {"dr_grade": 4, "glaucoma": 6}.items():
            assert tuple(results[name]["figures"][task]) == ARMS
            for arm in ARMS:
                estimates = results[name]["figures"][task][arm]
                assert len(estimates) == figures
                assert all(e["low"] <= e["high"] for e in estimates.values() if e["low"] is not None)
            assert tuple(results[name]["difference"][task]) == ARMS[1:]
    assert metrics["dr_grade.real.qwk"] == results["test"]["figures"]["dr_grade"]["real"]["qwk"]["value"]
    assert metrics["glaucoma.synthetic.auc_delta"] == pytest.approx(
        metrics["glaucoma.synthetic.auc"] - metrics["glaucoma.real.auc"], abs=1e-5
    )
    assert (metrics["train_real"], metrics["train_synthetic"]) == (results["arms"]["real"]["real"], 30)


def test_pictures_and_predictions_are_there(done):
    _, folder = done
    results = json.loads((folder / "results.json").read_text())
    assert len(results["pictures"]) == 2 * 2 * 3
    for name in results["pictures"]:
        data = (folder / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert b"matplotlib" not in data
    predictions = pq.read_table(folder / "predictions.parquet").to_pylist()
    known = {
        task: results["test"]["figures"][task]["real"]["auc"]["n"]
        + results["external"]["figures"][task]["real"]["auc"]["n"]
        for task in ("dr_grade", "glaucoma")
    }
    assert len(predictions) == 2 * len(ARMS) * sum(known.values())
    assert predictions[0].keys() == {"image_id", "set", "task", "arm", "seed", "truth", "probabilities"}


def test_the_report_finds_the_tables(done):
    _, folder = done
    results = {"classification": report_figures.read_results(folder)}
    name = "classification.test.figures.dr_grade.real_plus_50.qwk"
    assert report_figures.find(results, name).n == results["classification"]["images"]["test"]
    titles = [table.title for table in layout.classification(results["classification"])]
    assert any("glaucoma" in title.lower() for title in titles)


def test_the_same_inputs_give_the_same_bytes(done, inputs, params, tmp_path):
    metrics, folder = done
    again = STEP.run(params.model_copy(update={"workers": 1}), inputs, {"classification": tmp_path / "again"})
    assert again == metrics
    assert content_hash(tmp_path / "again") == content_hash(folder)


def test_a_patient_on_both_sides_stops_the_step(inputs, params, tmp_path):
    records = sample_records(40, seed=0)
    splits = by_patient(records, 20, 0)
    # The eyes of one patient are parted.
    first = next(
        n for n in range(1, 40) if records[n].cohort_row()["patient_id"] == records[0].cohort_row()["patient_id"]
    )
    splits[first] = "test"
    leaky = write(tmp_path / "leaky", records, splits)
    with pytest.raises(DataError, match="its patient is also among the train images"):
        STEP.run(params, inputs | {"cohort": leaky}, {"classification": tmp_path / "out"})
    assert not (tmp_path / "out").exists()


def test_a_real_cohort_in_place_of_the_synthetic_one_stops_the_step(inputs, params, tmp_path):
    with pytest.raises(DataError, match="names no generator"):
        STEP.run(params, inputs | {"synthetic": inputs["external"]}, {"classification": tmp_path / "out"})


def test_a_cohort_without_glaucoma_is_judged_on_the_grade_alone(inputs, params, tmp_path):
    records = [replace(record, glaucoma="no") for record in sample_records(60, seed=3)]
    cohort = write(tmp_path / "healthy", records, by_patient(records, 30, 10))
    small = {"cohort": cohort, "synthetic": inputs["synthetic"]}
    metrics = STEP.run(params, small, {"classification": tmp_path / "out"})
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["skipped"]["tasks"] == {"glaucoma": "the training images hold 1 of its classes; two are needed"}
    assert not any(name.startswith("glaucoma") for name in metrics)
    assert any(name.startswith("dr_grade") for name in metrics)


def test_arms_have_names_for_readers():
    assert words("real") == "real only"
    assert words("real_plus_50") == "real + 50 % of the synthetic"
