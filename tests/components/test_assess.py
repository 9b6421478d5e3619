"""The step on a tiny cohort of drawn phantoms, honest and dishonest generators in turn."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_generator import save_tiny_generator

from components.assess.step import STEP, AssessParams
from components.report import layout
from components.runner import content_hash
from retinalogos.cohort.release import FLAGGED
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import DataError, UsageError
from retinalogos.phantom import PhantomRecord, draw, sample_records
from retinalogos.segmenters.structures import MAPS

SIZE = 64
ROOT = Path(__file__).parent.parent.parent


def write_cohort(
    folder: Path,
    records: list[PhantomRecord],
    images: list[np.ndarray],
    source: str,
    splits: list[str],
    with_maps: bool = False,
) -> Path:
    with CohortWriter(folder, source) as writer:
        for position, (record, image, split) in enumerate(zip(records, images, splits, strict=True)):
            data = encode_png(image)
            row = record.cohort_row() | {
                "image_id": hashlib.sha256(f"{source}{position}".encode() + image.tobytes()).hexdigest()[:16],
                "width": SIZE,
                "height": SIZE,
                "sha256": hashlib.sha256(data).hexdigest(),
                "image": {"bytes": data, "path": f"{position}.png"},
                "source": source,
                "split": split,
            }
            if with_maps and position % 2 == 0:
                eye = draw([record], SIZE)[0]
                for name in MAPS:
                    row[name] = {"bytes": encode_png(getattr(eye, name)), "path": f"{name}.png"}
            if source == "synthetic":
                row |= {
                    "generator": "drawn",
                    "prompt": f"Photograph of the {record.eye} eye.",
                    "seed": position,
                    "truth": None,
                }
            writer.add(row)
    return folder


def drawn(records: list[PhantomRecord]) -> list[np.ndarray]:
    return [eye.image for eye in draw(records, SIZE)]


@pytest.fixture(scope="module")
def records() -> list[PhantomRecord]:
    return sample_records(150, seed=0)


@pytest.fixture(scope="module")
def images(records: list[PhantomRecord]) -> list[np.ndarray]:
    return drawn(records)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, records: list[PhantomRecord], images: list[np.ndarray]) -> Path:
    splits = ["train"] * 90 + ["validation"] * 20 + ["test"] * 40
    return write_cohort(tmp_path_factory.mktemp("assess") / "real", records, images, "phantom", splits)


def parameters(**changes: Any) -> AssessParams:
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["assess"]
    section |= {"size": SIZE, "feature_spaces": ["random_conv"], "resamples": 20, "distance_resamples": 5}
    section |= {"extrapolation_points": 3, "extrapolation_resamples": 3, "kernel_subsets": 5}
    section |= {"closest_pairs": 2, "grid_columns": 2}
    section["segmenter"] |= {"size": SIZE, "steps": 4, "widths": [8, 8], "batch_size": 4, "validate_every": 2}
    section["judge"] |= {"size": SIZE, "steps": 8, "validate_every": 4, "widths": [8, 8], "features": 16}
    return AssessParams.model_validate(section | changes)


def assess(
    real: Path, synthetic: Path, out: Path, generator: Path | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    inputs = {"cohort": real, "synthetic": synthetic} | ({"generator": generator} if generator else {})
    metrics = STEP.run(parameters(**changes), inputs, {"assessment": out / "assessment"})
    return dict(metrics), json.loads((out / "assessment" / "results.json").read_text())


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A perfect generator: other eyes of the same phantom."""
    others = sample_records(60, seed=1)
    folder = tmp_path_factory.mktemp("fresh") / "synthetic"
    return write_cohort(folder, others, drawn(others), "synthetic", ["train"] * 60)


