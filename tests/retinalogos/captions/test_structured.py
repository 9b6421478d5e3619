"""Structured answers: read from whatever a model writes around and into its JSON, and told as prose."""

import json
import re

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_server import ANSWER

from retinalogos.captions.reading import sentences
from retinalogos.captions.rules import check
from retinalogos.captions.structured import Answer, answer_schema, read_answer, write_prose
from retinalogos.captions.tokens import TokenBudget
from retinalogos.errors import DataError, UsageError

TEXT = json.dumps(ANSWER)
PRETTY = json.dumps(ANSWER, indent=2)


def prose(answer, budget, granularity="fine", **changes):
    fields = {"identity": "a", "wording": 0, "seed": 0} | changes
    return write_prose(answer, granularity=granularity, budget=budget, **fields)


@pytest.mark.parametrize(
    "written",
    [
        TEXT,
        PRETTY,
        f"Sure, here is the description.\n\n{TEXT}\n\nLet me know if {{anything}} is missing!",
        f"```json\n{PRETTY}\n```",
        f"The eye {{left}}:\n```\n{TEXT}\n```\nDone.",
        f"<think>The record says {{left}}, so ...</think>{TEXT}",
        TEXT.replace('"}', '",}').replace("]", ",]"),
        str(ANSWER),
        re.sub(r'"(\w+)":', r"\1:", PRETTY),
        PRETTY.replace('"good",', '"good", # the picture is sharp').replace("  ", "\t"),
        TEXT.replace("appears healthy", "appears\nhealthy"),
        TEXT.removesuffix("}"),
        PRETTY.replace('"The macula', "The macula"),
        f"```json\n{PRETTY.removesuffix('}')}",
        f'By the {{schema}}, like {{"quality": ...}}, it is {TEXT}',
        PRETTY.replace('"good",', '"good", // the picture is sharp').replace('"disc"', '// of the nerve\n "disc"', 1),
        re.sub('"([^"]*)"', "“\\1”", TEXT),
    ],
)
def test_an_answer_is_found_and_its_small_damage_repaired(written):
    assert read_answer(written) == Answer.model_validate(ANSWER)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("", "no JSON object"),
        ("I am sorry, but I cannot look at pictures of patients.", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ("{" * 5000, "damaged"),
        (TEXT[: len(TEXT) // 2], "damaged"),
        (json.dumps({**ANSWER, "laterality": "middle"}), "laterality"),
        (json.dumps({**ANSWER, "cup": {"ratio": 4, "description": ""}}), r"cup\.ratio"),
        (json.dumps({**ANSWER, "cup": {"ratio": True, "description": ""}}), r"cup\.ratio"),
        (json.dumps({"answer": ANSWER["cup"]}), "quality"),
        (json.dumps({**ANSWER, "disc": "the disc " * 100}), "disc"),
        (json.dumps({name: value for name, value in ANSWER.items() if name != "diagnosis"}), "diagnosis"),
        (json.dumps({**ANSWER, "lesions": [{"name": "", "place": "", "amount": ""}]}), "lesions"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_with_the_reason(written, problem):
    with pytest.raises(DataError, match=problem):
        read_answer(written)


@given(st.text(max_size=80), st.integers(0, len(TEXT)), st.integers(0, 12))
def test_damage_of_any_kind_is_repaired_or_refused(noise, place, lost):
    try:
        answer = read_answer(TEXT[:place] + noise + TEXT[place + lost :])
    except DataError:
        return
    assert isinstance(answer, Answer)


def test_what_is_written_for_unknown_is_unknown():
    answer = read_answer(
        json.dumps(
            {**ANSWER, "disc": None, "macula": "N/A", "vessels": "Unknown.", "diagnosis": None, "laterality": "OS"}
        )
    )
    assert (answer.disc, answer.macula, answer.vessels, answer.diagnosis) == ("", "", "", [])
    assert answer.laterality == "left"


def test_lesions_may_be_told_by_name_and_a_ratio_left_open():
    told = ANSWER | {"lesions": ["drusen", ANSWER["lesions"][0]], "cup": {"ratio": "unknown", "description": ""}}
    answer = read_answer(json.dumps(told))
    assert [lesion.name for lesion in answer.lesions] == ["drusen", ANSWER["lesions"][0]["name"]]
    assert answer.cup.ratio is None


def test_the_schema_describes_the_answer():
    jsonschema.validate(ANSWER, answer_schema())
    assert answer_schema()["required"] == list(ANSWER)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**ANSWER, "age": 70}, answer_schema())


def test_prose_keeps_the_order_of_the_paper(wide_budget):
    text = prose(Answer.model_validate({**ANSWER, "nerve_fibre_layer": "The fibre layer is even."}), wide_budget).text
    order = [
        "left eye",
        "good quality",
        "optic disc",
        "cup",
        "vessels",
        "macula",
        "fibre layer",
        "retina shows",
        "Overall",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places)


def test_a_coarse_caption_is_one_sentence_with_the_lesions(budget):
    text = prose(Answer.model_validate(ANSWER), budget, "coarse").text
    assert len(sentences(text)) == 1
    for words in ("left eye", "moderate non-proliferative", "no sign of glaucoma", "a few hard exudates"):
        assert words in text


def test_wordings_differ(budget):
    answer = Answer.model_validate(ANSWER)
    assert len({prose(answer, budget, g, wording=w).text for g in ("coarse", "fine") for w in range(16)}) == 32


def test_prose_passes_the_rules_of_purification(budgets):
    record = {"eye": "left", "dr_grade": 2, "glaucoma": "no", "findings": ["hard_exudate"], "vcdr": 0.4, "quality": 0.9}
    for budget in budgets.values():
        for granularity in ("coarse", "fine"):
            caption = prose(Answer.model_validate(ANSWER), budget, granularity)
            assert check(caption.text, record, budget) == []


_words = st.lists(st.sampled_from(["the", "disc", "appears", "pale and small", "0.6", "in macula"]), max_size=25).map(
    " ".join
)
_text = st.lists(_words, max_size=4).map(". ".join)
_phrase = st.lists(st.sampled_from(["signs of", "glaucoma,", "drusen", "and", "no"]), min_size=1, max_size=12).map(
    " ".join
)
answers = st.builds(
    dict,
    quality=st.sampled_from(["good", "adequate", "limited", "unknown"]),
    laterality=st.sampled_from(["left", "right", "unknown"]),
    disc=_text,
    cup=st.fixed_dictionaries({"ratio": st.none() | st.floats(0, 1), "description": _text}),
    vessels=_text,
    macula=_text,
    nerve_fibre_layer=_text,
    lesions=st.lists(st.fixed_dictionaries({"name": _phrase, "place": _phrase, "amount": _phrase}), max_size=5),
    diagnosis=st.lists(_phrase, max_size=5),
).map(Answer.model_validate)


@given(answers, st.sampled_from([48, 64, 100, 256]), st.sampled_from(["coarse", "fine"]))
def test_any_answer_gives_whole_sentences_within_the_budget(budgets, answer, limit, granularity):
    caption = prose(answer, budgets[limit], granularity)
    assert caption.tokens == budgets[limit].count(caption.text) <= limit
    own = (answer.disc, answer.cup.description, answer.vessels, answer.macula, answer.nerve_fibre_layer)
    whole = {part.rstrip(".").lower() for text in own for part in sentences(text)}
    _, *body = sentences(caption.text)
    for sentence in body:
        if not sentence.startswith(("The picture is of", "The vertical", "The retina shows", "Overall")) and (
            "image quality" not in sentence
        ):
            assert sentence.rstrip(".").lower() in whole


def test_a_budget_that_cannot_name_the_eye_is_refused():
    with pytest.raises(UsageError, match="larger budget"):
        prose(Answer.model_validate(ANSWER), TokenBudget("minilm", 5))
