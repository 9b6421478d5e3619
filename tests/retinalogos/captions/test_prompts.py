"""Prompts: what a model is told of a record, and above all what it is not."""

import json
import re

import pytest
from caption_records import records
from hypothesis import given

from retinalogos.captions.prompts import load_prompt, statement
from retinalogos.captions.structured import answer_schema
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import TABLE_COLUMNS
from retinalogos.errors import DataError, UsageError

PROMPT = load_prompt("record-1")

WHOLE = {
    "image_id": "feedfacefeedface",
    "patient_id": "cafebabecafebabe",
    "eye": "right",
    "age": 73.5,
    "sex": "female",
    "dr_grade": 3,
    "dme": 1,
    "glaucoma": "suspect",
    "vcdr": 0.62,
    "findings": ["haemorrhage", "hard_exudate"],
    "report": "Seen on 12/03/2019 by Dr Miller, phone 555 123 4567: exudates at the fovea.",
    "labels": '{"name": "Doe", "visit": "2019-03-12"}',
    "quality": 0.9,
    "split": "train",
    "duplicate_group": "feedfacefeedface",
    "source": "clinic",
    "licence": "private",
    "width": 987,
    "height": 654,
    "sha256": "ab" * 32,
    "truth": None,
    "generator": "generator-x",
    "prompt": "an earlier prompt",
    "seed": 4711,
}


def text_of(messages):
    return json.dumps(messages)


def test_a_question_holds_the_record_and_no_identifier():
    assert set(WHOLE) == set(TABLE_COLUMNS)
    text = text_of(PROMPT.messages(WHOLE))
    for told in ("right", "severe non-proliferative", "0.62", "suspect", "hard exudates", "exudates at the fovea"):
        assert told in text
    hidden = [
        "image_id",
        "patient_id",
        "age",
        "sex",
        "source",
        "licence",
        "width",
        "sha256",
        "generator",
        "prompt",
        "seed",
    ]
    for column in hidden:
        assert not re.search(rf"\b{re.escape(str(WHOLE[column]))}\b", text), column
    for secret in ("2019", "Miller", "4567", "Doe", "visit"):
        assert secret not in text


@given(records())
def test_only_what_the_record_states_is_told(record):
    told = statement(record)
    assert ("eye" in told) == (record.get("eye") is not None)
    assert ("diabetic_retinopathy" in told) == (record.get("dr_grade") is not None)
    assert ("glaucoma" in told) == (record.get("glaucoma") is not None)
    assert ("findings" in told) == (record.get("findings") is not None)
    named = told.get("findings", [])
    assert named == (
        [FINDINGS[code] for code in record.get("findings") or []] or ("none" if "findings" in told else [])
    )
    assert not {value for value in told.values() if value is None}
    json.dumps(told)


def test_an_examined_eye_without_findings_says_so():
    assert statement({"findings": []})["findings"] == "none"
    assert statement({}) == {}


def test_the_picture_comes_before_the_words_and_changes_the_task():
    part = {"type": "image_url", "image_url": {"url": "data:,"}}
    system, user = PROMPT.messages(WHOLE, part)
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"][0] == part
    assert PROMPT.with_image in user["content"][1]["text"]
    alone = PROMPT.messages(WHOLE)[1]["content"]
    assert PROMPT.text_only in alone
    assert PROMPT.with_image not in alone
    assert json.dumps(answer_schema(), separators=(",", ":")) in alone


def test_a_report_with_a_dollar_is_told_as_it_is():
    assert "$record costs $5" in PROMPT.messages({"report": "$record costs $5"})[1]["content"]


def test_asking_again_tells_the_problem():
    messages = PROMPT.messages({})
    again = PROMPT.ask_again(messages, "no", "it holds no JSON object")
    assert again[:2] == messages
    assert [message["role"] for message in again[2:]] == ["assistant", "user"]
    assert "it holds no JSON object" in again[3]["content"]


def test_a_record_outside_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="eye"):
        PROMPT.messages({"eye": "middle"})


def test_a_changed_word_changes_the_identity(tmp_path):
    words = PROMPT.model_dump()
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(words))
    assert load_prompt(str(path)).identity == PROMPT.identity
    path.write_text(json.dumps(words | {"system": "Be brief."}))
    own = load_prompt(str(path))
    assert own.version == PROMPT.version
    assert own.identity != PROMPT.identity


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user": "$task and $record"}, "schema"),
        ({"user": "$task $record $schema $patient_id"}, "no other"),
        ({"version": None}, "string"),
        ({"extra": "x"}, "not permitted"),
    ],
)
def test_a_prompt_file_that_is_none_is_refused(change, reason, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(PROMPT.model_dump() | change))
    with pytest.raises(UsageError, match=reason):
        load_prompt(str(path))


def test_an_unknown_prompt_is_refused_by_name():
    with pytest.raises(UsageError, match=r"prompt nosuch: .*record-1"):
        load_prompt("nosuch")
