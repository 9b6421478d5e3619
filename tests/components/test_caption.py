"""The step `caption`: every eye, every wording, within the budget, the same bytes each time."""

import json

import numpy as np
import pytest
from captioned_cohort import defaults, phantom_rows, write_cohort
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from model_server import Reaction, serve

from components import ROOT
from components.caption.step import STEP, decisive, joining
from components.pods import shares
from components.runner import check_params, run_step
from retinalogos.captions import shards
from retinalogos.captions.conversation import Question, seed_of
from retinalogos.captions.engine import CaptionRequest
from retinalogos.captions.prompts import load_prompt
from retinalogos.captions.table import read_captions, read_captions_meta
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import DataError, UsageError


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("data") / "cohort", n=40)


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation")
    (folder / "verdict.json").write_text(json.dumps({"passed": True}))
    return folder


def run(cohort, validation, out, **changes):
    params = check_params(STEP, defaults("caption") | {"work": str(out.with_name("work"))} | changes)
    outputs = {"captions": out, "page": out.with_name(f"{out.name}-page")}
    metrics = STEP.run(params, {"cohort": cohort, "validation": validation}, outputs)
    return metrics, read_captions(out).to_pylist()


def test_every_eye_gets_every_wording_within_the_budget(cohort, passed, tmp_path):
    metrics, rows = run(cohort, passed, tmp_path / "captions")
    wordings = defaults("caption")["wordings"]
    keys = {(row["image_id"], row["granularity"], row["wording"]) for row in rows}
    assert keys == {
        (image_id, granularity, wording)
        for image_id in Cohort(cohort).table(["image_id"])["image_id"].to_pylist()
        for granularity, count in wordings.items()
        for wording in range(count)
    }
    assert max(row["tokens"] for row in rows) <= defaults("caption")["token_budget"]
    assert metrics["captions"] == len(rows) == 40 * sum(wordings.values())
    assert metrics["images"] == 40
    assert metrics["dropped"] == 0
    assert metrics["mean_words_fine"] > metrics["mean_words_coarse"]
    assert metrics["words_share_coarse"] + metrics["words_share_fine"] == pytest.approx(1)
    assert metrics["distinct_share"] == len({row["text"] for row in rows}) / len(rows)


def test_same_parameters_same_bytes(cohort, passed, tmp_path):
    first, _ = run(cohort, passed, tmp_path / "a")
    second, _ = run(cohort, passed, tmp_path / "b")
    assert first == second
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert page_of(tmp_path / "a") == page_of(tmp_path / "b")


def test_another_seed_another_text(cohort, passed, tmp_path):
    _, first = run(cohort, passed, tmp_path / "a")
    _, second = run(cohort, passed, tmp_path / "b", seed=1)
    assert [row["text"] for row in first] != [row["text"] for row in second]


def test_a_wider_budget_says_more(cohort, passed, tmp_path):
    narrow, _ = run(cohort, passed, tmp_path / "a")
    wide, _ = run(cohort, passed, tmp_path / "b", token_budget=256)
    assert wide["mean_words_fine"] > 2 * narrow["mean_words_fine"]
    assert read_captions_meta(tmp_path / "b")["token_budget"] == 256


def test_fine_captions_alone(cohort, passed, tmp_path):
    metrics, rows = run(cohort, passed, tmp_path / "a", wordings={"coarse": 0, "fine": 1})
    assert {row["granularity"] for row in rows} == {"fine"}
    assert "mean_words_coarse" not in metrics


@pytest.mark.parametrize("verdict", [None, {"passed": False}])
def test_a_cohort_that_did_not_pass_is_refused(verdict, cohort, tmp_path):
    if verdict is not None:
        (tmp_path / "verdict.json").write_text(json.dumps(verdict))
    with pytest.raises(DataError, match=r"verdict\.json"):
        run(cohort, tmp_path, tmp_path / "captions")


