"""Captions say what the record knows, in the paper's order, within the budget, and nothing else."""

import itertools
import json

import pytest
from caption_records import records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinalogos.captions import template
from retinalogos.captions.description import describe
from retinalogos.captions.reading import read_statements, sentences
from retinalogos.captions.rules import check
from retinalogos.captions.template import GRANULARITIES, MAX_WORDINGS, plan, write_caption, write_captions
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import GLAUCOMA, ICDR_GRADES
from retinalogos.errors import DataError, UsageError

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TRUTH = {
    "disc_x": 0.24,
    "fovea_x": 0.6,
    "tone": "orange",
    "tessellation": 0.4,
    "blur_mm": 0.06,
    "haze": 0.0,
    "glow": 0.5,
    "tortuosity": 0.3,
    "arteriole_venule_ratio": 0.66,
    "microaneurysms": 30,
    "haemorrhages": [25, 22, 30, 21],
    "exudate_clusters": 3,
    "drusen": 0,
}
SEVERE = {
    "image_id": "00ff00ff00ff00ff",
    "eye": "left",
    "dr_grade": 3,
    "dme": 1,
    "glaucoma": "suspect",
    "vcdr": 0.58,
    "quality": 0.9,
    "findings": ["microaneurysm", "haemorrhage", "hard_exudate", "venous_beading", "macular_oedema"],
    "truth": json.dumps(TRUTH),
}


@QUICK
@given(
    record=records(),
    granularity=st.sampled_from(GRANULARITIES),
    limit=st.sampled_from([48, 64, 100, 256]),
    seed=st.integers(0, 9),
)
def test_any_record_keeps_any_budget_and_breaks_no_rule(record, granularity, limit, seed, budgets):
    caption = write_caption(record, granularity=granularity, wording=seed, seed=seed, budget=budgets[limit])
    assert caption.tokens == budgets[limit].count(caption.text) <= limit
    assert check(caption.text, record, budgets[limit]) == []


@QUICK
@given(record=records(), granularity=st.sampled_from(GRANULARITIES), wording=st.integers(0, MAX_WORDINGS - 1))
def test_nothing_is_stated_that_the_record_does_not_support(record, granularity, wording):
    known = describe(record)
    # Before any budget: every form of every sentence.
    for sentence in plan(record, granularity, wording, seed=3):
        for form in sentence.forms:
            said = read_statements(form)
            assert said.eyes <= {known.eye}
            assert said.disc_sides <= {known.disc_side}
            assert said.grades <= {known.grade}
            assert said.glaucoma <= {known.glaucoma}
            for codes in said.present:
                assert known.supports().intersection(codes), form
            for codes in said.absent:
                assert not set(known.findings or ()).intersection(codes), form
            if said.absent:  # ruled out only where it was looked for
                assert known.findings is not None or known.dme is False, form


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("limit", [48, 64, 256])
def test_laterality_grade_and_glaucoma_stand_in_every_caption(granularity, limit, budgets):
    for eye, grade, glaucoma in itertools.product(("left", "right"), range(5), GLAUCOMA):
        record = SEVERE | {"eye": eye, "dr_grade": grade, "glaucoma": glaucoma, "truth": None}
        for wording in range(3):
            caption = write_caption(record, granularity=granularity, wording=wording, seed=0, budget=budgets[limit])
            first = sentences(caption.text)[0]
            said = read_statements(first)
            assert (said.eyes, said.grades, said.glaucoma) == ({eye}, {grade}, {glaucoma}), first
            assert said.disc_sides == {eye}
            assert f"{eye} eye" in first.lower()
            assert ICDR_GRADES[grade] in first


def test_minimal_record_of_a_prompt(budget):
    asked = {"eye": "left", "dr_grade": 3, "glaucoma": "no", "findings": ["haemorrhage", "hard_exudate"]}
    caption = write_caption(asked, granularity="fine", wording=0, seed=5, budget=budget)
    said = read_statements(caption.text)
    assert (said.eyes, said.grades, said.glaucoma) == ({"left"}, {3}, {"no"})
    assert {("haemorrhage",), ("hard_exudate",)} <= said.present


def test_empty_record_says_that_it_is_a_fundus_picture_and_no_more(wide_budget):
    caption = write_caption({}, granularity="fine", wording=0, seed=0, budget=wide_budget)
    assert "retina" in caption.text.lower()
    assert len(sentences(caption.text)) == 1
    said = read_statements(caption.text)
    assert not said.eyes | said.grades | said.glaucoma | said.present | said.absent


def test_order_is_the_papers(wide_budget):
    text = write_caption(SEVERE, granularity="fine", wording=0, seed=0, budget=wide_budget).text.lower()
    said = sentences(text)
    topics = ["left eye", "quality", "cup-to-disc", "beading", "macula", "haemorrhages", "overall", "tessellation"]
    places = [next(i for i, sentence in enumerate(said) if topic in sentence) for topic in topics]
    assert places == sorted(places)
    assert 60 <= len(text.split()) <= 200


def test_coarse_is_one_sentence_and_fine_is_prose(wide_budget):
    coarse = write_caption(SEVERE, granularity="coarse", wording=0, seed=0, budget=wide_budget).text
    fine = write_caption(SEVERE, granularity="fine", wording=0, seed=0, budget=wide_budget).text
    assert len(sentences(coarse)) == 1 < 5 < len(sentences(fine))


@QUICK
@given(record=records(), granularity=st.sampled_from(GRANULARITIES), limit=st.sampled_from([64, 256]))
def test_every_wording_differs_and_each_is_reproducible(record, granularity, limit, budgets):
    requests = [(record, granularity, wording, 7) for wording in range(MAX_WORDINGS)]
    texts = [caption.text for caption in write_captions(requests, budgets[limit])]
    assert len(set(texts)) == MAX_WORDINGS
    assert texts == [caption.text for caption in write_captions(requests, budgets[limit])]


