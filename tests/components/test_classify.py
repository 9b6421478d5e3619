"""The step on cohorts of drawn phantoms: what it writes, and that it refuses a leak."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from kfp import dsl
from sklearn.metrics import roc_auc_score

from components.classify.shown import show
from components.classify.step import STEP, ClassifyParams
from components.report import figures as report_figures
from components.report import layout
from components.runner import check_params, content_hash
from retinalogos.classifiers.mixes import words
from retinalogos.cohort.deidentify import pseudonym_key
from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.readers import Source, read
from retinalogos.cohort.shards import CohortWriter, encode_png
from retinalogos.errors import DataError, UsageError
from retinalogos.phantom import PhantomRecord, draw, sample_records

SIZE = 48
ROOT = Path(__file__).parent.parent.parent
SAID = {"helps", "no difference shown", "harms"}
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
    }


@pytest.fixture(scope="module")
def params() -> ClassifyParams:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["classify"]
    values["grader"] |= {"size": SIZE, "widths": [8, 16], "features": 16, "steps": 4, "validate_every": 2}
    external = [{"reader": "phantom", "name": "elsewhere", "n": 24, "seed": 2}]
    return ClassifyParams.model_validate(values | {"runs": 2, "resamples": 50, "external": external})


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
    for found in (results["test"], results["external"]["elsewhere"]):
        for task, figures in {"dr_grade": 6, "referable_dr": 9, "glaucoma": 9}.items():
            assert tuple(found["figures"][task]) == ARMS
            for arm in ARMS:
                estimates = found["figures"][task][arm]
                assert len(estimates) == figures
                assert all(e["low"] <= e["high"] for e in estimates.values() if e["low"] is not None)
            assert tuple(found["difference"][task]) == ARMS[1:]
            assert {verdict["says"] for verdict in found["verdicts"][task].values()} <= SAID
    assert results["test"]["subgroups"]["glaucoma"].keys() <= {"age", "sex"}
    assert results["test"]["subgroups"]["dr_grade"]["sex"].keys() == {"female", "male"}
    assert results["images"]["elsewhere"] == 24
    assert (
        metrics["external.elsewhere.glaucoma.real.auc"]
        == (results["external"]["elsewhere"]["figures"]["glaucoma"]["real"]["auc"]["value"])
    )
    assert metrics["dr_grade.real.qwk"] == results["test"]["figures"]["dr_grade"]["real"]["qwk"]["value"]
    assert metrics["glaucoma.synthetic.auc_delta"] == pytest.approx(
        metrics["glaucoma.synthetic.auc"] - metrics["glaucoma.real.auc"], abs=1e-5
    )
    assert (metrics["train_real"], metrics["train_synthetic"]) == (results["arms"]["real"]["real"], 30)


def test_pictures_and_predictions_are_there(done):
    _, folder = done
    results = json.loads((folder / "results.json").read_text())
    assert len(results["pictures"]) == 2 * 2 + 3
    for name in results["pictures"]:
        data = (folder / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert b"matplotlib" not in data
    predictions = pq.read_table(folder / "predictions.parquet").to_pylist()
    known = {
        task: results["test"]["figures"][task]["real"]["auc"]["n"]
        + results["external"]["elsewhere"]["figures"][task]["real"]["auc"]["n"]
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
    real = write(tmp_path / "real", sample_records(4, seed=2), ["test"] * 4)
    alone = params.model_copy(update={"external": ()})
    with pytest.raises(DataError, match="names no generator"):
        STEP.run(alone, inputs | {"synthetic": real}, {"classification": tmp_path / "out"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixes": ["real_plus_50"]}, "should name `real`"),
        ({"mixes": ["real", "real_10_plus_50"]}, "real_10_plus_50 is compared with real_10, which is missing"),
        ({"mixes": ["real", "real_plus_500"]}, "_500 of plus"),
        ({"tasks": ["gender"]}, "classify.tasks.0"),
        ({"external": [{"reader": "hrf"}, {"reader": "hrf"}]}, "two sets of one name"),
    ],
)
def test_wrong_parameters_are_named(change, message):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["classify"]
    with pytest.raises(UsageError, match=message):
        check_params(STEP, values | change)


def test_the_place_of_an_external_set_is_not_in_what_is_written(params, tmp_path):
    entry = {"reader": "hrf", "source": str(tmp_path), "source_fingerprint": "abc"}
    checked = ClassifyParams.model_validate(params.model_dump() | {"external": [entry]})
    assert str(tmp_path) not in checked.model_dump_json()
    assert checked.external[0].source == str(tmp_path)


def test_a_cohort_without_glaucoma_is_judged_on_the_grade_alone(inputs, params, tmp_path):
    records = [replace(record, glaucoma="no") for record in sample_records(60, seed=3)]
    cohort = write(tmp_path / "healthy", records, by_patient(records, 30, 10))
    small = {"cohort": cohort, "synthetic": inputs["synthetic"]}
    alone = params.model_copy(update={"external": ()})
    metrics = STEP.run(alone, small, {"classification": tmp_path / "out"})
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["skipped"]["tasks"] == {"glaucoma": "the training images hold 1 of its classes; two are needed"}
    assert not any(name.startswith("glaucoma") for name in metrics)
    assert any(name.startswith("dr_grade") for name in metrics)


def excerpt(source: Path, folder: Path, wanted: dict[str, int]) -> Path:
    """So many eyes of each grade of a real data set, as a data set of its own; pictures and maps are linked."""
    with (source / "manifest.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    taken: Counter[str] = Counter()
    chosen = []
    for row in rows:
        if taken[row["dr_grade"]] < wanted.get(row["dr_grade"], 0):
            taken[row["dr_grade"]] += 1
            chosen.append(row)
    folder.mkdir()
    for name in source.iterdir():
        if name.is_dir():
            (folder / name.name).symlink_to(name)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return folder


@pytest.mark.data
def test_classifiers_of_odir_are_judged_in_other_places(real_data, inputs, params, tmp_path):
    odir = excerpt(real_data / "odir5k", tmp_path / "odir5k", {"0": 60, "1": 20, "2": 30, "3": 10, "4": 10})
    how = Ingestion(
        size=SIZE,
        jpeg_quality=95,
        fractions={"train": 0.6, "validation": 0.1, "test": 0.3},
        seed=0,
        quarantine_share=0.0,
        near_distance=0,
        key=pseudonym_key(open_source=True),
        workers=1,
    )
    ingest(read("odir5k", Source(odir)), tmp_path / "cohort", "odir5k", how)
    wanted = {"srahim_dr": dict.fromkeys("01234", 6), "hei_med": {"0": 8, "1": 9, "": 3}}
    elsewhere = [
        {"reader": name, "source": str(excerpt(real_data / name, tmp_path / name, grades))}
        for name, grades in wanted.items()
    ]
    changed = params.model_dump() | {"external": elsewhere, "mixes": ["real", "real_plus_100"]}
    here = {"cohort": tmp_path / "cohort", "synthetic": inputs["synthetic"]}
    metrics = STEP.run(ClassifyParams.model_validate(changed), here, {"classification": tmp_path / "out"})
    results = report_figures.read_results(tmp_path / "out")
    assert results["images"]["srahim_dr"] == 30
    assert results["images"]["hei_med"] == 20
    found = results["external"]
    assert found["srahim_dr"]["figures"]["dr_grade"]["real"]["qwk"]["n"] == 30
    assert found["srahim_dr"]["verdicts"]["referable_dr"]["real_plus_100"]["says"] in SAID
    # HEI-MED grades 17 eyes, none of them worse than mild.
    assert found["hei_med"]["figures"]["dr_grade"]["real"]["qwk"]["n"] == 17
    assert set(found["hei_med"]["skipped"]) == {"referable_dr"}
    assert "external.srahim_dr.dr_grade.real_plus_100.qwk" in metrics
    titles = [table.title for table in layout.classification(results)]
    assert "Referable DR (yes or no), on eyes of Srahim dr" in titles
    assert "DR grade (five classes), on eyes of Hei med: difference to what each is compared with" in titles
    assert any("on eyes of Srahim dr, training on real + 100 %" in sentence for sentence in layout.conclusion(results))


def test_arms_have_names_for_readers():
    assert words("real") == "real only"
    assert words("real_plus_50") == "real + 50 % of the synthetic"
    assert words("real_10_ratio_500") == "10 % of the real + 5 synthetic for each"
    assert words("real_without_augmentation") == "real only, without augmentation"
    assert words("synthetic") == "synthetic only"


def test_kubeflow_draws_the_matrix_and_the_curve_of_two_arms(done):
    _, folder = done
    results = json.loads((folder / "results.json").read_text())
    real, mixed = dsl.ClassificationMetrics(), dsl.ClassificationMetrics()
    show(dsl.Artifact(uri=str(folder)), real, mixed)
    predictions = pq.read_table(folder / "predictions.parquet").to_pandas()
    for arm, artifact in (("real", real), ("real_plus_50", mixed)):
        matrix = artifact.metadata["confusionMatrix"]
        assert [row["row"] for row in matrix["rows"]] == results["test"]["confusion"]["dr_grade"][arm]
        assert [one["displayName"] for one in matrix["annotationSpecs"]] == results["tasks"]["dr_grade"]
        points = artifact.metadata["confidenceMetrics"]
        wanted = predictions.query("set == 'test' and task == 'dr_grade' and arm == @arm")
        wanted = wanted.assign(referred=[sum(each[2:]) for each in wanted["probabilities"]])
        by_image = wanted.groupby("image_id").agg({"truth": "first", "referred": "mean"})
        area = np.trapezoid([one["recall"] for one in points], [one["falsePositiveRate"] for one in points])
        assert area == pytest.approx(roc_auc_score(by_image["truth"] >= 2, by_image["referred"]))
        json.dumps(artifact.metadata, allow_nan=False)
    assert (real.metadata["arm"], mixed.metadata["arm"]) == ("real", "real_plus_50")
