"""The step purify: each filter by itself, what it writes of every caption, and its page."""

import csv
import dataclasses
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from model_server import Reaction, serve
from tiny_clip import save_tiny_clip

from components import ROOT
from components.purify import agreement, page
from components.purify.filters import TEXT
from components.runner import content_hash, load_step
from retinalogos.captions import statements
from retinalogos.captions.table import CaptionWriter
from retinalogos.cohort.shards import Cohort, CohortWriter, decode_image, encode_png
from retinalogos.errors import UsageError
from retinalogos.generators.text.latents import Latents, mirrored_words

DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text())
NAME = "The eye of Anna Schmidt."


def run(stage: str, inputs: dict[str, Path], home: Path, **settings: Any) -> dict[str, Any]:
    step = load_step(stage)
    home.mkdir(parents=True, exist_ok=True)
    params = step.params.model_validate(DEFAULTS[stage] | settings)
    return dict(step.run(params, inputs, {port: home / port for port in step.outputs}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small cohort with two poor pictures and a copy, and captions of which one mirrors its eye and one names it."""
    folder = tmp_path_factory.mktemp("purify")
    verdict = folder / "verdict"
    verdict.mkdir()
    (verdict / "verdict.json").write_text(json.dumps({"passed": True}))
    run("ingest", {}, folder / "drawn", n=30, size=32, workers=1)
    with CohortWriter(folder / "cohort", "phantom") as writer:
        rows = list(Cohort(folder / "drawn" / "cohort").rows())
        for number, row in enumerate(rows):
            writer.add(
                row
                | {
                    "quality": 0.1 if number < 2 else 0.9,
                    "duplicate_group": rows[2]["image_id"] if number in (2, 3) else None,
                }
            )
    inputs = {"cohort": folder / "cohort", "validation": verdict}
    run("caption", inputs, folder / "right")
    with CaptionWriter(folder / "captions", 64, "minilm") as writer:
        for number, row in enumerate(pq.read_table(folder / "right" / "captions" / "captions.parquet").to_pylist()):
            if number == 20:
                row |= {"text": mirrored_words(row["text"])}
            writer.add(row | ({"text": f"{row['text']} {NAME}"} if number == 30 else {}))
    run("autoencode", inputs, folder, judged=1, components=8)
    inputs = {"cohort": folder / "cohort", "captions": folder / "captions", "autoencoder": folder / "autoencoder"}
    run("encode", inputs, folder, size=16)
    names = {"cohort": "cohort", "captions": "captions", "latents": "latents", "generator": "cohort"}
    return {port: folder / name for port, name in names.items()}


OFF = {"text": False, "agreement": "none", "image": False}


def scores(home: Path) -> list[dict[str, Any]]:
    return pq.read_table(home / "curated" / "scores.parquet").to_pylist()


def test_with_every_filter_off_all_captions_stay(data, tmp_path):
    metrics = run("purify", data, tmp_path, **OFF)
    assert (metrics["dropped"], metrics["kept"]) == (0, 60)
    columns = ("broken_rules", "contradiction", "agreement", "quality", "copy_of", "dropped_by")
    assert all(row[name] is None for row in scores(tmp_path) for name in columns)
    assert (tmp_path / "page" / "index.html").read_text().count("This filter was off.") == 4
    assert not (tmp_path / "curated" / "dropped.csv").exists()


def test_text_alone_drops_what_contradicts_the_record(data, tmp_path):
    metrics = run("purify", data, tmp_path, **OFF | {"text": True})
    broken = [number for number, row in enumerate(scores(tmp_path)) if row["broken_rules"]]
    assert broken == [20, 30]
    assert {row["dropped_by"] for row in scores(tmp_path) if row["broken_rules"]} == {"text"}
    assert (metrics["dropped"], metrics["found_by_text"], metrics["found_by_image"]) == (2, 2, 0)
    assert (metrics["dropped_laterality"], metrics["dropped_identifier"]) == (1, 1)


def test_image_alone_drops_poor_pictures_and_copies_but_not_the_first_of_them(data, tmp_path):
    metrics = run("purify", data, tmp_path, **OFF | {"image": True})
    rows = Cohort(data["cohort"]).table(("image_id",)).to_pydict()["image_id"]
    gone = {row["image_id"] for row in scores(tmp_path) if row["dropped_by"] == "image"}
    assert gone == {rows[0], rows[1], rows[3]}
    assert (metrics["dropped_quality"], metrics["dropped_duplicate"]) == (4, 2)
    assert {row["copy_of"] for row in scores(tmp_path) if row["image_id"] == rows[3]} == {rows[2]}


def test_a_picture_without_vessels_is_poor_though_its_light_is_even(data, tmp_path):
    rows = list(Cohort(data["cohort"]).rows())
    with CohortWriter(tmp_path / "cohort", "phantom") as writer:
        for number, row in enumerate(rows):
            image = decode_image(row["image"]["bytes"])
            if number == 7:
                image = np.full_like(image, 90)
            writer.add(row | {"quality": 0.9, "image": {"bytes": encode_png(image), "path": "x.png"}})
    run("purify", data | {"cohort": tmp_path / "cohort"}, tmp_path, **OFF | {"image": True})
    poor = {row["image_id"] for row in scores(tmp_path) if row["quality"] < 0.3}
    assert poor == {rows[7]["image_id"]}
    dropped = (tmp_path / "curated" / "dropped.csv").read_text()
    assert dropped.count("sharpness") == 2


@pytest.mark.parametrize("judge", ["contrastive", "clip"])
def test_agreement_alone_drops_its_share_of_training_captions(data, tmp_path, judge):
    settings = OFF | {"agreement": judge, "agreement_quantile": 0.2}
    if judge == "clip":
        settings["clip"] = DEFAULTS["purify"]["clip"] | {"model": str(save_tiny_clip(tmp_path / "clip"))}
    else:
        settings["contrastive"] = DEFAULTS["purify"]["contrastive"] | {"steps": 3, "folds": 2}
    run("purify", data, tmp_path, **settings)
    table = Cohort(data["cohort"]).table(("image_id", "split")).to_pydict()
    train = {name for name, split in zip(table["image_id"], table["split"], strict=True) if split == "train"}
    rows = scores(tmp_path)
    assert {row["image_id"] for row in rows if row["agreement"] is not None} == train
    judged = sorted((row["agreement"], row["dropped_by"]) for row in rows if row["agreement"] is not None)
    least = round(0.2 * len(judged))
    assert {name for _, name in judged[:least]} == {"agreement"}
    assert {name for _, name in judged[least:]} == {None}
    with (tmp_path / "curated" / "dropped.csv").open() as file:
        assert {row["rule"] for row in csv.DictReader(file)} == {"agreement"}
    again = tmp_path / "again"
    run("purify", data, again, **settings)
    assert content_hash(again / "curated") == content_hash(tmp_path / "curated")
    assert content_hash(again / "page") == content_hash(tmp_path / "page")


def test_readers_of_statements_drop_by_a_probability_and_not_a_share(data, tmp_path, monkeypatch):
    monkeypatch.setattr(statements, "_FEWEST", 4)  # these are a few patients
    settings = OFF | {"agreement": "statements", "agreement_quantile": 0.5}
    settings["statements"] = DEFAULTS["purify"]["statements"] | {"min_probability": 0.9}
    metrics = run("purify", data, tmp_path, **settings)
    judged = [row for row in scores(tmp_path) if row["agreement"] is not None]
    table = Cohort(data["cohort"]).table(("split",)).to_pydict()["split"]
    assert len(judged) == 2 * table.count("train")
    assert all(0 <= row["agreement"] <= 1 for row in judged)
    assert [row["agreement"] < 0.9 for row in judged] == [row["dropped_by"] == "agreement" for row in judged]
    assert 0 < metrics["found_by_agreement"] < len(judged) / 2
    assert "a probability of at least 0.9" in (tmp_path / "page" / "index.html").read_text()
    run("purify", data, tmp_path / "again", **settings)
    assert content_hash(tmp_path / "again" / "page") == content_hash(tmp_path / "page")


def judge(home: Path, **server: Any) -> dict[str, Any]:
    """Settings with the language model alone."""
    reached = DEFAULTS["purify"]["judge"]["server"] | {"concurrency": 4, "retries": 0, "timeout_s": 5.0} | server
    own = {"engine": "server", "server": reached, "work": str(home / "work"), "attempts": 2}
    return OFF | {"judge": DEFAULTS["purify"]["judge"] | own}


def contradicted(body: dict[str, Any]) -> dict[str, Any]:
    """A verdict by the side alone, as a language model would give it."""
    text = body["messages"][1]["content"]
    record, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    caption = text.partition("Caption:")[2].partition("A caption may")[0]
    other = {"left": "right eye", "right": "left eye"}[record["eye"]]
    wrong = other in caption.lower()
    return {"reason": f"says {other}" if wrong else "", "contradiction": 0.9 if wrong else 0.05}


def test_a_language_model_drops_what_it_says_contradicts_the_record(data, tmp_path):
    def behaviour(body: dict[str, Any], earlier: int) -> Reaction:
        assert NAME.split()[3] not in json.dumps(body), "identifiers leave no caption"
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["reason", "contradiction"]
        return Reaction(text=json.dumps(contradicted(body)))

    with serve(behaviour) as seen:
        metrics = run("purify", data, tmp_path, **judge(tmp_path, endpoint=seen.url))
    assert len(seen.bodies) == 60
    assert not any(isinstance(message["content"], list) for body in seen.bodies for message in body["messages"])
    rows = scores(tmp_path)
    assert [number for number, row in enumerate(rows) if row["dropped_by"] == "judge"] == [20]
    assert {round(row["contradiction"], 2) for row in rows} == {0.05, 0.9}
    assert (metrics["found_by_judge"], metrics["dropped_contradiction"], metrics["judge_unanswered"]) == (1, 1, 0)
    html = (tmp_path / "page" / "index.html").read_text()
    assert "contradiction: says" in html
    assert DEFAULTS["purify"]["judge"]["server"]["model"] in html
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())


def test_a_caption_without_verdict_stays_and_a_step_that_broke_off_asks_for_none_twice(data, tmp_path):
    broken, told = threading.Event(), []

    def behaviour(body: dict[str, Any], earlier: int) -> Reaction:
        told.append(json.dumps(body["messages"][:2]))
        if "Anna" in told[-1] or "The eye of" in told[-1]:
            return Reaction(text="I would rather not say.")
        if not broken.is_set() and len(told) > 30:
            return Reaction(status=401, text=None, body="who are you?")
        return Reaction(text=json.dumps(contradicted(body)))

    with serve(behaviour) as seen:
        settings = judge(tmp_path, endpoint=seen.url, concurrency=1)
        with pytest.raises(UsageError, match=r"purify\.judge\.server: the server answers 401"):
            run("purify", data, tmp_path / "broken", **settings)
        broken.set()
        before = len(told)
        metrics = run("purify", data, tmp_path, **settings)
    answered = [text for text in told[:30] if "The eye of" not in text]
    assert not set(answered) & set(told[before:])
    assert metrics["judge_unanswered"] == 1
    assert [row["contradiction"] is None for row in scores(tmp_path)].index(True) == 30
    assert scores(tmp_path)[30]["dropped_by"] is None


def test_records_are_judged_on_no_foreign_server(data, tmp_path):
    with pytest.raises(UsageError, match=r"purify\.judge\.server\.endpoint .* is remote"):
        run("purify", data, tmp_path, **judge(tmp_path, endpoint="http://8.8.8.8/v1"))


def test_captions_are_read_in_batches(data, monkeypatch):
    latents = Latents(data["latents"])
    expected = torch.stack([latents.tokens([number])[0].mean(0) for number in range(len(latents.texts))])
    monkeypatch.setattr(agreement, "_AT_ONCE", 16)
    asked = []
    tokens = Latents.tokens
    monkeypatch.setattr(Latents, "tokens", lambda self, texts: asked.append(len(texts)) or tokens(self, texts))
    torch.testing.assert_close(agreement._caption_features(latents), expected)
    assert asked[:-1] == [16] * (len(latents.texts) // 16)


@pytest.mark.parametrize(("judge", "port"), [("generator", "generator"), ("statements", "latents")])
def test_captions_alone_are_enough_where_agreement_is_not_judged(judge, port, data, tmp_path):
    alone = {name: data[name] for name in ("cohort", "captions")}
    metrics = run("purify", alone, tmp_path / "none", agreement="none")
    assert metrics["found_by_text"] == 2
    assert metrics["found_by_agreement"] == 0
    rest = {name: path for name, path in data.items() if name != port}
    with pytest.raises(UsageError, match=f"needs the input '{port}'"):
        run("purify", rest, tmp_path / "without", agreement=judge)


def test_clip_needs_a_name(data, tmp_path):
    with pytest.raises(UsageError, match=r"purify\.clip\.model is empty"):
        run("purify", data, tmp_path, **OFF | {"agreement": "clip"})


def test_the_page_shows_pictures_and_identifies_nobody(data, tmp_path):
    run("purify", data, tmp_path, text=True, image=True, agreement="none", examples=4)
    html = (tmp_path / "page" / "index.html").read_text()
    assert html.count('<img src="data:image/jpeg;base64,') >= 12
    assert "no patient was photographed" in html
    assert "says left eye" in html or "says right eye" in html
    assert "Anna" not in html
    table = Cohort(data["cohort"]).table(("image_id", "patient_id")).to_pydict()
    assert not [name for column in table.values() for name in column if name in html]
    assert str(tmp_path) not in html
    assert "http:" not in html  # with the colon: the letters alone may stand in a picture's base64
    assert "https:" not in html


@pytest.mark.parametrize(
    ("rules", "most", "shown"),
    [
        ({"a": 1, "b": 20}, 8, {"a": 1, "b": 7}),
        ({"a": 9, "b": 9, "c": 9}, 8, {"a": 3, "b": 3, "c": 2}),
        ({"a": 1, "b": 2}, 8, {"a": 1, "b": 2}),
        ({"a": 5, "b": 5}, 1, {"a": 1}),
    ],
)
def test_examples_of_a_rule_make_room_for_those_of_others(rules, most, shown):
    names = [name for name, count in rules.items() for _ in range(count)]
    one = dataclasses.replace(TEXT, drops={number: (name, "") for number, name in enumerate(names)})
    chosen = page._examples(one, len(names), most)["dropped"]
    assert Counter(names[number] for number in chosen) == shown
    assert len(set(chosen)) == len(chosen)


def test_what_a_model_said_stays_with_its_captions(data, tmp_path):
    with CaptionWriter(tmp_path / "captions", 64, "minilm", of_model=True) as writer:
        for row in pq.read_table(data["captions"] / "captions.parquet").to_pylist():
            writer.add(row | {"model": "one", "answer": "{}"})
    run("purify", data | {"captions": tmp_path / "captions"}, tmp_path, **OFF)
    kept = pq.read_table(tmp_path / "curated" / "captions.parquet").to_pylist()
    assert {(row["model"], row["answer"]) for row in kept} == {("one", "{}")}
