"""The engine `server` against servers that fail, stall, talk nonsense, limit rates and hang up."""

import base64
import json
import logging
import threading
import time

import pytest
from model_server import ANSWER, Reaction, serve

from retinalogos.captions import server
from retinalogos.captions.engine import CaptionRequest
from retinalogos.captions.prompts import load_prompt
from retinalogos.captions.server import ServerEngine, require_local
from retinalogos.cohort.shards import encode_png
from retinalogos.errors import UsageError

GOOD = Reaction()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server, "_FIRST_PAUSE", 0.02)


def engine(url, budget, **changes):
    settings = {
        "look": False,
        "temperature": 0.0,
        "attempts": 2,
        "max_tokens": 256,
        "concurrency": 8,
        "timeout_s": 5.0,
        "retries": 4,
        "max_wait_s": 60.0,
        "allow_remote": False,
        "key_variable": "RETINALOGOS_TEST_KEY",
        "constrain": True,
    }
    return ServerEngine(url, "tiny", load_prompt("record-1"), budget, **(settings | changes))


def requests(n, granularities=("coarse", "fine"), image=None):
    for i in range(n):
        record = {"image_id": f"{i:016x}", "eye": "left", "vcdr": i % 100 / 100}
        for granularity in granularities:
            yield CaptionRequest(record["image_id"], record, granularity, 0, seed=3, image=image)


def captions(url, budget, n=1, **changes):
    return list(engine(url, budget, **changes).caption(requests(n)))


def number(body):
    """Which eye is asked about, of the first hundred."""
    record, _ = json.JSONDecoder().raw_decode(body["messages"][1]["content"].split("Record of the eye:\n")[1])
    return round(100 * record["vertical_cup_to_disc_ratio"])


FAULTS = (
    Reaction(status=500, text=None, body="out of order"),
    Reaction(status=503, text=None, headers={"Retry-After": "0"}),
    Reaction(status=200, text=None, body='{"choices": ['),
    Reaction(status=200, text=None, body='{"choices": []}'),
    Reaction(status=429, text=None, headers={"Retry-After": "0"}),
    Reaction(status=0),
    Reaction(status=200, text=None, body="not compressed", headers={"Content-Encoding": "gzip"}),
    Reaction(stall=1.5),
)


def test_captions_are_handed_over_before_an_earlier_one_is_there(budget):
    others, kept = threading.Event(), []

    def behaviour(body, earlier):
        if number(body) == 0:
            others.wait(4)
        return GOOD

    def keep(result):
        kept.append((result.image_id, result.granularity))
        if len(kept) == 14:
            others.set()

    with serve(behaviour) as seen:
        asking = engine(seen.url, budget)
        asking.finished = keep
        results = list(asking.caption(requests(8)))
    assert others.is_set()
    assert kept[14:] == [(r.image_id, r.granularity) for r in requests(1)]
    assert sorted(kept) == [(r.image_id, r.granularity) for r in results]


def test_every_fault_is_survived_and_the_order_kept(budget):
    def behaviour(body, earlier):
        return FAULTS[(number(body) + earlier) % len(FAULTS)] if earlier < 2 else GOOD

    with serve(behaviour) as seen:
        results = captions(seen.url, budget, 28, timeout_s=1.0)
    assert [(r.image_id, r.granularity) for r in results] == [(r.image_id, r.granularity) for r in requests(28)]
    assert [r.error for r in results] == [None] * 56
    assert all(r.text and r.tokens <= budget.budget for r in results)
    # Three sendings of each question, all under one key, and one question for both captions of an eye.
    assert set(seen.sent.values()) == {3}
    assert len(seen.sent) == 28


def test_a_result_says_what_wrote_it(budget):
    with serve(lambda body, earlier: GOOD) as seen:
        result = captions(seen.url, budget)[1]
    assert (result.engine, result.model, result.seed) == ("server", "tiny", 3)
    assert result.prompt_version == load_prompt("record-1").identity
    assert json.loads(result.answer)["diagnosis"] == ANSWER["diagnosis"]


def test_the_same_request_is_the_same_question(budget):
    with serve(lambda body, earlier: GOOD) as seen:
        captions(seen.url, budget, 3)
        captions(seen.url, budget, 3)
    assert sorted(seen.sent.values()) == [2, 2, 2]


def test_wordings_are_asked_for_one_by_one_only_where_the_model_samples(budget):
    wordings = [CaptionRequest("a", {}, g, w, seed=0) for g in ("coarse", "fine") for w in range(2)]
    for temperature, asked in ((0.0, 1), (0.7, 2)):
        with serve(lambda body, earlier: GOOD) as seen:
            results = list(engine(seen.url, budget, temperature=temperature).caption(wordings))
        assert [(r.granularity, r.wording) for r in results] == [(w.granularity, w.wording) for w in wordings]
        assert len({body["seed"] for body in seen.bodies}) == len(seen.bodies) == asked


