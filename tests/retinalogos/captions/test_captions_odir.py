"""Captions of real records: every eye of ODIR-5K, whose keywords are diagnoses of a single eye."""

import dataclasses

import pytest

from retinalogos.captions.rules import check_all
from retinalogos.captions.template import write_captions
from retinalogos.cohort.readers import Source, read

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def rows(real_data):
    records = read("odir5k", Source(real_data / "odir5k"))
    return [
        {
            name: getattr(record, name)
            for name in (field.name for field in dataclasses.fields(record))
            if name in ("eye", "age", "sex", "dr_grade", "dme", "glaucoma", "vcdr", "findings", "truth")
        }
        for record in records
    ]


@pytest.mark.parametrize("granularity", ["coarse", "fine"])
def test_every_eye_is_captioned_within_the_budget_and_by_the_rules(rows, granularity, budget):
    captions = write_captions([(row, granularity, i % 16, 0) for i, row in enumerate(rows)], budget)
    assert len(captions) > 4800
    assert max(caption.tokens for caption in captions) <= 64
    broken = check_all([caption.text for caption in captions], rows, budget)
    assert [violations for violations in broken if violations] == []