def test_an_image_that_cannot_be_captioned_is_listed(passed, tmp_path):
    def spoil(rows):
        rows[3]["eye"] = "middle"

    cohort = write_cohort(tmp_path / "cohort", spoil, n=20)
    metrics, rows = run(cohort, passed, tmp_path / "captions")
    assert metrics["dropped"] == sum(defaults("caption")["wordings"].values())
    assert len({row["image_id"] for row in rows}) == 19
    assert "middle" in (tmp_path / "captions" / "dropped.csv").read_text()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"wordings": {"coarse": 0, "fine": 0}}, "wordings"),
        ({"token_budget": 2}, "token_budget"),
        ({"engine": "x"}, "engine"),
        ({"server": {"endpoint": "http://localhost/v1"}}, "server"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_wrong_parameters_are_refused_by_name(changes, named):
    with pytest.raises(UsageError, match=named):
        check_params(STEP, defaults("caption") | changes)


def server_settings(url, **changes):
    return {"engine": "server", "server": defaults("caption")["server"] | {"endpoint": url} | changes}


def test_captions_of_a_server_say_what_wrote_them(passed, tmp_path):
    def unreadable(rows):
        rows[5]["eye"] = "middle"

    cohort = write_cohort(tmp_path / "cohort", unreadable, n=20)
    broken = Cohort(cohort).table(["image_id"])["image_id"][7].as_py()

    def behaviour(body, earlier):
        return Reaction(text="no idea") if body["seed"] in seeds else Reaction()

    params = check_params(STEP, defaults("caption") | server_settings("http://localhost/v1"))
    question = Question((CaptionRequest(broken, {}, "coarse", 0, 0),), seed_of(0, broken, 0))
    seeds = {question.seed_of(attempt) for attempt in range(params.attempts)}
    with serve(behaviour) as seen:
        metrics, rows = run(cohort, passed, tmp_path / "captions", look=False, **server_settings(seen.url))
    assert len(seen.sent) == 18 + params.attempts  # an eye is paid for once, a broken answer asked again
    assert metrics["captions"] == len(rows) == 36
    assert metrics["dropped"] == 4
    model = params.server.model
    assert {(row["engine"], row["model"], row["seed"]) for row in rows} == {("server", model, 0)}
    assert all(json.loads(row["answer"])["laterality"] == "left" for row in rows)
    version = load_prompt(params.prompt).identity
    assert read_captions_meta(tmp_path / "captions")["engines"] == [
        {"engine": "server", "prompt_version": version, "model": model}
    ]
    dropped = (tmp_path / "captions" / "dropped.csv").read_text()
    assert "middle" in dropped
    assert f"{broken},0,fine,engine,no usable answer in {params.attempts} attempts" in dropped


def test_a_remote_server_is_refused_before_anything_is_sent(cohort, passed, tmp_path):
    with pytest.raises(UsageError, match="allow_remote"):
        run(cohort, passed, tmp_path / "captions", look=False, **server_settings("https://8.8.8.8/v1"))


def test_where_the_server_stands_is_no_part_of_the_result():
    params = check_params(STEP, defaults("caption"))
    assert "endpoint" not in params.model_dump()["server"]


def test_captions_of_a_template_have_no_columns_of_models(cohort, passed, tmp_path):
    _, rows = run(cohort, passed, tmp_path / "captions")
    assert "model" not in rows[0]


def test_a_step_that_was_cut_off_asks_a_server_for_the_rest_alone(cohort, passed, tmp_path):
    """The second time with other limits, which change no answer."""
    answered = iter(range(10))

    def cut(body, earlier):
        return Reaction() if next(answered, None) is not None else Reaction(status=401, text="no")

    changes = {"look": False, "work": str(tmp_path / "work")}
    with serve(cut) as seen, pytest.raises(UsageError, match="401"):
        run(cohort, passed, tmp_path / "cut", **changes, **server_settings(seen.url, concurrency=1))
    assert len(list((tmp_path / "work").glob("*/*.jsonl"))) == 1
    with serve(lambda body, earlier: Reaction()) as rest:
        run(cohort, passed, tmp_path / "rest", **changes, **server_settings(rest.url, timeout_s=60))
        assert len(rest.bodies) == 40 - 10
        run(cohort, passed, tmp_path / "whole", **changes, **server_settings(rest.url))
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "rest" / file.name).read_bytes()
    assert not list((tmp_path / "work").iterdir())


def decided(**changes):
    return decisive(check_params(STEP, defaults("caption") | changes))


