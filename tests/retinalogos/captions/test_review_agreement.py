"""Agreement of reviewers: against scikit-learn, and files that cannot be read."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from components import cli
from retinalogos.captions.review import FORMAT, ITEMS, VERDICTS
from retinalogos.captions.review.agreement import ALL, Answers, agreement, pairs, ratings, read_answers
from retinalogos.errors import UsageError

GIVEN = st.lists(st.tuples(*[st.sampled_from(sorted(VERDICTS))] * 2), min_size=2, max_size=20)


def reviewed(columns, item="disc", sample="s"):
    """Answers of reviewers A, B, …: each a list of verdicts on one item; None is none given."""
    return [
        Answers(sample, chr(65 + i), {f"{k:04d}": {item: v} for k, v in enumerate(column) if v})
        for i, column in enumerate(columns)
    ]


@settings(max_examples=60, deadline=None)
@given(GIVEN)
def test_kappa_of_a_pair_is_cohens(given):
    first, second = (list(column) for column in zip(*given, strict=True))
    found = pairs(reviewed([first, second]))["A", "B"]
    if len({*first, *second}) == 1:
        assert math.isnan(found["disc"])
    else:
        assert found["disc"] == found[ALL] == pytest.approx(cohen_kappa_score(first, second))
    assert math.isnan(found["macula"])


def test_agreement_by_item_with_verdicts_missing():
    answers = [
        Answers("s", "A", {"1": {"disc": "right", "macula": "wrong"}, "2": {"disc": "wrong"}, "3": {"disc": "right"}}),
        Answers("s", "B", {"1": {"disc": "right", "macula": "wrong"}, "2": {"disc": "unclear"}}),
    ]
    assert ratings(answers).shape == (3, len(ITEMS), 2)
    found = agreement(answers, resamples=50, seed=0)
    assert (found["disc"].alpha.n, found["disc"].same.value) == (2, 0.5)
    assert found["disc"].right.value == 3 / 4
    assert (found["macula"].same.value, found["macula"].right.value) == (1, 0)
    assert math.isnan(found["macula"].alpha.value)
    assert math.isnan(found["vessels"].same.value)
    assert found[ALL].alpha.n == 2
    assert found["disc"] == agreement(answers, resamples=50, seed=0)["disc"]


def test_the_interval_holds_the_value_and_narrows_with_more_captions():
    rng = np.random.default_rng(0)
    widths = []
    for n in (40, 640):
        truth = rng.choice(sorted(VERDICTS), n)
        columns = [np.where(rng.random(n) < 0.8, truth, rng.choice(sorted(VERDICTS), n)).tolist() for _ in range(3)]
        alpha = agreement(reviewed(columns), resamples=200, seed=0)["disc"].alpha
        assert alpha.low < alpha.value < alpha.high
        widths.append(alpha.high - alpha.low)
    assert widths[1] < widths[0] / 2


def file(folder, name, **changes):
    answers = {"k1": {"disc": "right", "comment": "seen"}, "k2": {"disc": "wrong"}}
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"format": FORMAT, "set": "s", "reviewer": name, "answers": answers} | changes))
    return path


def test_the_command_prints_and_writes(tmp_path, capsys):
    files = [file(tmp_path, "A"), file(tmp_path, "B", answers={"k1": {"disc": "right"}, "k2": {"disc": "right"}})]
    out = tmp_path / "agreement.json"
    assert cli.main(["review-agreement", *map(str, files), "--out", str(out), "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "2 reviewers (A, B), 2 captions" in printed
    assert "Optic disc" in printed
    assert "A and B: Optic disc 0.00" in printed
    written = json.loads(out.read_text())
    assert written["items"]["disc"]["same"]["value"] == 0.5
    assert written["items"]["lesions"]["alpha"]["value"] is None
    assert written["cohen_kappa"][0]["reviewers"] == ["A", "B"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "other"}, "format 'other'"),
        ({"set": "t"}, "review the same page"),
        ({"reviewer": "A"}, "reviewer 'A' has another file"),
        ({"answers": {"k1": {"disc": "maybe"}}}, "verdict 'maybe'"),
        ({"answers": ["k1"]}, "no answers"),
    ],
)
def test_files_that_do_not_belong_together_are_refused_by_name(changes, says, tmp_path):
    with pytest.raises(UsageError, match=says) as refused:
        read_answers([file(tmp_path, "A"), file(tmp_path, "B", **changes)])
    assert "B.json" in str(refused.value)


def test_one_file_no_file_and_a_broken_file(tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{")
    good = str(file(tmp_path, "A"))
    for files, says in (
        ([good], "two reviewers"),
        ([good, f"{tmp_path}/none"], "none"),
        ([good, f"{tmp_path}/broken.json"], "broken"),
    ):
        assert cli.main(["review-agreement", *files]) == 2
        answer = capsys.readouterr().err
        assert says in answer
        assert answer.count("\n") == 1
