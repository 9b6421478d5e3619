import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from starlette.testclient import TestClient

from components import cli
from retinalogos.reader_study import answers
from retinalogos.reader_study.answers import only_writer, read_books
from retinalogos.reader_study.design import ASPECTS
from retinalogos.reader_study.server import make_app


@pytest.fixture
def client(study, folder):
    return TestClient(make_app(folder, study, ["testserver"]), follow_redirects=False)


def enter(client, name: str = "anna", role: str = "other"):
    return client.post("/", data={"name": name, "role": role})


def filled(trial: int, **change: str) -> dict[str, str]:
    """A form with every question answered."""
    return {"trial": str(trial), "judged": "real", **dict.fromkeys(ASPECTS, "2"), **change}


def saved(folder, study) -> dict[str, int]:
    """Answers on disk by reader."""
    return {book.reader.name: len(book.answers) for book in read_books(folder, study)}


def test_a_reader_goes_through_all_pictures_and_each_answer_is_on_disk_at_once(client, study, folder):
    assert client.get("/read").headers["location"] == "/", "first one says who reads"
    assert enter(client).headers["location"] == "/read"
    for trial in range(16):
        page = client.get("/read").text
        assert f"Picture {trial + 1} of 16" in page
        assert Image.open(io.BytesIO(client.get(f"/picture/{trial}").content)).size == (40, 40)
        assert client.post("/read", data=filled(trial, judged="synthetic", lesions="0")).status_code == 303
        assert saved(folder, study) == {"anna": trial + 1}
    assert "All 16 pictures are answered" in client.get("/read").text
    assert client.get("/picture/16").status_code == 404
    assert client.post("/read", data=filled(16)).status_code == 303, "nothing is left to answer"
    (book,) = read_books(folder, study)
    assert [(answer.picture, answer.repeat) for answer in book.answers] == [(t.picture, t.repeat) for t in book.order]
    assert {answer.judged for answer in book.answers} == {"synthetic"}
    assert {answer.ratings.lesions for answer in book.answers} == {None}
    assert {answer.ratings.disc for answer in book.answers} == {2}
    assert all(answer.seconds is not None and answer.seconds < 60 for answer in book.answers)


def test_nothing_but_the_pixels_differs_between_pictures(client, study):
    enter(client)
    pages, heads = set(), set()
    for trial in range(16):
        page = client.get("/read").text
        for shown, same in ((f"Picture {trial + 1} of", "Picture N of"), (f"/picture/{trial}", "/picture/N")):
            assert shown in page
            page = page.replace(shown, same)
        pages.add(
            re.sub(r'value="\d+"( aria-label="Pictures answered")>\d+ of|, \d+ answered|"trial" value="\d+"', "", page)
        )
        answer = client.get(f"/picture/{trial}")
        heads.add((answer.status_code, *sorted(answer.headers.items())))
        client.post("/read", data=filled(trial))
    assert len(pages) == 1
    assert len(heads) == 1, "the same length, type and cache rules, no date and no tag"
    (page,) = pages
    for picture in study.pictures:
        assert picture.name not in page
        assert picture.image_id not in page


def test_no_other_picture_and_no_file_of_the_study_can_be_had(client, study):
    enter(client)
    name = study.pictures[0].name
    for path in ("/picture/1", "/picture/-1", "/picture/x", f"/pictures/{name}.png", f"/{name}.png", "/study.json"):
        assert client.get(path).status_code == 404, path
    for path in ("/answers/", "/picture/../study.json", "/picture/%2e%2e/study.json", "/reading.html.j2", "/server.py"):
        assert client.get(path).status_code == 404, path
    client.post("/read", data=filled(0))
    assert client.get("/picture/0").status_code == 404, "nor one again that was answered"
    client.post("/leave")
    assert client.get("/picture/1").status_code == 404


