import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from browser import Tab, browser
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from components import ROOT
from components.__main__ import main
from components.report import curves, layout
from components.report.charts import line_chart
from components.report.figures import Figure, Gate, every, find, judge, number
from components.report.page import pictures
from components.report.step import STEP, ReportParams
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_jpeg
from retinalogos.errors import DataError, UsageError
from retinalogos.phantom import PhantomRecord, draw, sample_records

SIZE = 64
VERDICT = {
    "passed": True,
    "says": "2 of 3 expectations hold, 0 errors, 1 warnings",
    "errors": 0,
    "warnings": 1,
    "findings": [
        {
            "suite": "images",
            "name": f"expectation {number}",
            "severity": "warning" if number == 2 else "error",
            "passed": number != 2,
            "observed": "36 of 36 as expected",
            "why": "because <it> matters",
        }
        for number in range(3)
    ],
}


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
            "frechet_by_size": {
                kind: {"sizes": [6, 9, 12], "values": [value + 1, value + 0.4, value]}
                for kind, value in (("synthetic", 4.2), ("floor", 1.3))
            },
            "kernel": distances(0.61, 0.2),
            "manifold": {
                "synthetic": {"precision": 0.81, "recall": 0.42, "density": 0.9, "coverage": 0.55},
                "floor": {"precision": 0.9, "recall": 0.88, "density": 1.02, "coverage": 0.93},
            },
        }
        for reference in ("train", "test")
    },
    "other_spaces": [{"feature_space": "random_conv", "realism": {"test": {"n": 12, "frechet": distances(0.7, 0.5)}}}],
    "counterfactual": {
        "pairs": 6,
        "eye": {
            "vessels": {"changed": estimate(0.62), "other_seed": estimate(0.31)},
            "judge": {
                "target": {"changed": estimate(0.91), "other_seed": estimate(0.02)},
                "others": {"glaucoma": {"changed": estimate(0.04), "other_seed": estimate(0.22)}},
            },
        },
    },
    "diversity": {"ms_ssim": both(0.55, 0.5), "scales": 3},
    "memorisation": {
        "share": estimate(0.01, 0.008),
        "share_real": estimate(0.02, 0.01),
        "pixels": {"authenticity": estimate(0.97), "authenticity_real": estimate(0.96)},
    },
    "control": {
        "judge": {
            kind: {
                "eye": {"accuracy": estimate(value), "confusion": [[5, 1], [0, 6]]},
                "dr_grade": {
                    "accuracy": estimate(value - 0.4),
                    "kappa": estimate(value - 0.3),
                    "curve": {f"grade_{grade}": estimate(value * grade, 0.3) for grade in range(5)},
                },
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

ARMS = {"real": 0.0, "real_plus_50": 0.02, "real_plus_100": 0.04, "synthetic": -0.15}
CLASSIFICATION = {
    "tasks": {"dr_grade": ["a", "b"], "glaucoma": ["no", "glaucoma"]},
    "seeds": [0, 1],
    "primary": {"dr_grade": "qwk", "glaucoma": "auc"},
    "specificity": 0.95,
    "arms": {
        arm: {"real": 36, "synthetic": 30, "optimiser_steps": 10, "against": None if arm == "real" else "real"}
        for arm in ARMS
    },
    "test": {
        "figures": {
            task: {
                arm: {merit: estimate(base + gain) for merit in ("accuracy", "macro_f1", "auc", "qwk")}
                for arm, gain in ARMS.items()
            }
            for task, base in (("dr_grade", 0.55), ("glaucoma", 0.75))
        },
        "difference": {
            task: {
                arm: {merit: estimate(gain, 0.03) for merit in ("accuracy", "macro_f1", "auc", "qwk")}
                for arm, gain in ARMS.items()
                if arm != "real"
            }
            for task in ("dr_grade", "glaucoma")
        },
        "confusion": {"dr_grade": {"real": [[3, 1], [0, 4]]}},
        "verdicts": {
            task: {
                arm: {
                    "figure": merit,
                    "against": "real",
                    "difference": estimate(gain, 0.03),
                    "p": 0.2 if gain > 0 else 0.0001,
                    "p_holm": 0.6 if gain > 0 else 0.0006,
                    "says": "harms" if arm == "synthetic" else "no difference shown",
                }
                for arm, gain in ARMS.items()
                if arm != "real"
            }
            for task, merit in (("dr_grade", "qwk"), ("glaucoma", "auc"))
        },
        "subgroups": {
            "glaucoma": {
                "sex": {
                    sex: {
                        "figures": {arm: estimate(0.7, n=20) for arm in ARMS},
                        "difference": {arm: estimate(0.0, n=20) for arm in ARMS if arm != "real"},
                    }
                    for sex in ("female", "male")
                }
            }
        },
        "skipped": {},
    },
    "pictures": [],
}


def write_cohort(folder: Path, records: Sequence[PhantomRecord], generator: str | None = None) -> list[dict]:
    folder.mkdir()
    rows = []
    with CohortWriter(folder, "phantom" if generator is None else "phantom-synthetic") as writer:
        for index, record in enumerate(records):
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
                row |= {
                    "generator": generator,
                    "prompt": f"{row['eye']} eye, grade {record.dr_grade} <b>&",
                    "seed": index,
                }
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
    engines = [
        {"engine": "server", "prompt_version": "record-1+01234567", "model": "one <b>"},
        {"engine": "template", "prompt_version": "template-9"},
    ]
    (folder / "captions.json").write_text(json.dumps({"engines": engines}))
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


def write_predictions(path: Path) -> None:
    """Four healthy eyes and four with glaucoma, by two trainings that sway about what both say in the mean."""
    scores = [0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9]
    rows = [
        {"image_id": f"eye {at}", "set": "test", "task": "glaucoma", "arm": arm, "seed": seed, "truth": int(at >= 4),
         "probabilities": [1 - told, told]}
        for arm in ("real", "real_plus_100", "synthetic")
        for seed, sway in ((0, 0.05), (1, -0.05))
        for at, told in enumerate(score + sway for score in (scores if arm == "real" else scores[::-1]))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    """The folders of a finished run, small."""
    base = tmp_path_factory.mktemp("run")
    paths = {name: base / name for name in STEP.inputs}
    rows = write_cohort(paths["cohort"], sample_records(48, 1))
    made = write_cohort(
        paths["synthetic"], sample_records(30, 2), generator="minilm-UNet2DConditionModel:0123456789abcdef"
    )
    write_captions(paths["captions"], rows)
    lost = [
        {"image_id": row["image_id"], "wording": 0, "granularity": "fine", "rule": rule, "detail": f"{rule} detail"}
        for row, rule in zip(rows, ["agreement", "agreement", "laterality"], strict=False)
    ]
    write_captions(paths["curated"], rows[3:], lost)
    near = {"train_id": rows[0]["image_id"], "relative": 0.4, "rare": False}
    test = next(row["image_id"] for row in rows if row["split"] == "test")
    closest = [near | {"image_id": made[0]["image_id"], "space": "aligned", "ratio": 0.8}]
    closest += [near | {"image_id": made[1]["image_id"], "space": "features", "ratio": 1.3}]
    unseen = [near | {"image_id": test, "space": "pixels", "ratio": 1.1}]
    memorisation = ASSESSMENT["memorisation"] | {"closest": closest, "closest_real": unseen}
    assessment = ASSESSMENT | {"memorisation": memorisation}
    for name, results in (("assessment", assessment), ("classification", CLASSIFICATION)):
        paths[name].mkdir()
        (paths[name] / "results.json").write_text(json.dumps(results))
        (paths[name] / "manifest.json").write_text(
            json.dumps({"step": name, "version": "0.1.0", "params": {"seed": 0}, "inputs": {}, "metrics": {"fid": 4.2}})
        )
    Image.fromarray(np.full((80, 160, 3), 200, np.uint8)).save(paths["assessment"] / "realism.png")
    write_predictions(paths["classification"] / "predictions.parquet")
    for name in ("validation", "validation_captions"):
        paths[name].mkdir()
        (paths[name] / "verdict.json").write_text(json.dumps(VERDICT))
    write_log(paths["pretrain_log"])
    write_log(paths["finetune_log"])
    paths["ablation"].mkdir()
    (paths["ablation"] / "results.json").write_text('{"enabled": false}')
    paths["purification"].write_text(json.dumps({"captions": 192, "kept": 189, "dropped": 3}))
    return paths


@pytest.fixture(scope="module")
def params() -> ReportParams:
    return ReportParams(**yaml.safe_load((ROOT / "params.yaml").read_text())["report"])


@pytest.fixture(scope="module")
def report(inputs, params, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "report"
    STEP.run(params, inputs, {"report": folder})
    return folder


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; complains about unbalanced tags."""

    VOID = frozenset(("meta", "link", "img", "br", "line", "circle", "polyline", "input", "hr"))

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data + " "


def test_page_is_whole_and_asks_for_nothing_from_elsewhere(report):
    html = (report / "index.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    links = [value for _, attributes in page.attributes for key, value in attributes.items() if key in ("src", "href")]
    assert links
    assert all(link.startswith(("data:image/", "data:text/csv;", "#")) for link in links)
    assert "url(" not in html
    assert "@import" not in html
    [script] = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in html
    ids = {attributes["id"] for _, attributes in page.attributes if "id" in attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert all("alt" in attributes for tag, attributes in page.attributes if tag == "img")


def test_page_says_what_a_reader_must_know(report):
    text = " ".join(Page((report / "index.html").read_text(encoding="utf-8")).text.split())
    for fact in (
        "research use only, not for diagnosis",
        "All 5 gates passed",
        "30 synthetic eyes",
        "drawn by the digital phantom",
        "97 %",  # laterality
        "Severe non-proliferative diabetic retinopathy",
        "left eye, grade",
        "2 of 3 expectations hold",
        "Agreement",  # rule by which captions were dropped
        "laterality detail",
        "Real + 50 % of the synthetic",
        "training on real + 50 % of the synthetic: no difference shown (Weighted kappa 0.550 with real only, change "
        "+0.020, 95 % interval −0.010 to +0.050, corrected p 0.600)",
        "training on synthetic only: harms",
        "assessment",
        "fid",
        "minilm-UNet2DConditionModel:0123456789abcdef",
        "Apache-2.0",
    ):
        assert fact in text, fact


def test_the_engine_and_its_prompt_are_named(report):
    html = (report / "index.html").read_text(encoding="utf-8")
    assert "(server, model one &lt;b&gt;, prompt record-1+01234567; template, prompt template-9)" in html


def test_with_and_without_purification_stand_side_by_side(report, inputs, params, tmp_path):
    before = Page((report / "index.html").read_text(encoding="utf-8")).text
    assert "Not compared in this run" in before
    unpurified = json.loads(json.dumps(ASSESSMENT))
    unpurified["realism"]["train"]["frechet"]["synthetic"]["value"] = 7.77
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "results.json").write_text(json.dumps({"enabled": True, "without": unpurified}))
    STEP.run(params, inputs | {"ablation": tmp_path / "ablation"}, {"report": tmp_path / "report"})
    text = " ".join(Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8")).text.split())
    _, told, side_by_side = text.partition("on the 189 captions that were kept, and on all 192")
    assert told
    assert "with purification without other real images" in side_by_side
    row = side_by_side[side_by_side.index("FID to the training images") :]
    assert re.search(r"4\.200 3\.8\S* to 4\.6\S* 7\.770 3\.8\S* to 4\.6\S* 1\.300", row[:300]), row[:300]


def test_text_of_captions_and_prompts_is_shown_and_never_run(report):
    html = (report / "index.html").read_text(encoding="utf-8")
    assert "grade 0 &lt;b&gt;&amp;" in html
    assert "<b>&" not in html


def test_prompts_of_every_class_are_shown_though_classes_come_in_turns(inputs, tmp_path):
    records = [record for record in sample_records(200, 3) if record.glaucoma == "no"]
    turns = [
        next(record for record in records if (record.eye, record.dr_grade) == wanted)
        for wanted in (("left", 0), ("left", 4), ("right", 0), ("right", 4))
    ]
    write_cohort(tmp_path / "synthetic", turns, generator="made:0123456789abcdef")
    shown = pictures(Cohort(inputs["cohort"]), Cohort(tmp_path / "synthetic"), 1, 2, SIZE)["prompts"]
    assert {"grade 0" in of_prompt["prompt"] for of_prompt in shown} == {True, False}


def test_pictures_are_jpeg_without_metadata_and_the_page_is_small(report):
    html = (report / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", html)
    assert len(pictures) > 30
    for picture in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert len(html) < 2e6


def test_same_inputs_give_the_same_bytes(inputs, params, report, tmp_path):
    STEP.run(params, inputs, {"report": tmp_path / "again"})
    for name in ("index.html", "gates.json", "figures.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (report / name).read_bytes()


def test_a_failed_gate_is_said_with_its_number(inputs, params, tmp_path):
    gates = {**params.gates, "grade": params.gates["grade"].model_copy(update={"min": 0.9})}
    metrics = STEP.run(params.model_copy(update={"gates": gates}), inputs, {"report": tmp_path / "report"})
    assert metrics["gates_passed"] == 4
    assert metrics["gate.grade"] is False
    text = Page((tmp_path / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "4 of 5 gates passed: this generator may not be promoted." in text
    assert "(rank correlation of lesion load, or weighted kappa of a judge): 0.670, asked for at least 0.900" in text
    [verdict] = [v for v in json.loads((tmp_path / "report" / "gates.json").read_text()) if v["name"] == "grade"]
    assert (verdict["passed"], verdict["value"], verdict["limit"]) == (False, pytest.approx(0.67), 0.9)


def test_a_page_too_large_stops_the_step(inputs, params, tmp_path):
    with pytest.raises(DataError, match="max_megabytes"):
        STEP.run(params.model_copy(update={"max_megabytes": 0.01}), inputs, {"report": tmp_path / "report"})


def test_missing_results_are_named(inputs, params, tmp_path):
    with pytest.raises(DataError, match=r"results.json"):
        STEP.run(params, {**inputs, "assessment": inputs["captions"]}, {"report": tmp_path / "report"})


RESULTS = {
    "assessment": {
        "a": {
            "fid": estimate(3.0),
            "floor": 2.0,
            "zero": 0.0,
            "none": {"value": None, "low": None, "high": None, "n": 0},
        }
    }
}


@pytest.mark.parametrize(
    ("gate", "passed", "says"),
    [
        ({"figure": "assessment.a.fid", "max": 3.0}, True, "is 3, asked for at most 3"),
        ({"figure": "assessment.a.fid", "max": 2.9}, False, "is 3, asked for at most 2.900"),
        ({"figure": "assessment.a.fid", "min": 3.1}, False, "at least 3.100"),
        (
            {"figure": "assessment.a.fid", "max": 1.5, "times": "assessment.a.floor", "times_title": "floor of it"},
            True,
            "at most 3, which is 1.500 × 2 (floor of it)",
        ),
        (
            {"figure": "assessment.a.fid", "max": 1.4, "times": "assessment.a.floor", "times_title": "floor"},
            False,
            "at most 2.800",
        ),
        ({"figure": "assessment.a.none", "max": 1.0}, False, "not measured"),
        ({"figure": "assessment.b.c", "min": 0.0}, False, "not measured"),
        ({"figure": "assessment.a.none", "otherwise": "assessment.a.floor", "min": 2.0}, True, "a.floor is 2, asked"),
        ({"figure": "assessment.a.fid", "otherwise": "assessment.a.floor", "min": 2.5}, True, "a.fid is 3, asked"),
        ({"figure": "assessment.a.none", "otherwise": "assessment.b", "min": 2.0}, False, "not measured"),
        (
            {"figure": "assessment.a.fid", "max": 9.0, "times": "assessment.b", "times_title": "b"},
            False,
            "at most 9 × the b, which is not measured, so that there is no limit",
        ),
        (
            {"figure": "assessment.a.zero", "min": 0.5, "times": "assessment.a.zero", "times_title": "Dice of real"},
            False,
            "is 0, asked for at least 0.500 × the Dice of real, which is 0, so that there is no limit",
        ),
    ],
)
def test_gates(gate, passed, says):
    verdict = judge("g", Gate(title="t", **gate), RESULTS)
    assert verdict.passed is passed
    assert says in verdict.says


def test_a_gate_needs_one_limit_and_a_figure_of_the_results():
    for limits in ({}, {"min": 0.0, "max": 1.0}):
        with pytest.raises(ValidationError, match="either min or max"):
            Gate(title="t", figure="assessment.a.fid", **limits)
    with pytest.raises(ValidationError, match="says in words"):
        Gate(title="t", figure="assessment.a.fid", min=0.0, times="assessment.a.floor")
    with pytest.raises(UsageError, match=r"report.gates.g: .*must begin with one of assessment"):
        judge("g", Gate(title="t", figure="fid", min=0.0), RESULTS)


@given(st.dictionaries(st.text("abc", min_size=1), st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_every_figure_is_found_by_the_name_under_which_it_is_listed(values):
    results = {"outer": values, "list": [1, 2], "word": "x", "yes": True}
    listed = list(every(results))
    assert len(listed) == len(values)
    assert all(find(results, name) == figure for name, figure in listed)


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (None, False, "–"), (float("nan"), False, "–"), (0.95, True, "95 %"), (0.9567, True, "95.7 %"),
        (3.0, False, "3"), (2.5e-5, False, "< 0.0001"), (-4e-6, False, "> −0.0001"),
        (0.12345, False, "0.123"), (12.345, False, "12.3"), (1234.5, False, "1234"), (0.00012, False, "0.00012"),
        (-0.25, False, "−0.250"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_one_reads_them(value, percent, text):
    assert number(value, percent) == text


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e3, 1e3)), max_size=900))
def test_curves_stay_within_their_frame(points):
    svg = str(line_chart({"loss": points}, "step", "loss"))
    if not points:
        assert svg == ""
        return
    Page(svg)
    [path] = re.findall(r'class="curve c0" data-name="loss" points="([^"]*)"', svg)
    drawn = [tuple(map(float, point.split(","))) for point in path.split()]
    assert len(drawn) <= 402
    assert all(-0.1 <= x <= 520.1 and -0.1 <= y <= 220.1 for x, y in drawn)


def test_intervals_and_the_diagonal_are_drawn_within_the_frame():
    svg = str(line_chart({"seen": [(0, 0.5, 0.2, 0.9), (4, 3.0, 2.5, 3.6)]}, "grade", "grade seen", diagonal=True))
    Page(svg)
    assert 'data-intervals="0.2,0.9 2.5,3.6"' in svg
    left, right, bottom, top = (float(part) for part in re.search(r'data-frame="([^"]*)"', svg)[1].split())
    ends = [tuple(map(float, found)) for found in re.findall(r'x1="(\S+)" x2="\S+" y1="(\S+)" y2="(\S+)"', svg)]
    assert all(left <= x <= right and top - 0.1 <= min(a, b) and max(a, b) <= bottom + 0.1 for x, a, b in ends[-2:])
    assert svg.count("<circle") == 2
    assert 'class="diagonal"' in svg


def test_long_names_of_curves_have_lines_of_their_own():
    names = [
        "real only",
        "real + 100 % of the synthetic, without augmentation",
        "10 % of the real + 100 % of the synthetic",
    ]
    svg = str(line_chart({name: [(0, 0), (1, 1)] for name in names}, "x", "y"))
    places = [tuple(map(float, found)) for found in re.findall(r'<text x="(\d+)" y="(\d+)">', svg)]
    assert [y for _, y in places] == sorted(y for _, y in places)
    assert len({y for _, y in places}) == 2
    assert all(x + 5 * len(name) <= 520 for (x, _), name in zip(places, names, strict=True))


def test_roc_and_calibration_are_those_of_the_predictions(inputs):
    charts = curves.classification(CLASSIFICATION, inputs["classification"] / "predictions.parquet")
    drawn = {chart["name"]: str(chart["svg"]) for chart in charts}
    assert list(drawn) == ["Glaucoma (yes or no): ROC curve", "Glaucoma (yes or no): calibration"]
    found = {}
    for chart, svg in drawn.items():
        left, right, bottom, top = (float(part) for part in re.search(r'data-frame="([^"]*)"', svg)[1].split())
        x0, x1, y0, y1 = (float(part) for part in re.search(r'data-range="([^"]*)"', svg)[1].split())
        for name, points in re.findall(r'data-name="([^"]*)" points="([^"]*)"', svg):
            pairs = [tuple(map(float, point.split(","))) for point in points.split()]
            found[chart[-4:].strip(), name] = [
                (x0 + (x - left) / (right - left) * (x1 - x0), y0 + (bottom - y) / (bottom - top) * (y1 - y0))
                for x, y in pairs
            ]
    roc = {round(x, 2): y for x, y in found["urve", "real only"]}
    # One healthy eye of four scores above the least certain one with glaucoma.
    assert [roc[rate] for rate in (0, 0.24, 0.25, 1)] == pytest.approx([0.75, 0.75, 1, 1], abs=0.01)
    other = {round(x, 2): y for x, y in found["urve", "synthetic only"]}
    assert other[0.75] == pytest.approx(0.25, abs=0.01)
    told = found["tion", "real only"]
    assert [x for x, _ in told] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], abs=0.01)
    assert [y for _, y in told] == pytest.approx([0, 0, 0, 1, 0, 1, 1, 1], abs=0.01)


def test_without_predictions_there_are_no_curves(tmp_path):
    assert curves.classification(CLASSIFICATION, tmp_path / "predictions.parquet") == []


def test_closest_pairs_stand_beside_those_of_unseen_eyes(report):
    html = (report / "index.html").read_text(encoding="utf-8")
    [section] = re.findall(r'<section id="assessment">(.*?)</section>', html, re.DOTALL)
    captions = re.findall(r"<figcaption>((?:laid|by) .*?)</figcaption>", section)
    assert [" ".join(re.sub("<[^>]*>", "", caption).split()) for caption in captions] == [
        "laid over each other: 0.800 × the limit taken for a copy",
        "by features: 1.300 × the limit",
        "by pixels: 1.100 × the limit",
    ]
    assert section.index("SYNTHETIC, and the nearest") < section.index("REAL TEST, and the nearest")


def test_pictures_say_what_they_show():
    says = {name: layout.picture_words(f"{name}.png") for name in
            ("judge", "test_figures", "srahim_dr_difference", "test_dr_grade_confusion", "of_old")}  # fmt: skip
    assert says["judge"].startswith("What the classifier of real images sees")
    assert says["test_figures"].startswith("Real test eyes. The figure of each task")
    assert says["srahim_dr_difference"].startswith("Eyes of Srahim dr. Differences")
    assert says["test_dr_grade_confusion"].startswith("DR grade (five classes). Truth (rows)")
    assert says["of_old"] == "Of old"


def test_classification_has_figures_and_differences_of_every_task():
    titles = [table.title for table in layout.classification(CLASSIFICATION)]
    assert titles == [
        "DR grade (five classes)",
        "DR grade (five classes): difference to what each is compared with",
        "Glaucoma (yes or no)",
        "Glaucoma (yes or no): difference to what each is compared with",
        "Glaucoma (yes or no), by sex: AUC",
        "Glaucoma (yes or no), by sex: AUC: difference to what each is compared with",
    ]
    assert layout.classification({"test": {"figures": {}}}) == []


def test_eyes_of_another_place_are_told_apart():
    results = {**CLASSIFICATION, "external": {"hei_med": CLASSIFICATION["test"]}}
    titles = [table.title for table in layout.classification(results)]
    assert titles[6] == "DR grade (five classes), on eyes of Hei med"
    sentences = layout.help_sentences(results)
    assert len(sentences) == 12
    assert sum("on eyes of Hei med" in sentence for sentence in sentences) == 6


def test_tables_can_be_saved(report):
    rows = list(csv.DictReader(io.StringIO((report / "figures.csv").read_text(encoding="utf-8"))))
    by_name = {row["name"]: row for row in rows}
    fid = by_name["assessment.realism.test.frechet.synthetic"]
    assert (float(fid["value"]), float(fid["low"]), int(fid["n"])) == (4.2, 3.8, 40)
    assert by_name["metrics.assessment.fid"]["value"] == "4.2"
    assert by_name["metrics.assessment.fid"]["low"] == ""
    html = (report / "index.html").read_text(encoding="utf-8")
    assert 'download="assessment.csv"' in html
    [saved] = re.findall(r'href="data:text/csv;base64,([^"]+)" download="classification.csv"', html)
    table = list(csv.DictReader(io.StringIO(base64.b64decode(saved).decode())))
    assert {f"classification.{row['name']}" for row in table} == {n for n in by_name if n.startswith("classification.")}


def test_gates_hold_ends_of_intervals_and_metrics_of_steps(inputs, params, tmp_path):
    gates = {
        "floor": Gate(title="t", figure="assessment.control.judge.synthetic.eye.accuracy.low", min=0.96),
        "steps": Gate(title="t", figure="metrics.assessment.fid", max=4.2),
    }
    metrics = STEP.run(params.model_copy(update={"gates": gates}), inputs, {"report": tmp_path / "report"})
    assert (metrics["gate.floor"], metrics["gate.steps"]) == (False, True)
    verdict = judge("floor", gates["floor"], {"assessment": ASSESSMENT})
    assert verdict.says.startswith("report.gates.floor failed: assessment.control.judge.synthetic.eye.accuracy.low")


def test_two_runs_stand_beside_each_other(inputs, params, report, tmp_path, capsys):
    later = tmp_path / "later"
    gates = {**params.gates, "grade": params.gates["grade"].model_copy(update={"min": 0.9})}
    changed = json.loads(json.dumps(ASSESSMENT))
    changed["realism"]["test"]["frechet"]["synthetic"] = estimate(9.0, 0.4)
    assessed = tmp_path / "assessment"
    assessed.mkdir()
    (assessed / "results.json").write_text(json.dumps(changed))
    STEP.run(params.model_copy(update={"gates": gates}), {**inputs, "assessment": assessed}, {"report": later})
    for folder, steps in ((report, 5), (later, 9)):
        entry = {"step": "finetune", "version": "1", "params": {"steps": steps, "seed": 0}, "inputs": {}}
        (folder / "manifest.json").write_text(json.dumps({**entry, "metrics": {}, "stages": {}}))
    page = tmp_path / "comparison.html"
    assert main(["compare", f"before={report}", str(later), "--out", str(page)]) == 0
    (report / "manifest.json").unlink()
    parsed = Page(page.read_text(encoding="utf-8"))
    text = " ".join(parsed.text.split())
    assert parsed.open == []
    assert "finetune.steps 5 9" in text
    assert "finetune.seed" not in text, "the same in both"
    assert "assessment.realism.test.frechet.synthetic 4.200 3.800 to 4.600 9 8.600 to 9.400 ≠" in text
    assert "assessment.realism.train.frechet.synthetic 4.200 3.800 to 4.600 4.200 3.800 to 4.600 assessment" in text
    assert "✗ failed" in text
    assert "Eyes that show the side asked for 97 % ✓ passed" in text
    first, _, every_figure = text.partition("Every figure")
    assert "the same to images that the generator never saw 4.200 3.800 to 4.600 9 8.600 to 9.400" in first
    assert "Glaucoma (yes or no): Synthetic only real test eyes −0.150 −0.180 to −0.120 −0.150" in first
    assert "dr_grade.real_plus_50" not in first
    assert "classification.test.verdicts.dr_grade.real_plus_50.difference" in every_figure
    assert main(["compare", str(report), "--out", str(page)]) == 2
    assert main(["compare", str(report), str(tmp_path), "--out", str(page)]) == 1
    assert "is not what the step report writes" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tab(report, tmp_path_factory) -> Iterator[Tab]:
    """The page in a browser, from the disk."""
    with browser(tmp_path_factory.mktemp("browser")) as new_tab:
        opened = new_tab()
        opened.go((report / "index.html").as_uri())
        yield opened
        assert [address for address in opened.requests if not address.startswith(("file:", "data:", "blob:"))] == []
        assert opened.complaints == []


# The table under its heading; between them stand the tools that the script adds.
GRADE = (
    "[...document.querySelectorAll('h3')].find(heading => heading.textContent === 'DR grade (five classes)')"
    ".nextElementSibling.nextElementSibling.querySelector('table')"
)


def test_tables_are_sorted_by_a_column_and_back(tab):
    arms = f"[...{GRADE}.tBodies[0].rows].map(row => row.cells[0].firstChild.textContent)"
    auc = f"{GRADE}.tHead.rows[0].cells[3].querySelector('button')"
    before = tab.evaluate(arms)
    for direction, first in (("descending", "Real + 100 % of the synthetic"), ("ascending", "Synthetic only")):
        tab.evaluate(f"{auc}.click()")
        assert tab.evaluate(arms)[0] == first
        assert tab.evaluate(f"{auc}.parentElement.getAttribute('aria-sort')") == direction
    tab.evaluate(f"{auc}.click()")
    assert tab.evaluate(arms) == before


def test_every_table_is_saved_as_it_is_shown(tab):
    tab.evaluate(f"{GRADE}.closest('.scroll').previousElementSibling.querySelector('button').click()")
    file = tab.downloaded()
    assert file.name == "dr-grade-five-classes.csv"
    rows = {row[""]: row for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))}
    assert len(rows) == 4
    of_synthetic = CLASSIFICATION["test"]["figures"]["dr_grade"]["synthetic"]["auc"]
    saved = {part: float(rows["Synthetic only"][f"AUC {part}"]) for part in ("value", "low", "high", "n")}
    assert saved == of_synthetic


def test_figures_are_found_by_a_part_of_their_name(tab):
    names = "[...document.querySelector('#assessment details table').tBodies[0].rows].filter(row => !row.hidden).length"
    everything = tab.evaluate(names)
    tab.evaluate("document.querySelector('#assessment details').open = true")
    tab.evaluate("document.querySelector('#assessment details input[type=search]').focus()")
    tab.write("frechet")
    assert 0 < tab.until(f"{names} < {everything} && {names}") < everything
    tab.evaluate("document.querySelector('#assessment details').open = false")


def test_curves_are_read_by_pointer_and_by_key(tab):
    tab.evaluate("document.querySelector('#training svg.chart').scrollIntoView({behavior: 'instant', block: 'center'})")
    box = tab.evaluate("(({left, top, width, height}) => ({left, top, width, height}))"
                       "(document.querySelector('#training svg.chart').getBoundingClientRect())")  # fmt: skip
    middle = {"x": box["left"] + box["width"] / 2, "y": box["top"] + box["height"] / 2}
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", **middle)
    read = "document.querySelector('#training .reading').value"
    tab.until(f"{read}.startsWith('step 1')")
    step, training, *_ = re.fullmatch(
        r"step (\d+): training (\S+), validation (\S+)( \(at \d+\))?", tab.evaluate(read)
    ).groups()
    assert float(training) == pytest.approx(1 / int(step) + 0.3, abs=0.01)
    tab.evaluate("document.querySelector('#training svg.chart').focus()")
    tab.press("ArrowRight")
    assert tab.evaluate(read).startswith(f"step {int(step) + 10}:")
    tab.evaluate("document.querySelectorAll('#training .legend')[1].focus()")
    tab.press("Enter")
    assert "validation" not in tab.evaluate(read)
    tab.press("Enter")
    assert "validation" in tab.evaluate(read)


def test_intervals_and_shares_are_read_too(tab):
    charts = "[...document.querySelectorAll('{} svg.chart')]"
    grades = charts.format("#assessment") + ".at(-1)"
    tab.evaluate(f"{grades}.focus()")
    tab.press("ArrowRight")
    reading = tab.evaluate(f"{grades}.nextElementSibling.value")
    told = re.fullmatch(r"grade 1: synthetic (\S+) \(0.67 to 1.27\), real test images (\S+) \(0.69 to 1.29\)", reading)
    assert told, reading
    assert [float(value) for value in told.groups()] == pytest.approx([0.97, 0.99], abs=0.01)
    roc = charts.format("#classification") + "[0]"
    tab.evaluate(f"{roc}.focus()")
    tab.press(*["ArrowRight"] * 25)
    reading = tab.evaluate(f"{roc}.nextElementSibling.value")
    assert reading.startswith("false alarms (1 − specificity) 0.25: real only 1,"), reading


def test_the_nearest_training_image_comes_to_lie_over_the_other(tab):
    tab.evaluate("document.querySelector('.pair').scrollIntoView({behavior: 'instant', block: 'center'})")
    apart = ("(([a, b]) => b.getBoundingClientRect().left - a.getBoundingClientRect().left)"
             "([...document.querySelector('.pair').querySelectorAll('img')])")  # fmt: skip
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert tab.until(f"{apart} > 100")
    tab.evaluate("document.querySelector('.pair').focus()")
    assert tab.until(f"Math.abs({apart}) < 0.5")
    tab.evaluate("document.querySelector('.pair').blur()")
    assert tab.until(f"{apart} > 100")


def test_pictures_open_large(tab):
    tab.evaluate("document.querySelector('#pictures img').focus()")
    tab.press("Enter")
    assert tab.evaluate("document.querySelector('dialog').open && document.querySelector('dialog img').alt").startswith(
        "real photograph"
    )
    tab.press("Escape")
    assert tab.until("!document.querySelector('dialog').open")


def test_runs_beside_each_other_are_sorted_and_searched(report, tab, tmp_path):
    assert main(["compare", f"one={report}", f"two={report}", "--out", str(tmp_path / "both.html")]) == 0
    tab.go((tmp_path / "both.html").as_uri())
    table = "[...document.querySelectorAll('table')].at(-1)"
    tab.evaluate(f"{table}.tHead.rows[0].cells[1].querySelector('button').click()")
    shown = f"[...{table}.tBodies[0].rows].map(row => row.cells[1].dataset.value).filter(value => value).map(Number)"
    values = tab.evaluate(shown)
    assert values == sorted(values, reverse=True)
    assert len(values) > 30
    tab.evaluate(f"{table}.closest('.scroll').previousElementSibling.querySelector('input').focus()")
    tab.write("frechet")
    visible = f"[...{table}.tBodies[0].rows].filter(row => !row.hidden).map(row => row.textContent)"
    assert all("frechet" in text for text in tab.until(f"{visible}.length < {len(values)} && {visible}"))


@pytest.mark.parametrize(
    ("low", "high", "says"), [(0.1, 0.3, "helps"), (-0.3, -0.1, "harms"), (-0.1, 0.3, "no difference is shown")]
)
def test_a_difference_that_is_claimed_is_of_one_comparison(low, high, says):
    (sentence,) = layout.effect("It", "the AUC", Figure(0.0, low, high))
    assert f"It: {says} " in sentence
    assert ("of this comparison alone" in sentence) == (says != "no difference is shown")
