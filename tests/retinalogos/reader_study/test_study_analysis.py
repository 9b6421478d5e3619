import csv
import json
import re

import numpy as np
import pytest
from scipy.stats import fisher_exact
from study_at_hand import read, scores

from components import cli
from retinalogos.errors import DataError
from retinalogos.reader_study.analysis import FIGURES, Readings, against_chance, analyse, estimate, rating_difference
from retinalogos.reader_study.answers import read_books
from retinalogos.reader_study.design import ASPECTS


def readings(judged_rn: np.ndarray, synthetic_n: np.ndarray, scores_rn: np.ndarray | None = None) -> Readings:
    """Of verdicts (1: synthetic) and, for every aspect alike, scores."""
    judged_rn = np.asarray(judged_rn, float)
    scores_rn = np.full(judged_rn.shape, 2.0) if scores_rn is None else scores_rn
    return Readings(synthetic_n, judged_rn, dict.fromkeys(ASPECTS, scores_rn), np.full(judged_rn.shape, 5.0), [])


def drawn(rng, n_readers=4, n_pictures=40, skill=0.0, reader_spread=0.0, picture_spread=0.0) -> Readings:
    """Verdicts of readers with likings of their own, on pictures some of which all take for synthetic."""
    synthetic = np.arange(n_pictures) % 2 == 1
    liking = rng.normal(0, reader_spread, (n_readers, 1)) + rng.normal(0, picture_spread, (1, n_pictures))
    told = rng.normal(0, 1, (n_readers, n_pictures)) + liking + np.where(synthetic, skill, -skill)
    return readings(told > 0, synthetic)


HALF = np.arange(20) % 2 == 1


def found(figure: str, of: Readings, readers: bool = True):
    return estimate(FIGURES[figure], of, resamples=300, seed=0, readers=readers, pictures=True)


def test_rates_of_a_table_that_can_be_counted() -> None:
    judged = np.zeros((2, 20))
    judged[0, HALF] = [1] * 7 + [0] * 3  # 7 of 10 synthetic found by one reader
    judged[1, HALF] = [1] * 9 + [0]  # 9 by the other
    judged[:, ~HALF] = [[1] * 4 + [0] * 6, [np.nan] * 5 + [0] * 5]
    of = readings(judged, HALF)
    value = {name: found(name, of).value for name in FIGURES}
    assert value["sensitivity"] == pytest.approx(16 / 20)
    assert value["specificity"] == pytest.approx(11 / 15)
    assert value["accuracy"] == pytest.approx((16 / 20 + 11 / 15) / 2)
    assert value["synthetic_judged_real"] == pytest.approx(4 / 20)
    assert value["gap"] == pytest.approx(11 / 15 - 4 / 20)
    for name in FIGURES:
        one = found(name, of)
        assert one.low <= one.value <= one.high
    assert found("sensitivity", of).n == 10


def test_who_says_the_same_of_all_knows_nothing() -> None:
    of = readings(np.zeros((3, 20)), HALF)
    assert found("accuracy", of).value == 0.5
    assert found("synthetic_judged_real", of).value == 1.0
    assert found("gap", of).value == 0.0
    assert against_chance(of, 0) == 1.0


def test_who_is_always_right_has_an_interval_all_the_same() -> None:
    of = readings(np.tile(HALF, (3, 1)), HALF)
    one = found("accuracy", of)
    assert (one.value, one.high) == (1.0, 1.0)
    assert one.low == pytest.approx(0.025 ** (1 / 20))  # exact binomial, 20 of 20
    assert found("synthetic_judged_real", of).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert against_chance(of, 0) < 0.001


def test_one_reader_has_no_interval_over_readers_and_a_kind_not_seen_no_figure() -> None:
    one = drawn(np.random.default_rng(0), n_readers=1)
    assert found("accuracy", one).low is None
    assert found("accuracy", one, readers=False).low is not None
    unseen = readings(np.where(HALF, 1.0, np.nan)[None], HALF)
    assert np.isnan(found("accuracy", unseen).value)
    assert found("sensitivity", unseen).value == 1.0
    assert np.isnan(against_chance(unseen, 0))


def test_what_is_drawn_anew_is_what_the_interval_doubts() -> None:
    def interval(judged: np.ndarray, readers: bool, pictures: bool) -> tuple[float | None, float | None]:
        of = readings(judged, HALF)
        one = estimate(FIGURES["accuracy"], of, resamples=300, seed=0, readers=readers, pictures=pictures)
        assert one.value == 0.5
        return one.low, one.high

    differing_readers = np.stack([HALF, HALF, ~HALF, ~HALF])  # two always right, two always wrong
    assert interval(differing_readers, readers=True, pictures=False) == (0, 1)
    assert interval(differing_readers, readers=False, pictures=True) == (None, None), "no other pictures change that"
    differing_pictures = np.tile(np.where(np.arange(20) < 10, HALF, ~HALF), (4, 1))  # all right on half of them
    assert interval(differing_pictures, readers=True, pictures=False) == (None, None)
    low, high = interval(differing_pictures, readers=False, pictures=True)
    assert 0.2 < low < 0.4
    assert 0.6 < high < 0.8


