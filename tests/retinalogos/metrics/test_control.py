import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from retinalogos.metrics import control
from retinalogos.metrics.intervals import bootstrap, centred_bootstrap, undefined


def test_obeyed_and_shuffled() -> None:
    rng = np.random.default_rng(0)
    grades = rng.integers(0, 5, 400)
    shuffled = rng.permutation(grades)
    obeyed = control.grade_agreement(grades, grades, 5, resamples=50, seed=0)
    chance = control.grade_agreement(grades, shuffled, 5, resamples=50, seed=0)
    assert obeyed["kappa"].value == obeyed["accuracy"].value == 1
    assert chance["kappa"].low < 0 < chance["kappa"].high
    assert chance["accuracy"].value == pytest.approx(0.2, abs=0.06)


def test_kappa_weighs_by_squared_distance() -> None:
    grades = np.tile(np.arange(5), 20)
    near = np.where(grades < 4, grades + 1, 3)
    far = (grades + 3) % 5
    assert control.quadratic_kappa(grades, near, 5) > 0.7 > 0.3 > control.quadratic_kappa(grades, far, 5)


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_kappa_and_auc_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked, seen, score = rng.integers(0, 5, 60), rng.integers(0, 5, 60), rng.normal(size=60).round(1)
    kappa = cohen_kappa_score(asked, seen, labels=range(5), weights="quadratic")
    assert control.quadratic_kappa(asked, seen, 5) == pytest.approx(kappa, abs=1e-12)
    assert control.auc(asked > 2, score, 0, 0).value == pytest.approx(roc_auc_score(asked > 2, score), abs=1e-12)


def test_kappa_of_one_grade_is_undefined() -> None:
    assert np.isnan(control.quadratic_kappa(np.full(5, 2), np.full(5, 2), 5))
    assert control.grade_agreement(np.full(5, 2), np.full(5, 2), 5, 10, 0)["kappa"].as_json()["value"] is None


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_auc_ignores_the_scale_of_the_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = np.arange(30) % 3 == 0
    score = rng.normal(size=30) + asked
    one, other = control.auc(asked, score, 0, 0), control.auc(asked, np.exp(3 * score), 0, 0)
    assert one.value == other.value
    pairs = score[asked][:, None] > score[~asked][None]
    assert one.value == pytest.approx(pairs.mean())


def test_auc_with_one_class_is_undefined() -> None:
    assert control.auc(np.ones(4, bool), np.arange(4.0), 5, 0).as_json() == {
        "value": None, "low": None, "high": None, "n": 4,
    }  # fmt: skip


def test_errors_and_correlations_skip_what_is_not_known() -> None:
    asked = np.array([0.2, 0.4, np.nan, 0.6, 0.8])
    measured = np.array([0.3, 0.5, 0.5, np.nan, 0.9])
    error = control.mean_absolute_error(asked, measured, 0, 0)
    assert error.value == pytest.approx(0.1)
    assert error.n == 3
    assert control.correlation(asked, measured, 0, 0).value == pytest.approx(1)
    assert np.isnan(control.correlation(asked[:2], measured[:2], 0, 0).value)
    assert control.mean_absolute_error(asked, np.full(5, np.nan), 10, 0).as_json()["value"] is None


def test_rank_correlation_sees_any_rising_relation() -> None:
    grade = np.repeat(np.arange(5.0), 10)
    load = np.exp(grade)
    assert control.correlation(grade, load, 10, 0, rank=True).value == pytest.approx(1)
    assert control.correlation(grade, load, 10, 0).value < 0.95


def test_correlation_without_variation_is_undefined() -> None:
    assert np.isnan(control.correlation(np.zeros(5), np.arange(5.0), 5, 0).value)


def test_confusion_counts_asked_by_seen() -> None:
    table = control.confusion(["left", "left", "right", "right"], ["left", "right", "right", "?"], ["left", "right"])
    assert table == [[1, 1], [0, 1]]


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        estimate = bootstrap(np.mean, rng.normal(size=60), resamples=200, seed=trial)
        inside += estimate.low <= 0 <= estimate.high
    assert 0.88 <= inside / 200 <= 0.99


def test_by_patient_it_does_so_where_the_eyes_of_a_patient_are_alike() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat([f"patient {number}" for number in range(40)], 2)
    inside = {"patient": 0, "image": 0}
    for trial in range(200):
        eyes = np.repeat(rng.normal(size=40), 2) + rng.normal(0, 0.1, 80)
        for by, groups in (("patient", people), ("image", None)):
            estimate = bootstrap(np.mean, eyes, resamples=200, seed=trial, groups=groups)
            inside[by] += estimate.low <= 0 <= estimate.high
    assert 0.88 <= inside["patient"] / 200 <= 0.99
    assert inside["image"] / 200 < 0.88, "what intervals over images promise they do not keep"


def test_bootstrap_is_seeded_and_optional() -> None:
    sample = np.arange(20.0)
    assert bootstrap(np.mean, sample, resamples=50, seed=1) == bootstrap(np.mean, sample, resamples=50, seed=1)
    assert bootstrap(np.mean, sample, resamples=50, seed=1) != bootstrap(np.mean, sample, resamples=50, seed=2)
    plain = bootstrap(np.mean, sample, resamples=0, seed=1)
    assert (plain.low, plain.high, plain.n) == (None, None, 20)
    assert bootstrap(np.mean, np.empty(0), resamples=5, seed=0).as_json() == undefined().as_json()


def test_centred_bootstrap_surrounds_the_estimate() -> None:
    rng = np.random.default_rng(0)

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.mean(0) - b.mean(0)) @ (a.mean(0) - b.mean(0)))

    a, b = rng.normal(size=(40, 30)), rng.normal(size=(40, 30))
    plain = bootstrap(distance, a, b, resamples=300, seed=0, paired=False)
    centred = centred_bootstrap(distance, a, b, resamples=300, seed=0)
    assert plain.low > plain.value  # why the centring is needed
    assert 0 <= centred.low < centred.value < centred.high
