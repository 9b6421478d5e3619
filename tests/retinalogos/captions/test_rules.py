"""Each rule catches its planted fault, and none catches a caption of our own."""

import pytest

from retinalogos.captions.rules import RULES, check, check_all
from retinalogos.captions.template import write_captions
from retinalogos.phantom.records import sample_records

RECORD = {
    "eye": "left",
    "dr_grade": 2,
    "glaucoma": "no",
    "findings": ["microaneurysm", "haemorrhage"],
}
GOOD = (
    "Colour fundus photograph of the left eye, with the optic disc on the left, showing features suggestive of "
    "moderate non-proliferative diabetic retinopathy and no sign of glaucoma. The retina shows a few haemorrhages."
)
HEALTHY = RECORD | {"dr_grade": 0, "findings": []}

FAULTS = [
    (
        "over_budget",
        GOOD + " The vessels appear regular in course and calibre." * 1 + " The tone is orange." * 9,
        RECORD,
    ),
    ("laterality", GOOD.replace("left eye", "right eye"), RECORD),
    ("laterality", GOOD.replace("on the left", "on the right"), RECORD),
    ("laterality", GOOD + " The right eye is similar.", RECORD),
    ("grade", GOOD.replace("moderate", "severe"), RECORD),
    ("grade", GOOD.replace("moderate non-proliferative", "proliferative"), RECORD),
    ("grade", "Left eye with no apparent diabetic retinopathy in this picture.", RECORD),
    ("grade", GOOD, RECORD | {"dr_grade": None}),
    ("grade", "The left eye appears to have diabetic retinopathy of some kind.", HEALTHY),
    ("glaucoma", GOOD.replace("no sign of", "signs of"), RECORD),
    ("glaucoma", GOOD, RECORD | {"glaucoma": "suspect"}),
    ("glaucoma", GOOD, RECORD | {"glaucoma": None}),
    ("cup", GOOD + " The cup-to-disc ratio is about 0.8.", RECORD | {"vcdr": 0.4}),
    ("cup", GOOD + " Vertical cup-to-disc ratio of about 0.4.", RECORD),
    ("unsupported_finding", GOOD + " Drusen are seen at the macula.", RECORD),
    ("unsupported_finding", GOOD + " New vessels appear at the disc.", RECORD | {"findings": None}),
    ("unsupported_finding", "Fundus photograph of the left eye with drusen.", {"eye": "left"}),
    ("denied_finding", GOOD + " No microaneurysms can be seen.", RECORD),
    ("denied_finding", GOOD + " Overall, the fundus appears within normal limits.", RECORD),
    ("definitive", GOOD.replace("features suggestive of", "confirmed"), RECORD),
    ("definitive", GOOD + " The patient has diabetes.", RECORD),
    ("definitive", GOOD + " This is definitely a retinopathy.", RECORD),
    ("not_english", "左眼眼底照片，视盘位于左侧，可见散在出血点。", RECORD),
    ("not_english", "Fotografía en color del fondo del ojo izquierdo con la papila a la izquierda.", RECORD),
    ("not_english", "Farbaufnahme des Augenhintergrundes am linken Auge mit einigen kleinen Blutungen.", RECORD),
    ("not_english", GOOD + " <b>bold</b>", RECORD),
    ("not_english", GOOD + " !!!!!!!!!", RECORD),
    ("not_english", "Fundus of the left eye xkcdr qwrtz plmnk bvcxz hjklw.", RECORD),
    ("repetition", GOOD + " The background is orange. The background is orange.", RECORD),
    ("repetition", GOOD + " It is very very very bright.", RECORD),
    ("repetition", GOOD + " The arcades, hard exudates hard exudates hard exudates.", RECORD),
    ("repetition", GOOD + " small red dots small red dots small red dots near the arcade.", RECORD),
    ("too_short", "Left eye.", RECORD),
    ("boilerplate", "As an AI, " + GOOD, RECORD),
    ("boilerplate", "I cannot judge this picture of the left eye in detail.", RECORD),
    ("boilerplate", "Sure! " + GOOD, RECORD),
    ("boilerplate", "Caption: " + GOOD, RECORD),
    ("boilerplate", GOOD + " Please consult an ophthalmologist.", RECORD),
    ("identifier", GOOD + " Taken on 12/03/2019.", RECORD),
    ("identifier", GOOD + " Taken on 3 March 2019.", RECORD),
    ("identifier", GOOD + " Record number 4471.", RECORD),
    ("identifier", GOOD + " Seen by Dr. Miller.", RECORD),
    ("identifier", GOOD + " The eye of Anna Schmidt.", RECORD),
    ("identifier", GOOD + " Contact eye@clinic.org.", RECORD),
]


@pytest.mark.parametrize(
    ("rule", "text", "record"), FAULTS, ids=[f"{rule}-{i}" for i, (rule, _, _) in enumerate(FAULTS)]
)
def test_planted_fault_is_caught(rule, text, record, budget):
    assert rule in {violation.rule for violation in check(text, record, budget)}


def test_every_rule_has_a_planted_fault_and_a_reason():
    assert {rule for rule, _, _ in FAULTS} == set(RULES)
    assert all(rule.reason for rule in RULES.values())


def test_good_caption_breaks_no_rule(budget):
    assert check(GOOD, RECORD, budget) == []


def test_readers_prose_breaks_no_rule():
    """Free prose in the manner of a vision-language model, of a record that supports it."""
    text = (
        "This is a colour fundus image of the right eye with slight blur. The optic disk is on the right side, with a "
        "clear margin and a cup-to-disc ratio of about 0.4. The vessels are of normal calibre. The macula appears dark "
        "without evident edema. A few microaneurysms and dot hemorrhages are noted in the temporal retina, which may "
        "indicate moderate non-proliferative diabetic retinopathy. The field covers 45 degrees."
    )
    record = {"eye": "right", "dr_grade": 2, "dme": 0, "findings": None, "vcdr": 0.4}
    assert check(text, record) == []


def test_lesions_that_a_known_grade_is_compatible_with_are_supported():
    text = "Fundus photograph of the left eye with several haemorrhages and hard exudates."
    assert check(text, {"eye": "left", "dr_grade": 2}) == []
    assert [v.rule for v in check(text, {"eye": "left", "dr_grade": 1})] == ["unsupported_finding"]


def test_details_repeat_no_identifier():
    details = " ".join(v.detail for v in check(GOOD + " Seen by Dr. Miller on 12/03/2019.", RECORD))
    assert "Miller" not in details
    assert "2019" not in details


@pytest.mark.parametrize("limit", [64, 256])
def test_our_own_captions_of_phantom_eyes_break_no_rule(limit, budgets):
    rows = [
        record.cohort_row() | {"quality": 0.5, "image_id": str(i)} for i, record in enumerate(sample_records(150, 1))
    ]
    requests = [(row, granularity, i % 16, 0) for i, row in enumerate(rows) for granularity in ("coarse", "fine")]
    captions = write_captions(requests, budgets[limit])
    found = check_all([caption.text for caption in captions], [row for row, *_ in requests], budgets[limit])
    assert [violations for violations in found if violations] == []


def test_tokens_counted_before_are_not_counted_again(budget):
    assert [v.rule for v in check(GOOD, RECORD, budget, tokens=99)] == ["over_budget"]