def test_finished_captions_are_taken_where_all_that_decides_on_them_is_the_same(tmp_path):
    server = server_settings("http://localhost/v1")
    limits = {"concurrency": 2, "timeout_s": 1, "retries": 0, "max_wait_s": 0, "allow_remote": True}
    elsewhere = server_settings("https://example.org/v1", key_variable="KEY", **limits)
    assert decided(**elsewhere, jobs=2, pods=3, shards=[1], work="x") == decided(**server)
    words = (ROOT / "retinalogos/captions/prompts/record-1.yaml").read_text()
    for name, text in (("same", words), ("edited", words.replace("the", "this"))):
        (tmp_path / f"{name}.yaml").write_text(text)
    assert decided(**server, prompt=str(tmp_path / "same.yaml")) == decided(**server)
    others = ({"seed": 1}, {"look": False}, {"temperature": 0.5}, {"prompt": str(tmp_path / "edited.yaml")})
    for changes in (*others, server_settings("", model="x"), server_settings("", constrain=False)):
        assert decided(**server | changes) != decided(**server)
    local = defaults("caption")["transformers"]
    assert decided(engine="transformers", transformers=local | {"batch_size": 1}) == decided(engine="transformers")
    assert decided(engine="transformers", transformers=local | {"revision": "1"}) != decided(engine="transformers")


@pytest.mark.parametrize(("look", "read"), [(True, 40), (False, 0)])
def test_pictures_are_read_for_a_model_that_looks_alone(look, read, cohort, passed, tmp_path, monkeypatch):
    rows, png = [], encode_png(np.zeros((8, 8, 3), np.uint8))  # those of this cohort are none
    monkeypatch.setattr(shards._Pictures, "encoded", lambda pictures, row: rows.append(row) or png)
    with serve(lambda body, earlier: Reaction()) as seen:
        run(cohort, passed, tmp_path / "captions", look=look, **server_settings(seen.url))
    assert len(rows) == read


EXPERTS = {
    "hard exudates": ["small yellowish deposits with sharp margins"],
    "cataract": ["opacity in the macular area"],
    "microaneurysms": ["small red dots"],
}


def page_of(out):
    return out.with_name(f"{out.name}-page").joinpath("index.html").read_text(encoding="utf-8")


def test_the_page_tells_quality_and_says_why_experts_are_left_out(cohort, passed, tmp_path):
    metrics, rows = run(cohort, passed, tmp_path / "a", quality_sample=60)
    html = page_of(tmp_path / "a")
    assert f"60 of {len(rows)} captions were looked at" in html
    assert "template, prompt template-" in html
    assert "expert_texts</code> of this step names no file" in html
    assert "<th>experts</th>" not in html
    assert "None was asked" in html
    assert metrics["quality_sample"] == 60
    # The template says nothing but what the record knows, in coarse captions the opening alone.
    assert metrics["caption_supported_fine"] == metrics["caption_supported_coarse"] == 1
    assert 0 < metrics["findings_told_coarse"] < 1
    assert 0 < metrics["self_bleu_fine"] < 1
    assert 0 < metrics["distinct_2_fine"] < 1


def test_the_page_has_no_identifier_no_path_and_is_complete(cohort, passed, tmp_path):
    run(cohort, passed, tmp_path / "a")
    html = page_of(tmp_path / "a")
    table = Cohort(cohort).table(("image_id", "patient_id")).to_pydict()
    assert not [name for column in table.values() for name in column if name in html]
    assert str(tmp_path) not in html
    assert "http:" not in html  # with the colon: the letters alone may stand in a picture's base64
    assert "https:" not in html


def test_captions_stand_beside_texts_of_experts(cohort, passed, tmp_path):
    pages = []
    for folder in ("here", "there"):  # the place of the file leaves no trace
        file = tmp_path / folder / f"{folder}.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"definitions": EXPERTS}))
        run(cohort, passed, tmp_path / folder / "captions", expert_texts=str(file))
        pages.append(page_of(tmp_path / folder / "captions"))
    html, other = pages
    assert html == other
    assert "<th>experts</th>" in html
    assert "Beside them 3 texts in which experts describe 3 findings" in html
    assert "<td>small red dots</td>" in html


def test_texts_of_experts_change_no_caption_and_no_work_folder(tmp_path):
    assert decided(expert_texts="x.json", quality_sample=5) == decided()


def test_a_wrong_file_of_expert_texts_is_refused_before_any_caption(cohort, passed, tmp_path):
    (tmp_path / "wrong.json").write_text("[1]")
    for name in ("wrong.json", "missing.json"):
        with pytest.raises(UsageError, match=f"expert texts .*{name}"):
            run(cohort, passed, tmp_path / "a", expert_texts=str(tmp_path / name))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("look", [True, False])