@pytest.mark.parametrize("seed", range(4))
def test_the_permutation_test_of_one_reader_is_that_of_fisher(seed: int) -> None:
    # With half the verdicts "synthetic" the distribution is symmetric: both definitions of two-sided agree.
    rng = np.random.default_rng(seed)
    judged = rng.permutation(HALF)
    table = [
        [int((judged & HALF).sum()), int((~judged & HALF).sum())],
        [int((judged & ~HALF).sum()), int((~judged & ~HALF).sum())],
    ]
    assert against_chance(readings(judged[None], HALF), 1) == pytest.approx(fisher_exact(table).pvalue, abs=0.02)


def test_readers_who_guess_are_found_guilty_as_rarely_as_promised() -> None:
    # Readers with strong likings who fall for the same pictures, but know nothing: p < 0.05 in 5 % of the studies.
    rng = np.random.default_rng(0)
    p = [against_chance(drawn(rng, reader_spread=1, picture_spread=1), 0) for _ in range(40)]
    assert sum(value < 0.05 for value in p) <= 6  # of 40; more has a probability of 0.3 %
    assert np.median(p) > 0.25
    skilled = [against_chance(drawn(rng, skill=0.5), 0) for _ in range(6)]
    assert sum(value < 0.05 for value in skilled) >= 5


def test_intervals_cover_what_they_should() -> None:
    rng = np.random.default_rng(1)
    settings = {"skill": 0.4, "reader_spread": 0.5, "picture_spread": 0.7}
    many = drawn(rng, n_readers=400, n_pictures=2000, **settings)
    truth = FIGURES["accuracy"].of(many, np.ones((1, 400)), np.ones((1, 2000)))[0]
    hits = 0
    for _ in range(60):
        one = found("accuracy", drawn(rng, n_readers=6, n_pictures=60, **settings))
        hits += one.low <= truth <= one.high
    assert hits >= 51  # of 60 at 95 %


def test_a_difference_of_ratings_is_found_with_its_sign() -> None:
    rng = np.random.default_rng(0)
    scored = np.where(HALF, rng.choice([2, 3], (3, 20)), rng.choice([1, 2], (3, 20))).astype(float)
    scored[0, :4] = np.nan
    of = readings(np.zeros((3, 20)), HALF, scored)
    one = estimate(rating_difference("disc"), of, resamples=300, seed=0, readers=True, pictures=True)
    assert one.value == pytest.approx(np.nanmean(scored[:, HALF]) - np.nanmean(scored[:, ~HALF]))
    assert 0 < one.low < one.value < one.high < 2


def knows(picture, repeat):
    return picture.kind, scores(3 if picture.kind == "real" else 2, lesions=None if picture.dr_grade == 0 else 1)


def forgets(picture, repeat):
    """Judges everything real at first sight and synthetic at the second."""
    return ("synthetic" if repeat else "real"), scores(1 if repeat else 3)


