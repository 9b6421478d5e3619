import csv
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from components import ROOT
from components.report.figures import Figure, Gate, as_figure, every, find, judge, number
from components.report.layout import comparisons
from components.report.step import STEP, ReportParams
from retinalogos.cohort.shards import CohortWriter, encode_jpeg
from retinalogos.errors import DataError
from retinalogos.phantom import draw, sample_records

SIZE = 64
VERDICT = {"passed": True, "says": "12 of 12", "findings": []}


def estimate(value: float, spread: float = 0.02, n: int = 40) -> dict[str, float | int]:
    return {"value": value, "low": round(value - spread, 6), "high": round(value + spread, 6), "n": n}


def both(synthetic: float, real: float, **more: float) -> dict[str, dict[str, float | int]]:
    figures = {"synthetic": synthetic, "real": real, **more}
    return {key: estimate(value) for key, value in figures.items()}


def distances(synthetic: float, floor: float) -> dict[str, dict[str, float | int]]:
    return {"synthetic": estimate(synthetic, 0.4), "floor": estimate(floor, 0.3)}


ASSESSMENT = {
    "feature_space": "cohort",
    "size": 64,
    "images": {"train": 36, "test": 12, "synthetic": 30},
    "realism": {
        reference: {
            "n": 12,
            "same_mix": True,
            "frechet": {**distances(4.2, 1.3), "all": {"value": 4.0, "low": None, "high": None, "n": 30}},
            "kernel": distances(0.61, 0.2),
            "manifold": {
                "synthetic": {"precision": 0.81, "recall": 0.42, "density": 0.9, "coverage": 0.55},
                "floor": {"precision": 0.9, "recall": 0.88, "density": 1.02, "coverage": 0.93},
            },
        }
        for reference in ("train", "test")
    },
    "diversity": {"ms_ssim": both(0.55, 0.5), "scales": 3},
    "memorisation": {
        "share": estimate(0.01, 0.008),
        "share_real": estimate(0.02, 0.01),
        "pixels": {"authenticity": estimate(0.97), "authenticity_real": estimate(0.96)},
        "closest": [{"image_id": "a", "distance": 0.1}],
    },
    "control": {
        "judge": {
            kind: {
                "eye": {"accuracy": estimate(value), "confusion": [[5, 1], [0, 6]]},
                "dr_grade": {"accuracy": estimate(value - 0.4), "kappa": estimate(value - 0.3)},
                "glaucoma": {"accuracy": estimate(value - 0.1), "auc": estimate(value - 0.05)},
            }
            for kind, value in (("synthetic", 0.97), ("real", 0.99))
        },
        "measured": {
            kind: {"disc_found": estimate(0.99, 0.01), "vcdr_correlation": estimate(value), "vcdr_error": None}
            for kind, value in (("synthetic", 0.5), ("real", 0.9))
        },
    },
    "figures": ["realism.png"],
}

CLASSIFICATION = {
    task: {
        mix: {"accuracy": estimate(base + gain), "macro_f1": estimate(base - 0.05 + gain), "auc": estimate(0.8 + gain)}
        for mix, gain in (("real_only", 0.0), ("real_and_synthetic", 0.02), ("synthetic_only", -0.15))
    }
    for task, base in (("dr_grading", 0.55), ("glaucoma", 0.75))
}


def write_cohort(folder: Path, n: int, seed: int, generator: str | None = None) -> list[dict]:
    folder.mkdir()
    rows = []
    with CohortWriter(folder, "phantom" if generator is None else "phantom-synthetic") as writer:
        for index, record in enumerate(sample_records(n, seed)):
            image = encode_jpeg(draw([record], SIZE)[0].image)
            digest = hashlib.sha256(image).hexdigest()
            row = {
                "image_id": digest[:16],
                "patient_id": record.patient_id,
                "eye": record.eye,
                "dr_grade": record.dr_grade,
                "glaucoma": record.glaucoma,
                "split": "test" if generator is None and index // 2 % 4 == 3 else "train",
                "source": "phantom" if generator is None else "synthetic",
                "licence": "Apache-2.0",
                "width": SIZE,
                "height": SIZE,
                "sha256": digest,
                "image": {"bytes": image, "path": f"{index}.jpg"},
            }
            if generator is not None:
                row |= {"generator": generator, "prompt": f"{row['eye']} eye, grade {record.dr_grade} <b>&", "seed": index}
            writer.add(row)
            rows.append(row)
    return rows


def write_captions(folder: Path, rows: list[dict], dropped: list[dict] | None = None) -> None:
    folder.mkdir()
    table = [
        {
            "image_id": row["image_id"],
            "granularity": granularity,
            "wording": wording,
            "text": f"{granularity} wording {wording} of a {row['eye']} eye, grade {row['dr_grade']} & more.",
            "tokens": 12,
            "engine": "template",
            "prompt_version": "1",
            "seed": 0,
        }
        for row in rows
        for granularity in ("coarse", "fine")
        for wording in range(2)
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "captions.parquet")
    (folder / "captions.json").write_text("{}")
    if dropped is not None:
        with (folder / "dropped.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image_id", "wording", "granularity", "rule", "detail"])
            writer.writeheader()
            writer.writerows(dropped)


def write_log(folder: Path) -> None:
    (folder / "samples").mkdir(parents=True)
    rows = [
        {"step": step, "loss": round(1 / step + 0.3, 5), "gradient_norm": 1.0}
        | ({"validation_loss": round(1 / step + 0.35, 5)} if step % 50 == 0 else {})
        for step in range(10, 210, 10)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompts.json").write_text(json.dumps(["left eye", "right eye"]))
    for step in (100, 200):
        strip = np.concatenate([eye.image for eye in draw(sample_records(4, step), SIZE)], axis=1)
        Image.fromarray(strip).save(folder / "samples" / f"step-{step:06d}.png")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    """The folders of a finished run, small."""
    base = tmp_path_factory.mktemp("run")
    paths = {name: base / name for name in STEP.inputs}
    rows = write_cohort(paths["cohort"], 48, seed=1)
    write_cohort(paths["synthetic"], 30, seed=2, generator="minilm-UNet2DConditionModel:0123456789abcdef")
    write_captions(paths["captions"], rows)
    lost = [
        {"image_id": row["image_id"], "wording": 0, "granularity": "fine", "rule": rule, "detail": f"{rule} detail"}
        for row, rule in zip(rows, ["agreement", "agreement", "laterality"], strict=False)
    ]
    write_captions(paths["curated"], rows[3:], lost)
    for name, results in (("assessment", ASSESSMENT), ("classification", CLASSIFICATION)):
        paths[name].mkdir()
        (paths[name] / "results.json").write_text(json.dumps(results))
        (paths[name] / "manifest.json").write_text(
            json.dumps({"step": name, "version": "0.1.0", "params": {"seed": 0}, "inputs": {}, "metrics": {"fid": 4.2}})
        )
    Image.fromarray(np.full((80, 160, 3), 200, np.uint8)).save(paths["assessment"] / "realism.png")
    for name in ("validation", "validation_captions"):
        paths[name].mkdir()
        (paths[name] / "verdict.json").write_text(json.dumps(VERDICT))
    write_log(paths["pretrain_log"])
    write_log(paths["finetune_log"])
    paths["purification"].write_text(json.dumps({"captions": 192, "kept": 189, "dropped": 3}))
    return paths
