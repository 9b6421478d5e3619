"""The dry run: its formula, and its number of calls against those that a server gets."""

import pytest
from model_server import Reaction, serve
from test_caption_shards import write_cohort
from test_server import engine

from retinalogos.captions.estimate import Rates, estimate, main, open_questions
from retinalogos.captions.shards import Captioning, caption_shards
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError


def test_the_formula():
    rates = Rates(1000, 250, seconds=7.2, concurrency=10, prompt_price=2, answer_price=8, hour_price=3, repeats=0.25)
    found = estimate(4000, rates)
    assert (found.calls, found.prompt_tokens, found.answer_tokens) == (5000, 5_000_000, 1_250_000)
    assert found.hours == pytest.approx(1.0)
    assert found.money == pytest.approx(10 + 10 + 3)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort") / "cohort", 70)  # two shards, of 64 and 6


def job(cohort, url, budget, wordings, temperature):
    def make():
        return engine(url, budget, temperature=temperature)

    return Captioning(cohort, make, wordings, seed=0, token_budget=64, text_encoder="minilm", of_model=True)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("wordings", [{"coarse": 1, "fine": 1}, {"coarse": 0, "fine": 2}, {"coarse": 3, "fine": 1}])
def test_as_many_calls_as_a_server_gets(cohort, budget, tmp_path, wordings, temperature):
    with serve(lambda body, earlier: Reaction()) as seen:
        list(caption_shards(job(cohort, seen.url, budget, wordings, temperature), tmp_path, [0, 1], 1))
    assert open_questions(Cohort(cohort), wordings, temperature) == len(seen.bodies)
    assert open_questions(Cohort(cohort), wordings, temperature, tmp_path) == 0


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_a_run_that_was_cut_off_has_is_not_paid_again(cohort, budget, tmp_path, temperature, capsys):
    wordings = {"coarse": 2, "fine": 1}
    good = iter(range(9))

    def cut(body, earlier):
        return Reaction() if next(good, None) is not None else Reaction(status=401, text="no")

    with serve(cut) as seen, pytest.raises(UsageError, match="401"):
        list(caption_shards(job(cohort, seen.url, budget, wordings, temperature), tmp_path, [1, 0], 1))
    left = open_questions(Cohort(cohort), wordings, temperature, tmp_path)
    with (tmp_path / "shard-00000.jsonl").open("a") as journal:
        journal.write('{"image_id": "half')
    assert open_questions(Cohort(cohort), wordings, temperature, tmp_path) == left
    arguments = ["--cohort", str(cohort), "--work", str(tmp_path), "--seconds", "2", "--concurrency", "4"]
    assert main([*arguments, "--repeats", "0", "--coarse", "2", "--temperature", str(temperature)]) == 0
    assert f"calls               {left}\n" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="passed over"), serve(lambda body, earlier: Reaction()) as rest:
        list(caption_shards(job(cohort, rest.url, budget, wordings, temperature), tmp_path, [0, 1], 1))
    assert len(rest.bodies) == left < open_questions(Cohort(cohort), wordings, temperature)


def test_a_cohort_that_is_none_ends_with_2(tmp_path):
    assert main(["--cohort", str(tmp_path), "--seconds", "1", "--concurrency", "1"]) == 2
