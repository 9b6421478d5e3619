"""The review page: what it holds and what not, and that it works in a browser from a file, without a network."""

import hashlib
import json
import re

import pytest
from browser import browser

from components import cli
from retinalogos.captions.review import FORMAT, ITEMS, key_of
from retinalogos.captions.review.agreement import read_answers
from retinalogos.captions.table import CaptionWriter, read_captions
from retinalogos.captions.template import GRANULARITIES, write_caption
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.shards import CohortWriter, encode_jpeg
from retinalogos.phantom import draw, sample_records

EYES = 5
NASTY = "Left eye </script><script>document.title='taken'</script> & 'more'."


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few phantom eyes and captions; one report and one caption name a person, one caption holds mark-up."""
    folder = tmp_path_factory.mktemp("review")
    records = sample_records(EYES, seed=1)
    budget = TokenBudget("minilm", 64)
    with (
        CohortWriter(folder / "cohort", "phantom") as cohort,
        CaptionWriter(folder / "captions", 64, "minilm") as captions,
    ):
        for i, record in enumerate(records):
            image = encode_jpeg(draw([record], 96)[0].image)
            digest = hashlib.sha256(image).hexdigest()
            row = record.cohort_row() | {
                "image_id": digest[:16],
                "sha256": digest,
                "split": "train",
                "source": "phantom",
            }
            row |= {"width": 96, "height": 96, "image": {"bytes": image, "path": "x.jpg"}, "age": 61.0}
            cohort.add(row | {"report": "Seen by Dr. Anna Schmidt on 12.03.2019. Drusen."})
            for granularity in GRANULARITIES:
                caption = write_caption(row, granularity=granularity, wording=0, seed=0, budget=budget)
                texts = {0: NASTY, 1: "Left eye of Mr. Schmidt with drusen."}
                captions.add(
                    {"image_id": digest[:16], "granularity": granularity, "wording": 0, "seed": 0, "engine": "template"}
                    | {"text": texts.get(i, caption.text) if granularity == "fine" else caption.text}
                    | {"tokens": caption.tokens, "prompt_version": "1"}
                )
    return folder


def make(data, out, *options):
    call = [
        "review-captions",
        "--cohort",
        str(data / "cohort"),
        "--captions",
        str(data / "captions"),
        "--out",
        str(out),
    ]
    assert cli.main([*call, *options]) == 0
    return out


def held(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[1])


def test_the_page_has_pictures_records_and_captions_and_names_nobody(data, tmp_path, capsys):
    page = make(data, tmp_path / "deep" / "review.html")
    assert f"{EYES - 1} captions to review" in capsys.readouterr().out  # one may name a person
    html, cases = page.read_text(encoding="utf-8"), held(page)["cases"]
    rows = read_captions(data / "captions").to_pylist()
    fine = {key_of(row): row["text"] for row in rows if row["granularity"] == "fine"}
    assert {case["key"]: case["text"] for case in cases}.items() < fine.items()
    for case in cases:
        assert case["image"].startswith("data:image/jpeg;base64,")
        record = dict(case["record"])
        assert record["eye"] in ("left", "right")
        assert "Drusen" in record["report"]
        assert not {"age", "image id", "source", "truth"} & record.keys()
    assert not [row["image_id"] for row in rows if row["image_id"] in html]
    for word in ("Schmidt", "2019", "http:", "https:", str(tmp_path)):
        assert word not in html
    assert "no patient was photographed" in html


def test_the_sample_is_by_lot_and_the_page_the_same_bytes_again(data, tmp_path):
    first = make(data, tmp_path / "a.html", "--n", "3", "--granularity", "coarse", "--size", "48")
    assert (
        first.read_bytes()
        == make(data, tmp_path / "b.html", "--n", "3", "--granularity", "coarse", "--size", "48").read_bytes()
    )
    other = held(make(data, tmp_path / "c.html", "--n", "3", "--granularity", "coarse", "--seed", "1"))
    assert other["set"] != held(first)["set"]
    assert len(other["cases"]) == len(held(first)["cases"]) == 3
    assert max(len(case["image"]) for case in held(first)["cases"]) < min(len(case["image"]) for case in other["cases"])


def test_nothing_to_review_is_told_in_a_line(data, tmp_path, capsys):
    with CaptionWriter(tmp_path / "captions", 64, "minilm", may_be_empty=True):
        pass
    call = ["review-captions", "--cohort", str(data / "cohort"), "--captions", str(tmp_path / "captions")]
    assert cli.main([*call, "--out", str(tmp_path / "r.html")]) == 2
    assert "no fine caption to review" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    return make(data, tmp_path_factory.mktemp("page") / "review.html")


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as new_tab:
        yield new_tab()


def shown(tab):
    return tab.evaluate("document.getElementById('progress').textContent")


def test_a_reviewer_marks_by_keys_goes_on_later_and_downloads(tab, page, data):
    """One long test: a browser takes seconds to start, and answers are kept from one visit to the next."""
    tab.go(page.as_uri())
    cases = held(page)["cases"]
    assert shown(tab) == f"0 of {len(cases)} complete"
    assert tab.evaluate("document.title") == "Review of captions"
    nasty = next(number for number, case in enumerate(cases) if case["text"] == NASTY)
    tab.evaluate(f"document.querySelectorAll('#cases button')[{nasty}].click()")
    assert tab.evaluate("document.getElementById('text').textContent") == NASTY
    assert tab.evaluate("document.getElementById('image').naturalWidth") == 96
    assert tab.evaluate("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    tab.evaluate("document.querySelectorAll('#cases button')[0].click()")

    tab.press("1", "2", "3", "1")  # disc right, macula wrong, vessels not judgeable, fibre right
    assert shown(tab) == f"0 of {len(cases)} complete"
    tab.press("2", "c")  # lesions wrong; then a comment, in which 1 is a letter
    tab.press("1")
    tab.write(" drusen missed <b>")
    tab.press("Escape", "ArrowRight", "ArrowDown", "1")  # the macula of the second, right
    assert shown(tab) == f"1 of {len(cases)} complete"

    tab.evaluate("document.getElementById('download').click()")
    assert "reviewer code" in tab.evaluate("document.getElementById('message').textContent")
    tab.write("Dr A/1")  # the field was focused
    tab.go(page.as_uri())
    assert shown(tab) == f"1 of {len(cases)} complete"
    assert tab.evaluate("document.getElementById('number').textContent") == f"Caption 2 of {len(cases)}"
    assert tab.evaluate("document.getElementById('reviewer').value") == "Dr A/1"
    tab.press("ArrowLeft")
    assert tab.evaluate("document.getElementById('comment').value") == "1 drusen missed <b>"
    assert tab.evaluate("[...document.querySelectorAll('#items input:checked')].map(i => i.name + ' ' + i.value)") == [
        "disc right",
        "macula wrong",
        "vessels unclear",
        "fibre right",
        "lesions wrong",
    ]

    tab.evaluate("document.getElementById('download').click()")
    file = tab.downloaded()
    assert file.name == f"review-{held(page)['set']}-Dr_A_1.json"
    answers = json.loads(file.read_text(encoding="utf-8"))
    verdicts = ("right", "wrong", "unclear", "right", "wrong")
    assert answers == {
        "format": FORMAT,
        "set": held(page)["set"],
        "reviewer": "Dr A/1",
        "answers": {
            cases[0]["key"]: dict(zip(ITEMS, verdicts, strict=True)) | {"comment": "1 drusen missed <b>"},
            cases[1]["key"]: {"macula": "right"},
        },
    }
    second = file.with_name("second.json")
    second.write_text(json.dumps(answers | {"reviewer": "B"}))
    assert [one.reviewer for one in read_answers([file, second])] == ["Dr A/1", "B"]


def test_a_file_of_answers_is_taken_up_and_another_is_refused(tab, page, tmp_path):
    tab.go(page.as_uri())
    tab.evaluate("localStorage.clear()")
    tab.go(page.as_uri())
    case = held(page)["cases"][2]["key"]
    answers = {"format": FORMAT, "set": "another", "reviewer": "C", "answers": {case: dict.fromkeys(ITEMS, "right")}}
    for place, name in ((answers, "other.json"), (answers | {"set": held(page)["set"]}, "own.json")):
        (tmp_path / name).write_text(json.dumps(place))
        tab.choose_file("#upload", tmp_path / name)
        said = "" if name == "own.json" else "That file holds no answers to this review."
        tab.until(f"document.getElementById('message').textContent === {said!r}")
    assert shown(tab).startswith("1 of")
    assert tab.evaluate("document.getElementById('reviewer').value") == "C"


def test_a_browser_that_keeps_nothing_says_so(tab, page):
    script = "Storage.prototype.setItem = Storage.prototype.getItem = () => { throw new Error('no') }"
    number = tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
    tab.go(page.as_uri())
    assert "download your answers before" in tab.evaluate("document.getElementById('message').textContent")
    tab.press("1")
    assert tab.evaluate("document.querySelectorAll('#items input:checked').length") == 1
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=number)