@pytest.fixture(scope="module")
def honest(
    tmp_path_factory: pytest.TempPathFactory, real: Path, fresh: Path
) -> tuple[dict[str, Any], dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("honest")
    return *assess(real, fresh, out), out / "assessment"


def test_a_perfect_generator_is_as_good_as_real(honest: tuple[dict[str, Any], dict[str, Any], Path]) -> None:
    metrics, results, _ = honest
    assert metrics["fid"] < 2 * metrics["fid_floor"]
    kernel = results["realism"]["train"]["kernel"]
    assert kernel["synthetic"]["low"] < kernel["floor"]["high"]
    assert metrics["memorised_share"] <= 0.2  # 40 test images make a coarse threshold
    assert metrics["ms_ssim"] == pytest.approx(metrics["ms_ssim_real"], abs=0.1)
    assert metrics["disc_side_accuracy"] >= 0.95
    assert metrics["vcdr_mae"] == pytest.approx(metrics["vcdr_mae_real"], abs=0.05)
    assert metrics["lesion_load_spearman"] > 0.3


def test_grade_findings_and_captions_are_judged_beside_real_eyes(
    honest: tuple[dict[str, Any], dict[str, Any], Path],
) -> None:
    metrics, results, _ = honest
    for name in ("synthetic", "real"):
        judged = results["control"]["judge"][name]
        assert set(judged["dr_grade"]["curve"]) <= {f"grade_{grade}" for grade in range(5)}
        assert judged["findings"]["mean"]["auc"]["n"] == (60 if name == "synthetic" else 40)
        areas = [found["auc"]["value"] for found in judged["findings"]["each"].values()]
        assert len(areas) >= 3
        assert judged["findings"]["mean"]["auc"]["value"] == pytest.approx(np.mean(areas), abs=1e-5)
        load = results["control"]["measured"][name]["load_by_grade"]
        assert load["grade_3"]["value"] > load["grade_0"]["value"]
    assert metrics["findings_auc"] > 0.5
    assert "grades.png" in results["figures"]
    tables = {table.title: table for table in layout.assessment(results)}
    shown = [line.name for line, _ in tables["Control: does a classifier of real images see the findings? (AUC)"].lines]
    assert "Haemorrhage" in shown
    assert len(tables["Control: do pictures and captions find each other?"].lines) == 2


def test_every_figure_and_file_is_there(honest: tuple[dict[str, Any], dict[str, Any], Path]) -> None:
    metrics, results, folder = honest
    assert sorted(p.name for p in folder.iterdir()) == sorted([*results["figures"], "results.json", "flagged.csv"])
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in results["figures"])
    assert results["images"] == {"train": 90, "test": 40, "synthetic": 60}
    realism = results["realism"]["train"]
    assert realism["same_mix"]
    assert realism["frechet"]["synthetic"]["n"] == realism["frechet"]["floor"]["n"] == metrics["images_compared"]
    interval = realism["frechet"]["synthetic"]
    assert interval["low"] <= interval["value"] <= interval["high"]
    missing = [name for name, value in metrics.items() if value is None]
    assert missing == ["vessels_kept", "vessels_other_seed"]  # no generator was given


def test_the_same_inputs_give_the_same_bytes(
    honest: tuple[dict[str, Any], dict[str, Any], Path], real: Path, fresh: Path, tmp_path: Path
) -> None:
    metrics, _, folder = honest
    again, _ = assess(real, fresh, tmp_path)
    assert again == metrics
    assert content_hash(tmp_path / "assessment") == content_hash(folder)


def test_copies_blur_and_disobedience_are_found(
    real: Path, records: list[PhantomRecord], images: list[np.ndarray], honest: Any, tmp_path: Path
) -> None:
    # Every synthetic eye is a darker copy of a training eye, said to be the other eye with another cup.
    asked = [
        replace(r, eye="left" if r.eye == "right" else "right", vcdr=1 - r.vcdr, dr_grade=4 - r.dr_grade)
        for r in records[:60]
    ]
    copied = [(image * 0.85).astype(np.uint8) for image in images[:60]]
    folder = write_cohort(tmp_path / "synthetic", asked, copied, "synthetic", ["train"] * 60)
    metrics, results = assess(real, folder, tmp_path)
    good = honest[0]
    assert metrics["memorised_share"] >= 0.95
    assert metrics["memorised_share_real"] <= 0.1
    assert metrics["authenticity"] < good["authenticity"]
    assert metrics["disc_side_accuracy"] <= 0.05
    assert metrics["vcdr_mae"] > good["vcdr_mae"] + 0.05
    assert metrics["lesion_load_spearman"] < 0
    assert metrics["fid"] > good["fid"]
    for pair in results["memorisation"]["closest"]:
        assert pair["ratio"] < 1
    with (tmp_path / "assessment" / FLAGGED).open() as file:
        flagged = list(csv.DictReader(file))
    assert len(flagged) == round(60 * metrics["memorised_share"])
    assert {row["image_id"] for row in flagged} <= set(Cohort(folder).table(("image_id",))["image_id"].to_pylist())
    assert all(float(row["ratio"]) < 1 for row in flagged)


