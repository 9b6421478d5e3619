import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.deidentification import left_over, lost, measure, plant
from retinalogos.cohort.deidentify import deidentify_text, pseudonym, pseudonym_key


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("seen 2019-03-21 for review", "seen [date] for review"),
        ("seen 21/3/2019, and 3.4.19", "seen [date], and [date]"),
        ("on 4th of March 2019 laser", "on [date] laser"),
        ("on March 4, 2019 laser", "on [date] laser"),
        ("call +44 20 7946 0958 today", "call [phone] today"),
        ("call (020) 7946-0958", "call [phone]"),
        ("write to a.b-c@clinic.org.uk please", "write to [e-mail] please"),
        ("record 00412345 of the clinic", "record [number] of the clinic"),
        ("MRN AB1234567", "MRN [number]"),
        ("referred by Dr. Anna Müller for laser", "referred by Dr. [name] for laser"),
        ("Mrs O'Neill complains", "Mrs [name] complains"),
        ("Patient name: Anna Smith; mild DR", "Patient name: [name]; mild DR"),
        ("see https://clinic.org/p/12 there", "see [address] there"),
        ("Anna Kowalski attended today", "[name] attended today"),
        ("the left eye of van der Berg, Anna is stable", "the left eye of [name] is stable"),
        ("Name: anna smith, left eye", "Name: [name], left eye"),
        ("patient Weiss has a Weiss ring", "patient [name] has a Weiss ring"),
        ("seen by Mark White in May 2019", "seen by [name] in [date]"),
        ("reviewed by Nguyen Thi Minh and Brown", "reviewed by [name] and [name]"),
        ("photographed 2019年3月21日", "photographed [date]"),
        ("le 3 mars 2019, am 21. März 2019", "le [date], am [date]"),
        ("NHS number 943 476 5919", "NHS number [number]"),
        ("lives at 12 Baker Street, Leeds LS1 4DY.", "lives at [address]."),
        ("lives at Hauptstraße 5, 80331 München", "lives at [address]"),
        ("from St Thomas' Hospital, London", "from [institution]"),
        ("Universitätsklinikum Heidelberg, retina clinic", "[institution], retina clinic"),
        ("a 93-year-old woman, aged 93", "a [age]-year-old woman, aged [age]"),
        ("a ninety-two year old man, aged ninety-two; 92F", "a [age] year old man, aged [age]; [age]F"),
        ("on the third of march, on March the third, two thousand and nineteen", "on the [date], on [date]"),
        ("4 giugno, 4 czerwca 2020, 2020. március 15.", "[date], [date], [date]"),
        ("seen by dr smith and mr. john patel today", "seen by dr [name] and mr. [name] today"),
        ("record smith_john_OD.jpg, OPD 2019/123, MRN 12 34 56", "record [file], OPD [number], MRN [number]"),
        ("codice RSSMRA50A01H501U", "codice [number]"),
        ("Name: Sabine M. Weiss", "Name: [name]"),
        ("Patient: N. White. Drusen", "Patient: [name]. Drusen"),
        ("Dr Cohen syndrome clinic", "Dr [name] syndrome clinic"),
    ],
)
def test_identifiers_are_marked(text: str, left: str) -> None:
    assert deidentify_text(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "moderate non proliferative retinopathy; laser spot",
        "cup-to-disc ratio 0.65, IOP 21 mmHg, age 57",
        "12 month follow up",
        "vision 6/9, 20/40, axial length 23.64 mm, -1.75 x 90",
        "MA/DBH=4. Intraretinal HEM; CWS=2: Present",
        "Doctor may consider laser",
        "Referred to the Medical Retina Clinic; left eye since 2014",
        "Drusen of Gass, Fuchs spot, Vogt-Koyanagi-Harada disease and Best disease",
        "Optic Disc: Sharp Rim. Macula: Flat. White spots OD.",
        "MACULAR OEDEMA OF THE LEFT EYE, NPDR, IRMA",
        "lesion of 2.5 disc diameters, 250 260 270 µm thick",
        "May need laser; a 57-year-old patient",
        "mild dr with drusen, no dr. laser in 2019",
        "Cohen syndrome, Ota naevus, Morning Glory anomaly, Bardet-Biedl, Churg-Strauss syndrome",
        "MacTel, APMPPE, MEWDS; AREDS category 3",
        "vision is 6/9. May need laser",
        "the second may follow, the first lesion 12 lesions 2019",
    ],
)
def test_clinical_text_is_left_alone(text: str) -> None:
    assert deidentify_text(text) == text


@pytest.fixture(scope="module")
def score():
    return measure(2000, seed=1)


def test_at_least_99_of_100_planted_identifiers_are_found(score):
    assert score.planted.total() == 2000
    assert score.recall >= 0.99
    for kind, count in score.planted.items():
        assert score.found[kind] >= 0.97 * count, kind


def test_no_clinical_statement_is_damaged(score):
    assert score.statements > 4000
    assert score.damaged == []


def test_what_was_de_identified_stays_as_it_is():
    for case in plant(300, seed=2):
        once = deidentify_text(case.text)
        assert deidentify_text(once) == once


def test_the_measure_sees_what_is_left_and_what_is_lost():
    case = next(case for case in plant(50, seed=0) if case.kind == "full name")
    assert left_over(case, case.text)
    hidden = case.text.replace(case.identifier, "[name]")
    assert not left_over(case, hidden)
    surname = re.findall(r"\w{2,}", case.identifier)[-1]
    assert left_over(case, f"{hidden} {surname}") == [surname.lower()]
    assert lost("ratio 0.65, left", "ratio 0.6, left") == ["0.65"]
    assert not lost("ratio 0.65, left", "[name] ratio 0.65, left.")


@given(st.text(max_size=60))
def test_any_text_can_be_de_identified(text: str) -> None:
    once = deidentify_text(text)
    assert not re.search(r"\d{7}", once)
    assert deidentify_text(once) == once


def test_pseudonyms_are_keyed_and_differ_by_source() -> None:
    assert pseudonym("a", "1", b"key") == pseudonym("a", "1", b"key")
    assert len({pseudonym("a", "1", b"key"), pseudonym("a", "1", b"other"), pseudonym("b", "1", b"key")}) == 3


@given(st.text(min_size=1, max_size=30))
def test_a_pseudonym_is_sixteen_hex_digits(identifier: str) -> None:
    found = pseudonym("source", identifier, b"key")
    assert len(found) == 16
    assert int(found, 16) >= 0


def test_the_public_key_warns_for_a_cohort_of_ones_own(monkeypatch: pytest.MonkeyPatch, recwarn) -> None:
    monkeypatch.delenv("RETINALOGOS_PSEUDONYM_KEY", raising=False)
    public = pseudonym_key(open_source=True)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="RETINALOGOS_PSEUDONYM_KEY"):
        assert pseudonym_key(open_source=False) == public
    monkeypatch.setenv("RETINALOGOS_PSEUDONYM_KEY", "secret")
    assert pseudonym_key(open_source=False) == b"secret"