def test_a_second_click_or_window_answers_nothing_twice(client, study, folder):
    enter(client)
    client.post("/read", data=filled(0, judged="synthetic"))
    for trial in ("0", "7", "-1", "x", ""):
        assert client.post("/read", data=filled(0) | {"trial": trial}).headers["location"] == "/read"
    assert saved(folder, study) == {"anna": 1}
    (book,) = read_books(folder, study)
    assert book.answers[0].judged == "synthetic"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"judged": ""}, "real or synthetic is open"),
        ({"judged": "perhaps"}, "real or synthetic is open"),
        ({"disc": "4"}, "optic disc is open"),
        ({"disc": "", "macula": "1.5"}, "optic disc, macula are open"),
        ({"overall": "0"}, "overall quality is open"),
        ({"judged": "", "vessels": "x"}, "real or synthetic, vessels are open"),
    ],
)
def test_what_is_missing_is_said_what_was_chosen_stays_and_nothing_is_saved(client, study, folder, change, says):
    enter(client)
    answer = client.post("/read", data=filled(0, lesions="3") | change)
    assert answer.status_code == 422
    said = re.search(r'role="alert">(.*?)</p>', answer.text, re.DOTALL)
    assert says in " ".join(said[1].split())
    assert re.search(r'name="lesions" value="3"[^>]* checked', answer.text)
    assert saved(folder, study) == {"anna": 0}
    assert client.post("/read", data={"trial": "0"}).status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"name=" + b"a" * 9000, 413), (b"name=%ff%fe&role=other", 400), ("name=é".encode("latin-1"), 400)],
)
def test_bodies_that_are_no_form_of_ours_are_refused(client, study, folder, body, status):
    head = {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/", "/read"):
        assert client.post(path, content=body, headers=head).status_code == status
    assert saved(folder, study) == {}


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"name": "", "role": "other"}, "A name has 1 to 40 letters"),
        ({"name": "<script>alert(1)</script>", "role": "other"}, "A name has 1 to 40 letters"),
        ({"role": "other"}, "A name has 1 to 40 letters"),
        ({"name": "bob"}, "The role must be one of"),
        ({"name": "bob", "role": "king"}, "The role must be one of"),
        ({"name": "ANNA", "role": "grader"}, "Someone of that name has begun in another role"),
    ],
)
def test_who_reads_must_be_said(client, study, folder, form, says):
    enter(client)
    client.post("/leave")
    answer = client.post("/", data=form)
    assert answer.status_code == 422
    assert says in answer.text
    assert "<script>alert" not in answer.text
    assert saved(folder, study) == {"anna": 0}
    assert client.get("/read").headers["location"] == "/"


def test_readers_are_kept_apart_and_go_on_where_they_were(client, study, folder):
    enter(client)
    for trial in range(5):
        client.post("/read", data=filled(trial))
    client.post("/leave")
    enter(client, "Bob", "ophthalmologist")
    assert "Picture 1 of 16" in client.get("/read").text
    client.post("/read", data=filled(0))
    enter(client, " anna ")
    assert "Picture 6 of 16" in client.get("/read").text
    assert "5 of 16 answered" in client.get("/").text
    assert saved(folder, study) == {"anna": 5, "Bob": 1}
    # A new server, as after a restart, and a browser that forgot.
    other = TestClient(make_app(folder, study, ["testserver"]), follow_redirects=False)
    enter(other, "BOB", "ophthalmologist")
    assert "Picture 2 of 16" in other.get("/read").text
    first, second = read_books(folder, study)
    assert first.order != second.order


def test_a_disk_that_fails_is_said_and_the_answer_can_be_given_again(client, study, folder, monkeypatch, capsys):
    enter(client)
    client.post("/read", data=filled(0))

    def fails(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(answers.os, "fsync", fails)
        answer = client.post("/read", data=filled(1))
    assert answer.status_code == 500
    assert "answer this picture" in answer.text
    assert "No space left" in capsys.readouterr().err
    assert "Picture 2 of 16" in client.get("/read").text
    assert client.post("/read", data=filled(1)).status_code == 303
    assert saved(folder, study) == {"anna": 2}


def test_every_page_forbids_what_it_does_not_need(client):
    for answer in (client.get("/"), client.get("/style.css"), client.get("/reading.js"), client.get("/nowhere")):
        rules = answer.headers["content-security-policy"]
        assert "default-src 'none'" in rules
        assert "unsafe" not in rules
        assert "http" not in rules
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"https?://", answer.text.replace("http://www.w3.org", "")), "no address elsewhere"
    cookie = enter(client).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_other_sites_and_borrowed_names_are_refused(client, study, folder):
    assert (
        client.post("/", data={"name": "eve", "role": "other"}, headers={"sec-fetch-site": "cross-site"}).status_code
        == 403
    )
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert saved(folder, study) == {}


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server in a process of its own: its address and the process."""
    command = [sys.executable, "-m", "components.cli", "reader-study", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield re.search(r"http://\S+?/ ", process.stdout.readline())[0].strip(), process
    finally:
        process.kill()
        process.wait()


def test_a_killed_server_loses_no_answer(study, folder):
    done = 0
    for stop in (6, 16):
        with served(folder) as (address, process), httpx2.Client(base_url=address) as client:
            assert address.startswith("http://127.0.0.1:")
            enter(client)
            while done < stop:
                assert f"Picture {done + 1} of 16" in client.get("/read").text
                assert client.post("/read", data=filled(done)).status_code == 303
                done += 1
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert saved(folder, study) == {"anna": done}
    (book,) = read_books(folder, study)
    assert [answer.trial for answer in book.answers] == list(range(16))


def test_a_study_that_cannot_be_served_is_refused_in_one_line(study, folder, tmp_path, capsys):
    with only_writer(folder):
        assert cli.main(["reader-study", "serve", str(folder), "--port", "0"]) == 2
    assert "served by another process" in capsys.readouterr().err
    for options, says in (
        (["--port", "70000"], "--port 70000"),
        (["--host", "nowhere.invalid"], "--host nowhere.invalid"),
    ):
        assert cli.main(["reader-study", "serve", str(folder), *options]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert cli.main(["reader-study", "serve", str(tmp_path)]) == 2
    assert "holds no reader study" in capsys.readouterr().err