def test_the_page_shows_the_prompt_of_a_model(look, cohort, passed, tmp_path, monkeypatch):
    png = encode_png(np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(shards._Pictures, "encoded", lambda pictures, row: png)
    with serve(lambda body, earlier: Reaction()) as seen:
        run(cohort, passed, tmp_path / "a", look=look, **server_settings(seen.url))
    html = page_of(tmp_path / "a")
    prompt = load_prompt("record-1")
    assert f"Prompt {prompt.identity}:" in html
    assert html.count("Qwen/Qwen2.5-VL-3B-Instruct") == 1
    for words, there in ((prompt.system, True), (prompt.with_image, look), (prompt.text_only, not look)):
        assert (str(escape(words)) in html) == there
    assert "$record" in html


def test_a_shard_without_captions_has_a_page_too(passed, tmp_path):
    def spoil(rows):
        for row in rows:
            row["eye"] = "middle"

    cohort = write_cohort(tmp_path / "cohort", spoil, n=20)
    metrics, rows = run(cohort, passed, tmp_path / "captions", shards=[0])
    assert rows == []
    assert metrics["quality_sample"] == 0
    assert "nobody: there is no caption" in page_of(tmp_path / "captions")


@given(pods=st.integers(1, 40), shards=st.integers(1, 300))
def test_shards_are_dealt_evenly_and_in_order(pods, shards):
    dealt = shares(pods, shards)
    assert [number for share in dealt for number in share] == list(range(shards))
    sizes = [len(share) for share in dealt]
    assert len(sizes) == min(pods, shards)
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """A cohort of three shards: 64, 64 and 22 eyes."""
    folder = tmp_path_factory.mktemp("sharded") / "cohort"
    with CohortWriter(folder, "phantom", shard_bytes=1) as writer:
        for row in phantom_rows(150):
            writer.add(row)
    assert len(Cohort(folder).shards) == 3
    return folder


class Pods:
    """What a cohort is captioned with by pods: each runs the step with its share, and the last joins the outputs."""

    def __init__(self, cohort, validation, folder, **changes):
        self.inputs = {"cohort": cohort, "validation": validation}
        self.folder = folder
        self.params = defaults("caption") | {"work": str(folder / "work"), "pods": 2, "jobs": 1} | changes

    def places(self, name):
        names = {"captions": "captions", "page": "page", "metrics": "metrics.json"}
        return {port: self.folder / name / file for port, file in names.items()}

    def whole(self):
        run_step(STEP, self.params, self.inputs, self.places("whole"))
        return contents(self.folder / "whole")

    def pod(self, number):
        share = shares(self.params["pods"], 3)[number]
        run_step(STEP, self.params | {"shards": share}, self.inputs, self.places(f"pod-{number}"))
        return self.folder / f"pod-{number}" / "captions"

    def joined(self, parts):
        run_step(joining(parts), self.params, self.inputs, self.places("joined"))
        return contents(self.folder / "joined")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pods_write_together_what_the_step_writes_alone(sharded, passed, tmp_path):
    """All files, the manifest and the metrics among them."""
    pods = Pods(sharded, passed, tmp_path, wordings={"coarse": 1, "fine": 2})
    joined = pods.joined([pods.pod(0), pods.pod(1)])
    captions = {f"captions/{name}" for name in ("captions.parquet", "captions.json", "manifest.json")}
    assert set(joined) == captions | {"metrics.json", "page/index.html", "page/manifest.json"}
    assert joined == pods.whole()
    assert not (tmp_path / "work").exists() or not list((tmp_path / "work").iterdir())


def test_a_pod_that_is_tried_again_pays_for_no_caption_twice(sharded, passed, tmp_path):
    """Cut off while it asks, and once more when all was asked and its output was lost on the way."""
    answered = iter(range(80))

    def cut(body, earlier):
        return Reaction() if next(answered, None) is not None else Reaction(status=401, text="no")

    with serve(cut) as seen:
        pods = Pods(sharded, passed, tmp_path, look=False, **server_settings(seen.url, concurrency=1))
        pods.pod(0)
        with pytest.raises(UsageError, match="401"):
            pods.pod(1)
    with serve(lambda body, earlier: Reaction()) as rest:
        pods.params |= server_settings(rest.url)
        pods.pod(1)
        parts = [pods.pod(0), pods.pod(1)]
        assert len(rest.bodies) == 150 - 80
        joined = pods.joined(parts)
        assert not list((tmp_path / "work").iterdir())
        assert joined == pods.whole()


def test_captions_of_all_shards_are_needed(sharded, passed, tmp_path):
    pods = Pods(sharded, passed, tmp_path)
    with pytest.raises(DataError, match=r"1 parts hold 128 captions .* of 300: give the output of every shard"):
        pods.joined([pods.pod(0)])
