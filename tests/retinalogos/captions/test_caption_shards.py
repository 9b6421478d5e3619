"""Shards in, shards out: no finished caption is lost or paid for twice, and the result never depends on how."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from slow_engine import BlockedEngine, SlowEngine, captioning

from retinalogos.captions.engine import CaptionResult, TemplateEngine
from retinalogos.captions.journal import Journal
from retinalogos.captions.shards import (
    Captioning,
    caption_shards,
    merge,
    remove_parts,
    requests_of,
    work_key,
)
from retinalogos.captions.statistics import CaptionStatistics
from retinalogos.captions.table import CaptionWriter, read_captions, read_captions_meta
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.errors import DataError, UsageError
from retinalogos.phantom.records import sample_records

REPORT = "Seen by Dr Anna Weiss on 3 May 2019: disc pallor of the left eye."


def write_cohort(folder: Path, rows: int = 200) -> Path:
    """A cohort of several shards (three of 200 rows) of phantom records without pictures."""
    with CohortWriter(folder, "phantom", shard_bytes=1) as writer:
        for i, record in enumerate(sample_records(rows, seed=3)):
            image_id = f"{i:016x}"
            own = {"image_id": image_id, "sha256": image_id, "split": "train", "source": "phantom", "report": REPORT}
            picture = {"width": 8, "height": 8, "image": {"bytes": f"picture {i}".encode(), "path": "a.jpg"}}
            writer.add({**record.cohort_row(), **own, **picture, "quality": 0.7})
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = write_cohort(tmp_path_factory.mktemp("cohort") / "cohort")
    assert len(Cohort(folder).shards) == 4
    return folder


def template() -> TemplateEngine:
    return TemplateEngine(TokenBudget("minilm", 64))


def template_job(cohort: Path, **wordings: int) -> Captioning:
    return Captioning(cohort, template, wordings, seed=5, token_budget=64, text_encoder="minilm", of_model=False)


def caption(job: Captioning, folder: Path, jobs: int = 1, numbers=range(4)) -> CaptionStatistics:
    return merge(caption_shards(job, folder / "work", numbers, jobs), folder / "out", 64, "minilm")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_the_whole_does_not_depend_on_shards_and_processes(cohort, tmp_path):
    """As one writer writes it without any parts."""
    job = template_job(cohort, coarse=2, fine=1)
    with CaptionWriter(tmp_path / "plain", 64, "minilm") as writer:
        for shard in Cohort(cohort).shards:
            for result in template().caption(requests_of(shard, job.wordings, job.seed)):
                writer.add(vars(result))
    assert read_captions_meta(tmp_path / "plain")["captions"] == 600
    one = caption(job, tmp_path / "one")
    two = caption(job, tmp_path / "two", jobs=2)
    assert one.metrics() == two.metrics()
    assert contents(tmp_path / "plain") == contents(tmp_path / "one" / "out") == contents(tmp_path / "two" / "out")


def test_rows_are_grouped_anew(tmp_path):
    row = {"granularity": "fine", "wording": 0, "tokens": 3, "engine": "a", "prompt_version": "1", "seed": 0}
    rows = [{"image_id": f"{i:05d}", "text": str(i), **row} for i in range(9000)]
    for name, part in (("a", rows[:100]), ("b", rows[100:8500]), ("c", rows[8500:]), ("whole", rows)):
        with CaptionWriter(tmp_path / name, 64, "minilm") as writer:
            for row in part:
                writer.add(row)
    merge([tmp_path / name for name in "abc"], tmp_path / "merged", 64, "minilm")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    with pytest.raises(DataError, match="image 00000: fine wording 0 is captioned twice"):
        merge([tmp_path / "a", tmp_path / "a"], tmp_path / "twice", 64, "minilm")


def calls(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize(("kind", "kills"), [(SlowEngine, 2), (BlockedEngine, 1)])
def test_a_killed_run_loses_no_caption_and_pays_for_none_twice(kind, kills, cohort, tmp_path):
    """SIGKILL; the last run ends and gives what a run without a kill gives."""
    paid, work = tmp_path / "calls", tmp_path / "work"
    for _ in range(kills):
        before = len(calls(paid))
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("slow_engine.py")), cohort, paid, work, kind.__name__],
            stdout=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        blocked = Path(f"{paid}.blocked")
        while not (blocked.exists() or (kind is SlowEngine and len(calls(paid)) >= before + 50)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        blocked.unlink(missing_ok=True)
    made = calls(paid)
    # The one answer that was on its way to disk when the process died may be asked for again, and no other.
    job = captioning(cohort, paid)
    result = merge(caption_shards(job, work, range(4), 1), tmp_path / "out", 64, "minilm").metrics()
    assert len(made) >= 50 * kills
    again = [line for line in calls(paid)[len(made) :] if line in set(made)]
    assert len(again) <= kills
    assert len(set(calls(paid))) == result["captions"] == 400
    merge(caption_shards(captioning(cohort, tmp_path / "o"), tmp_path / "w", range(4), 1), tmp_path / "x", 64, "minilm")
    assert contents(tmp_path / "out") == contents(tmp_path / "x")


def test_finished_parts_are_not_captioned_again_and_are_removed_in_the_end(cohort, tmp_path):
    paid = tmp_path / "calls"
    job = captioning(cohort, paid)
    list(caption_shards(job, tmp_path / "work", [1], 1))
    first = len(calls(paid))
    list(caption_shards(job, tmp_path / "work", range(4), 1))
    assert len(calls(paid)) == len(set(calls(paid))) == 400 > first > 0
    for _ in range(2):  # by a pod that was tried again
        remove_parts(Cohort(cohort), tmp_path / "work")
        assert not (tmp_path / "work").exists()


def test_the_template_begins_anew(cohort, tmp_path):
    stale = tmp_path / "work" / "shard-00000"
    stale.mkdir(parents=True)
    assert next(caption_shards(template_job(cohort, fine=1), tmp_path / "work", [0], 1)) == stale
    assert len(read_captions(stale)) == pq.read_metadata(Cohort(cohort).shards[0]).num_rows


def test_failures_are_listed_and_asked_for_again_by_the_next_run(cohort, tmp_path):
    bad = f"{70:016x}"
    request = next(r for r in requests_of(Cohort(cohort).shards[1], {"fine": 1}, 0) if r.image_id == bad)
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.add(SlowEngine(tmp_path / "calls", failing=(bad,)).answer(request))
        assert [r.error for r in journal.results([(bad, "fine", 0)])] == ["the server said no"]
    with Journal(tmp_path / "a.jsonl") as journal:
        assert (bad, "fine", 0) not in journal
    job = captioning(cohort, tmp_path / "calls", failing=(bad,))
    merge(caption_shards(job, tmp_path / "work", range(4), 1), tmp_path / "out", 64, "minilm")
    assert read_captions_meta(tmp_path / "out")["dropped"] == 2
    assert (tmp_path / "out" / "dropped.csv").read_text().splitlines()[1:] == [
        f"{bad},0,{granularity},engine,the server said no" for granularity in ("coarse", "fine")
    ]


def result(number: int, text: str = "An eye.") -> CaptionResult:
    return CaptionResult(f"{number}", "fine", 0, text, 3, "slow", "1", 0)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_short_is_asked_for_again(cut, tmp_path):
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        for number in range(3):
            journal.add(result(number, "Ödem"))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.warns(UserWarning, match="passed over"):
        journal = Journal(path)
    with journal:
        assert len(journal) == 2
        journal.add(result(2, "again"))
        journal.add(result(3))
    with Journal(path) as journal:
        texts = [r.text for r in journal.results([(f"{n}", "fine", 0) for n in range(4)])]
        assert texts == ["Ödem", "Ödem", "again", "An eye."]


def test_a_shard_is_captioned_by_one_process_at_a_time(tmp_path):
    with Journal(tmp_path / "a.jsonl"), pytest.raises(UsageError, match="another process"):
        Journal(tmp_path / "a.jsonl")


def test_a_shard_that_is_not_there_is_refused(cohort, tmp_path):
    with pytest.raises(UsageError, match="shard 4"):
        list(caption_shards(template_job(cohort, fine=1), tmp_path, [4], 1))


def test_other_settings_another_folder(cohort):
    whole = Cohort(cohort)
    assert work_key(whole, {"seed": 1, "engine": "a"}) == work_key(whole, {"engine": "a", "seed": 1})
    assert work_key(whole, {"seed": 1}) != work_key(whole, {"seed": 2})


def test_engines_see_pictures_and_reports_without_identifiers(cohort):
    seen = list(requests_of(Cohort(cohort).shards[1], {"fine": 1}, seed=0))
    assert [r.image() for r in seen[:2]] == [b"picture 64", b"picture 65"]
    for request in seen:
        assert "patient_id" not in request.record
        report = request.record["report"]
        assert not {"Anna", "Weiss", "May", "2019"} & set(report.replace(":", " ").split())
        assert "disc pallor of the left eye" in report
    assert "report" not in next(template().caption(seen)).text


def test_a_part_without_captions_is_a_part(tmp_path):
    with CaptionWriter(tmp_path / "a", 64, "minilm", may_be_empty=True) as writer:
        writer.drop("0", "fine", 0, "engine", "no")
    with CaptionWriter(tmp_path / "b", 64, "minilm") as writer:
        writer.add(vars(result(1)))
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c", 64, "minilm")
    meta = json.loads((tmp_path / "c" / "captions.json").read_text())
    assert (meta["captions"], meta["dropped"], meta["images"]) == (1, 1, 1)