def test_a_batch_writes_what_single_calls_write(budget):
    requests = [(SEVERE | {"dr_grade": grade}, "fine", grade, 1) for grade in range(5)]
    alone = [write_captions([request], TokenBudget("minilm", 64))[0] for request in requests]
    assert write_captions(requests, budget) == alone


def test_another_seed_gives_another_text(wide_budget):
    texts = {
        write_caption(SEVERE, granularity="fine", wording=0, seed=seed, budget=wide_budget).text for seed in range(8)
    }
    assert len(texts) > 4


def test_one_changed_attribute_changes_its_own_words_alone(wide_budget):
    """Counterfactual prompts: the grade moves, the rest of the text stays."""
    one, other = (
        write_caption(SEVERE | {"dr_grade": grade}, granularity="fine", wording=0, seed=0, budget=wide_budget).text
        for grade in (2, 3)
    )
    assert one != other
    assert one.replace(ICDR_GRADES[2], ICDR_GRADES[3]) == other


def test_a_small_budget_drops_the_least_important_sentences(budgets):
    long, short = (
        write_caption(SEVERE, granularity="fine", wording=0, seed=0, budget=budgets[limit]).text for limit in (256, 64)
    )
    assert len(sentences(short)) < len(sentences(long))
    assert short.endswith(".")
    assert "haemorrhages" in short  # lesions outlive the background
    assert "overall" in long.lower()
    assert "overall" not in short.lower()


def test_absence_is_said_only_where_it_was_looked_for(wide_budget):
    examined = {"eye": "right", "dr_grade": 0, "glaucoma": "no", "findings": []}
    unknown = examined | {"findings": None}
    assert read_statements(
        write_caption(examined, granularity="fine", wording=0, seed=0, budget=wide_budget).text
    ).absent
    for wording in range(MAX_WORDINGS):
        text = write_caption(unknown, granularity="fine", wording=wording, seed=0, budget=wide_budget).text
        assert not read_statements(text).absent


@pytest.mark.parametrize("code", sorted(FINDINGS))
def test_every_finding_is_told_and_read_back(code, wide_budget):
    """The whole vocabulary: what the template writes is what the rules read."""
    record = {"eye": "left", "findings": [code]}
    for granularity in GRANULARITIES:
        text = write_caption(record, granularity=granularity, wording=0, seed=0, budget=wide_budget).text
        said = read_statements(text)
        if "diabetic_retinopathy" in code:
            assert said.unstaged_retinopathy, text
        else:
            assert any(code in codes for codes in said.present), text
        assert check(text, record, wide_budget) == []


def test_disc_side_follows_the_truth_of_a_phantom(budget):
    centred = {"eye": "left", "truth": json.dumps({"disc_x": 0.5})}
    assert "near the centre" in write_caption(centred, granularity="coarse", wording=0, seed=0, budget=budget).text


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_side_of_the_disc_is_not_stated_for_photographs_centred_on_it(budget, granularity):
    record = {"eye": "left", "source": "papila", "glaucoma": "suspect"}
    said = read_statements(write_caption(record, granularity=granularity, wording=0, seed=0, budget=budget).text)
    assert said.eyes == {"left"}
    assert not said.disc_sides


def test_amounts_follow_the_counts(wide_budget):
    text = {}
    for count in (2, 12, 40):
        truth = json.dumps({"microaneurysms": count})
        record = {"eye": "left", "dr_grade": 2, "findings": ["microaneurysm"], "truth": truth}
        text[count] = write_caption(record, granularity="fine", wording=0, seed=0, budget=wide_budget).text
    assert "a few small red microaneurysms" in text[2]
    assert "several small red microaneurysms" in text[12]
    assert "numerous small red microaneurysms" in text[40]


def test_too_small_a_budget_is_refused_by_name():
    with pytest.raises(UsageError, match="token_budget 12"):
        write_caption(SEVERE, granularity="coarse", wording=0, seed=0, budget=TokenBudget("minilm", 12))


@pytest.mark.parametrize(
    ("column", "value"),
    [("eye", "middle"), ("dr_grade", 7), ("glaucoma", "maybe"), ("vcdr", 1.5), ("findings", ["blurb"]), ("truth", "{")],
)
def test_values_outside_the_vocabulary_name_row_and_column(column, value, budget):
    with pytest.raises(DataError, match=f"00ff00ff00ff00ff.*{column}"):
        write_caption(SEVERE | {column: value}, granularity="fine", wording=0, seed=0, budget=budget)


def test_wrong_granularity_and_wording_are_refused(budget):
    with pytest.raises(UsageError, match="granularity"):
        write_caption(SEVERE, granularity="medium", wording=0, seed=0, budget=budget)
    with pytest.raises(UsageError, match="wording"):
        write_caption(SEVERE, granularity="fine", wording=MAX_WORDINGS, seed=0, budget=budget)


@QUICK
@given(record=records(), granularity=st.sampled_from(GRANULARITIES), wording=st.integers(0, MAX_WORDINGS - 1))
def test_remembered_sentences_are_those_written_anew(record, granularity, wording):
    remembered = plan(record, granularity, wording, seed=3)
    template._SENTENCES.clear()
    assert plan(record, granularity, wording, seed=3) == remembered


@QUICK
@given(record=records(), granularity=st.sampled_from(GRANULARITIES))
def test_lengths_that_add_up_are_those_of_the_whole(record, granularity, budget):
    caption = write_caption(record, granularity=granularity, wording=1, seed=2, budget=budget)
    assert caption.tokens == budget.count(caption.text)
