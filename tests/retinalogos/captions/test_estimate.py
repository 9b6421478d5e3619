"""The dry run: its formula, and what it reads from a cohort and from a run that was cut off."""

import pytest
from slow_engine import SlowEngine, captioning
from test_caption_shards import write_cohort

from retinalogos.captions.estimate import Rates, estimate, finished_captions, main
from retinalogos.captions.journal import Journal
from retinalogos.captions.shards import caption_shards, requests_of
from retinalogos.cohort.shards import Cohort


def test_the_formula():
    rates = Rates(1000, 250, seconds=7.2, concurrency=10, prompt_price=2, answer_price=8, hour_price=3, repeats=0.25)
    found = estimate(4500, rates, finished=500)
    assert (found.calls, found.prompt_tokens, found.answer_tokens) == (5000, 5_000_000, 1_250_000)
    assert found.hours == pytest.approx(1.0)
    assert found.money == pytest.approx(10 + 10 + 3)


def test_finished_work_costs_nothing(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", 70)
    job = captioning(cohort, tmp_path / "calls")
    list(caption_shards(job, tmp_path / "work", [1], 1))
    engine = SlowEngine(tmp_path / "calls", failing=(f"{1:016x}",))
    with Journal(tmp_path / "work" / "shard-00000.jsonl") as journal:
        for request in list(requests_of(Cohort(cohort).shards[0], {"fine": 1}, 0))[:5]:
            journal.add(engine.answer(request))
    assert finished_captions(tmp_path / "work") == 2 * 6 + 4
    arguments = ["--cohort", str(cohort), "--work", str(tmp_path / "work"), "--seconds", "2", "--concurrency", "4"]
    assert main([*arguments, "--repeats", "0", "--prompt-price", "1"]) == 0
    out = capsys.readouterr().out
    assert "captions to write   140, of which finished 16" in out
    assert "calls               124" in out
    assert main(["--cohort", str(tmp_path), "--seconds", "1", "--concurrency", "1"]) == 2
