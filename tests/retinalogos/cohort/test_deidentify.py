import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ],
)
def test_clinical_text_is_left_alone(text: str) -> None:
    assert deidentify_text(text) == text


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