def test_a_broken_answer_is_asked_again_and_told_why(budget):
    broken = json.dumps({**ANSWER, "laterality": "middle"})

    def behaviour(body, earlier):
        return GOOD if len(body["messages"]) > 2 else Reaction(text=broken)

    with serve(behaviour) as seen:
        assert [result.error for result in captions(seen.url, budget)] == [None, None]
    first, second = seen.bodies
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": broken}
    assert "laterality" in second["messages"][3]["content"]
    assert second["seed"] != first["seed"]


def test_an_answer_that_stays_broken_is_marked(budget):
    with serve(lambda body, earlier: Reaction(text="I cannot help with that.")) as seen:
        results = captions(seen.url, budget, 2)
    assert len(results) == 4
    assert all("2 attempts" in result.error and "no JSON" in result.error and not result.text for result in results)


@pytest.mark.parametrize("reaction", [Reaction(status=500, text=None), Reaction(status=0)])
def test_a_server_that_keeps_failing_is_left_after_the_retries(reaction, budget):
    with serve(lambda body, earlier: reaction) as seen:
        results = captions(seen.url, budget, retries=3)
    assert all("4 attempts" in result.error for result in results)
    assert len(seen.bodies) == 4


def test_a_refused_question_is_not_sent_again(budget):
    with serve(lambda body, earlier: Reaction(status=400, text=None, body="context too long")) as seen:
        results = captions(seen.url, budget)
    assert all("400" in result.error and "context too long" in result.error for result in results)
    assert len(seen.bodies) == 1