def test_a_collapsed_generator_is_found(real: Path, honest: Any, tmp_path: Path) -> None:
    one = sample_records(1, seed=7)[0]
    rng = np.random.default_rng(0)
    eye = drawn([one])[0]
    noisy = [(eye + rng.normal(0, 2, eye.shape)).clip(0, 255).astype(np.uint8) for _ in range(30)]
    folder = write_cohort(tmp_path / "synthetic", [one] * 30, noisy, "synthetic", ["train"] * 30)
    metrics, _ = assess(real, folder, tmp_path)
    assert metrics["ms_ssim"] > 0.9 > metrics["ms_ssim_real"]
    assert metrics["fid"] > 2 * metrics["fid_floor"]
    assert metrics["recall"] < honest[0]["recall"]


def test_real_photographs_are_not_measured_and_the_judge_gives_features(
    records: list[PhantomRecord], images: list[np.ndarray], fresh: Path, tmp_path: Path
) -> None:
    splits = ["train"] * 90 + ["validation"] * 20 + ["test"] * 40
    folder = write_cohort(tmp_path / "real", records, images, "photographs", splits, with_maps=True)
    metrics, results = assess(
        folder,
        fresh,
        tmp_path,
        save_tiny_generator(tmp_path / "generator"),
        feature_spaces=["cohort", "random_conv"],
        counterfactual_pairs=2,
        segment=True,
    )
    of_synthetic, of_real = (results["control"]["segmenter"][name] for name in ("synthetic", "real"))
    assert {"vessel", "disc", "cup", "haemorrhage"} <= set(of_real["structures"])
    assert of_real["structures"]["vessel"].keys() == {"area", "dice", "iou", "auc", "average_precision"}
    # Synthetic images of captions have no maps; what was asked for is a finding.
    assert of_synthetic["structures"]["haemorrhage"].keys() == {"area", "finding_auc"}
    assert of_synthetic.keys() == of_real.keys() == {"structures", "disc_side", "vcdr_error", "vcdr_correlation"}
    titles = [table.title for table in layout.assessment(results)]
    assert "Control: what does a segmenter of real images see?" in titles
    counterfactual = results["counterfactual"]
    assert set(counterfactual) == {"pairs", "eye", "dr_grade", "glaucoma"}
    assert set(counterfactual["eye"]) == {"vessels", "judge"}
    kept = counterfactual["dr_grade"]["vessels"]
    assert metrics["vessels_kept"] == kept["changed"]["value"]
    # A generator of random weights hardly listens: one seed, one picture.
    assert kept["changed"]["value"] > 0.9 > kept["other_seed"]["value"]
    assert "counterfactuals.png" in results["figures"]
    assert results["feature_space"] == "cohort"
    assert results["dimensions"] == 16
    (other,) = results["other_spaces"]
    assert (other["feature_space"], other["dimensions"]) == ("random_conv", 256)
    assert other["realism"]["test"]["frechet"]["floor"]["n"] == results["realism"]["test"]["frechet"]["floor"]["n"]
    assert other["realism"]["test"] != results["realism"]["test"]
    assert metrics["disc_side_accuracy"] is None
    assert metrics["laterality_accuracy"] is not None
    assert "measured.png" not in results["figures"]


def test_a_cohort_without_test_images_is_refused(
    records: list[PhantomRecord], images: list[np.ndarray], fresh: Path, tmp_path: Path
) -> None:
    folder = write_cohort(tmp_path / "real", records[:30], images[:30], "phantom", ["train"] * 30)
    with pytest.raises(DataError, match="no image in the split 'test'"):
        assess(folder, fresh, tmp_path)


def test_an_unknown_feature_space_is_refused(real: Path, fresh: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="feature space 'inceptoin'"):
        assess(real, fresh, tmp_path, feature_spaces=["inceptoin"])