def test_a_whole_study_from_answers_to_page(study, folder, tmp_path, capsys):
    read(folder, study, "Dr. A", knows, role="ophthalmologist")
    read(folder, study, "B", forgets)
    read(folder, study, "C", knows, most=5)
    out = tmp_path / "out"
    assert cli.main(["reader-study", "analyse", str(folder), "--out", str(out), "--resamples", "200"]) == 0
    said = capsys.readouterr().out
    result = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    assert said.startswith(result["conclusion"])
    by_name = {reader["name"]: reader for reader in result["readers"]}
    assert [reader["name"] for reader in result["readers"]] == ["B", "C", "Dr. A"]
    assert by_name["Dr. A"]["accuracy"]["value"] == 1.0
    assert by_name["B"]["accuracy"]["value"] == 0.5, "the second sight does not count"
    assert by_name["B"]["specificity"]["value"] == 1.0
    assert (by_name["C"]["answered"], by_name["C"]["of"]) == (5, 16)
    within = result["agreement"]["judged"]["within_reader"]["agreement"]
    assert (within["value"], within["n"]) == (0.5, 8), "A is always as before, B never"
    assert result["ratings"]["disc"]["difference"]["pictures"]["value"] < 0
    assert result["ratings"]["lesions"]["not_rated"]["real"] > 0
    assert result["paper"]["judged_real"]["synthetic"]["value"] == 0.6207
    # Wilson's interval of 18 of 29.
    assert result["paper"]["judged_real"]["synthetic"]["low"] == pytest.approx(0.4400, abs=5e-4)
    assert result["paper"]["judged_real"]["synthetic"]["high"] == pytest.approx(0.7731, abs=5e-4)
    cautions = " ".join(result["cautions"])
    assert "1 ophthalmologist, 2 other" in cautions
    assert "Not finished: C." in cautions
    assert "phantom" not in cautions

    page = (out / "index.html").read_text()
    for words in (result["conclusion"], "62.07 %", "64.29 %", "Dr. A", "kappa of Fleiss", "5 of 16"):
        assert words in page
    assert not re.search(r'(src|href|url\()\s*=?\s*["\']?\s*(https?:)?//', page), "nothing from elsewhere"
    assert "<script" not in page
    assert "nan" not in re.sub(r"<[^>]*>", "", page)
    for picture in study.pictures:
        assert picture.image_id not in page

    # The same answers and seed give the same bytes.
    again = tmp_path / "again"
    assert cli.main(["reader-study", "analyse", str(folder), "--out", str(again), "--resamples", "200"]) == 0
    assert (again / "index.html").read_bytes() == (out / "index.html").read_bytes()
    assert (again / "results.json").read_bytes() == (out / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (knows, "better than by guessing"),
        (
            lambda picture, repeat: ("real" if picture.kind == "synthetic" else "synthetic", scores()),
            "take each for the other",
        ),
        (lambda picture, repeat: ("real", scores()), "not shown that the readers can tell"),
    ],
)
def test_the_conclusion_says_what_the_test_allows(study, folder, judge, says):
    for name in ("a", "b"):
        read(folder, study, name, judge)
    result = analyse(folder, 200, 0)
    assert says in result["conclusion"]
    assert "No ophthalmologist took part" in " ".join(result["cautions"])
    value, p = result["verdict"]["accuracy"]["pictures"]["value"], result["p_against_chance"]
    assert f"accuracy {100 * value:.1f} %" in result["conclusion"]
    assert (p < 0.05) == ("not shown" not in says)


def test_nothing_answered_and_nothing_of_a_kind(study, folder, tmp_path, capsys):
    with pytest.raises(DataError, match="nobody has answered anything yet"):
        analyse(folder, 200, 0)
    assert cli.main(["reader-study", "analyse", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    read(folder, study, "a", knows, most=1)
    capsys.readouterr()
    assert cli.main(["reader-study", "analyse", str(folder)]) == 0
    assert "Too little was answered" in capsys.readouterr().out
    assert "Too little was answered" in (folder / "results" / "index.html").read_text()


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_every_answer_is_exported_with_the_key(study, folder, tmp_path, ending):
    read(folder, study, "a", knows)
    read(folder, study, "b", forgets, role="grader", most=3)
    out = tmp_path / "new" / f"answers.{ending}"
    assert cli.main(["reader-study", "export", str(folder), "--out", str(out)]) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = json.load(file) if ending == "json" else list(csv.DictReader(file))
    assert len(rows) == 19
    kind = {picture.name: picture.kind for picture in study.pictures}
    answers = [(book.reader, answer) for book in read_books(folder, study) for answer in book.answers]
    for row, (reader, answer) in zip(rows, answers, strict=True):
        assert (row["reader"], row["role"], row["judged"]) == (reader.name, reader.role, answer.judged)
        assert row["kind"] == kind[row["picture"]]
        assert str(row["repeat"]) == str(answer.repeat)
        for aspect in ASPECTS:
            score = getattr(answer.ratings, aspect)
            assert str(row[aspect]) == ("" if score is None and ending == "csv" else str(score))
    assert "patient" not in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "PART"),
        (["analyse", "nowhere"], "holds no reader study"),
        (["export", "nowhere", "--out", "a.csv"], "holds no reader study"),
        (["export", "nowhere", "--out", "a.xls"], ".csv or .json"),
        (["prepare", "s", "--real", "nowhere", "--synthetic", "nowhere"], "cohort.json"),
        (["prepare", "s", "--real", "r"], "--synthetic"),
        (["prepare", "s", "--real", "r", "--synthetic", "s", "--images", "2"], "less than 3"),
        (["serve", "nowhere", "--port", "-1"], "less than 0"),
        (["analyse", "nowhere", "--resamples", "1"], "less than 100"),
    ],
)
def test_wrong_use_is_answered_with_one_line_and_code_two(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reader-study", *arguments]) == 2
    answer = capsys.readouterr().err
    assert says in answer
    assert answer.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_study_is_prepared_from_the_command_line(cohorts, tmp_path, capsys):
    places = [f"--{kind}={cohorts[kind]}" for kind in cohorts]
    options = ["--images", "6", "--repeats", "1", "--size", "32"]
    assert cli.main(["reader-study", "prepare", str(tmp_path / "s"), *places, *options]) == 0
    assert "6 real and 6 synthetic pictures of 32 pixels" in capsys.readouterr().out
    assert cli.main(["reader-study", "prepare", str(tmp_path / "s"), *places, *options]) == 2
    assert "not an empty folder" in capsys.readouterr().err