def test_a_server_that_is_gone_ends_the_run(budget, monkeypatch):
    monkeypatch.setattr(server, "_GIVE_UP_AFTER", 5)
    with serve(lambda body, earlier: GOOD) as seen:
        url = seen.url
    with pytest.raises(UsageError, match="5 questions in a row failed"):
        captions(url, budget, 30, retries=0)


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        (Reaction(status=400, text=None, body="no such response_format"), "response_format"),
        (Reaction(text="No."), "JSON"),
    ],
)
def test_what_fails_for_every_question_ends_the_run(reaction, reason, budget, monkeypatch):
    monkeypatch.setattr(server, "_GIVE_UP_AFTER", 5)
    with (
        serve(lambda body, earlier: reaction if number(body) % 10 else GOOD) as seen,
        pytest.raises(UsageError, match=f"5 questions in a row failed.*{reason}"),
    ):
        captions(seen.url, budget, 30, concurrency=1)
    assert len(seen.sent) < 20

    with serve(lambda body, earlier: reaction if number(body) % 4 else GOOD) as seen:
        results = captions(seen.url, budget, 30, concurrency=1)
    assert sum(result.error is not None for result in results) == 2 * 22


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_ends_the_run_and_the_key_is_kept_secret(status, budget, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("RETINALOGOS_TEST_KEY", "sesame-1234")
    reaction = Reaction(status=status, text=None, body="not with the key sesame-1234")
    with serve(lambda body, earlier: reaction) as seen, pytest.raises(UsageError, match=str(status)) as raised:
        captions(seen.url, budget, 20)
    assert seen.headers[0]["Authorization"] == "Bearer sesame-1234"
    assert "sesame" not in str(raised.value)
    assert "sesame" not in caplog.text


def test_no_key_no_authorisation(budget):
    with serve(lambda body, earlier: GOOD) as seen:
        captions(seen.url, budget)
    assert "Authorization" not in seen.headers[0]


def test_a_rate_limit_stops_all_questions_for_as_long_as_it_says(budget):
    limited = Reaction(status=429, text=None, headers={"Retry-After": "1"})

    def behaviour(body, earlier):
        return limited if number(body) == 0 and earlier == 0 else Reaction(stall=0.1)

    with serve(behaviour) as seen:
        results = captions(seen.url, budget, 8, concurrency=1)
    assert all(result.error is None for result in results)
    assert seen.times[1] - seen.times[0] >= 1.0
    assert len(seen.bodies) == 9


def test_a_rate_limit_by_date_is_understood():
    assert server._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert server._seconds("Wed, 21 Oct 2215 07:28:00 GMT") > 1e9
    assert server._seconds("soon") is None
    assert server._seconds(None) is None


def test_a_wait_beyond_bearing_is_an_error(budget):
    limited = Reaction(status=429, text=None, body="come back tomorrow", headers={"Retry-After": "86400"})
    with serve(lambda body, earlier: limited) as seen:
        results = captions(seen.url, budget)
    assert all("longer than 60 s" in result.error for result in results)


def test_only_so_many_questions_at_a_time_and_drawn_ahead(budget):
    drawn = 0

    def counting():
        nonlocal drawn
        for request in requests(60, ("fine",)):
            drawn += 1
            yield request

    with serve(lambda body, earlier: Reaction(stall=0.02)) as seen:
        told = 0
        for _ in engine(seen.url, budget, concurrency=5).caption(counting()):
            told += 1
            assert drawn - told <= 2 * 5
    assert told == 60
    assert 2 <= seen.most <= 5


def test_a_thousand_questions_at_a_time(budget):
    came, all_here = 0, threading.Event()
    counting = threading.Lock()

    def behaviour(body, earlier):
        nonlocal came
        with counting:
            came += 1
            if came == 1000:
                all_here.set()
        assert all_here.wait(100)  # none is answered before a thousand are there
        return GOOD

    with serve(behaviour) as seen:
        results = list(engine(seen.url, budget, concurrency=1000, timeout_s=120).caption(requests(1100, ("coarse",))))
    assert [result.error for result in results] == [None] * 1100
    assert seen.most == 1000


def test_a_reader_that_leaves_early_leaves_nothing_running(budget):
    before = threading.active_count()
    with serve(lambda body, earlier: Reaction(stall=0.2)) as seen:
        stream = engine(seen.url, budget).caption(requests(50))
        next(stream)
        start = time.monotonic()
        stream.close()
        assert time.monotonic() - start < 5
    assert "caption server" not in [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 9  # the fake server's own threads end by themselves
    assert len(seen.bodies) < 50


def test_the_picture_is_sent_only_where_the_model_is_to_look(budget):
    import numpy as np

    data = encode_png(np.zeros((4, 4, 3), np.uint8))
    with serve(lambda body, earlier: GOOD) as seen:
        for look in (True, False):
            list(engine(seen.url, budget, look=look).caption(requests(1, image=lambda: data)))
    picture, text = seen.bodies[0]["messages"][1]["content"]
    kind, _, encoded = picture["image_url"]["url"].partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(encoded) == data
    assert "this fundus photograph" in text["text"]
    assert "There is no picture" in seen.bodies[1]["messages"][1]["content"]


def test_a_damaged_picture_or_record_is_an_error_of_its_eye(budget):
    asked = [
        CaptionRequest("a", {"eye": "middle"}, "fine", 0, 0),
        CaptionRequest("b", {"eye": "left"}, "fine", 0, 0, image=lambda: b"no picture"),
        CaptionRequest("c", {"eye": "left"}, "fine", 0, 0),
    ]
    with serve(lambda body, earlier: GOOD) as seen:
        first, second, third = engine(seen.url, budget, look=True).caption(asked)
    assert "middle" in first.error
    assert "image b is damaged" in second.error
    assert third.error is None
    assert len(seen.bodies) == 1


def test_a_redirect_is_not_followed(budget):
    elsewhere = Reaction(status=307, text=None, headers={"Location": "http://example.org/"})
    with serve(lambda body, earlier: elsewhere) as seen:
        results = captions(seen.url, budget)
    assert all("307" in result.error for result in results)


def test_a_proxy_of_the_environment_is_not_used(budget, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serve(lambda body, earlier: GOOD) as seen:
        assert captions(seen.url, budget)[0].error is None


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://localhost:8000/v1",
        "http://127.0.0.1/v1",
        "http://10.1.2.3:8000/v1",
        "https://[::1]/v1",
        "http://[fd00::1]/",
    ],
)
def test_local_endpoints_are_allowed(endpoint):
    require_local(endpoint, allow_remote=False)


@pytest.mark.parametrize(
    ("endpoint", "allowed", "reason"),
    [
        ("https://8.8.8.8/v1", False, "allow_remote"),
        ("https://[::ffff:8.8.8.8]/v1", False, "allow_remote"),
        ("https://[2001:4860:4860::8888]/v1", False, "allow_remote"),
        ("http://8.8.8.8/v1", True, "https"),
        ("http://me:secret@localhost/v1", True, "password"),
        ("localhost:8000", True, "no address"),
        ("ftp://localhost/", True, "no address"),
    ],
)
def test_endpoints_that_may_not_have_the_records(endpoint, allowed, reason):
    with pytest.raises(UsageError, match=reason):
        require_local(endpoint, allowed)


def test_remote_endpoints_are_allowed_in_so_many_words():
    require_local("https://8.8.8.8/v1", allow_remote=True)


def test_a_name_with_one_remote_address_is_remote(monkeypatch):
    def addresses(*arguments, **options):
        return [(2, 1, 6, "", (address, 443)) for address in ("10.0.0.1", "93.184.216.34")]

    monkeypatch.setattr("socket.getaddrinfo", addresses)
    with pytest.raises(UsageError, match=r"93\.184\.216\.34"):
        require_local("https://models.example/v1", allow_remote=False)
