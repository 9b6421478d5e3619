"""The figures of merit against scikit-learn, and the intervals against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from retinalogos.classifiers import statistics


def estimate(truth, runs, groups, resamples, seed, against=None):
    """Estimates of a classifier, or of its difference to another."""
    asked = {"one": [(truth, runs)]} | ({} if against is None else {"other": [(truth, against)]})
    found = statistics.replicate(asked, groups, resamples, seed)
    return (found["one"] if against is None else found["one"].minus(found["other"])).estimates()


@st.composite
def predictions(draw, most=5):
    """Truth, probabilities with ties, and integer weights."""
    k, n = draw(st.integers(2, most)), draw(st.integers(3, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.integers(0, k, n)
    # Few distinct values, so that ties occur.
    probabilities = rng.integers(1, 5, (n, k)).astype(float)
    probabilities /= probabilities.sum(1, keepdims=True)
    return truth, probabilities, rng.integers(0, 4, n)


@settings(max_examples=60)
@given(predictions())
def test_figures_of_a_weighted_sample_are_those_of_scikit_learn_on_the_repeated_sample(sample):
    truth, probabilities, weights = sample
    found = statistics.figures(truth, probabilities, weights[None].astype(float))
    rows = np.repeat(np.arange(len(truth)), weights)
    if len(rows) == 0:
        assert all(np.isnan(value[0]) for value in found.values())
        return
    y, p = truth[rows], probabilities[rows]
    predicted = p.argmax(1)
    recalls = metrics.recall_score(y, predicted, labels=np.unique(y), average="macro", zero_division=0)
    assert found["balanced_accuracy"][0] == pytest.approx(recalls)
    assert found["accuracy"][0] == pytest.approx(metrics.accuracy_score(y, predicted))
    assert found["macro_f1"][0] == pytest.approx(metrics.f1_score(y, predicted, average="macro", zero_division=0))
    areas = [metrics.roc_auc_score(y == c, p[:, c]) for c in range(p.shape[1]) if 0 < (y == c).sum() < len(y)]
    assert found["auc"][0] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)
    if len({*y, *predicted}) > 1:
        labels = np.arange(p.shape[1])
        expected = metrics.cohen_kappa_score(y, predicted, labels=labels, weights="quadratic")
        assert found["qwk"][0] == pytest.approx(expected, nan_ok=True)
    else:
        assert np.isnan(found["qwk"][0])


@settings(max_examples=30)
@given(predictions(most=2))
def test_sensitivity_and_specificity_are_the_recalls_of_the_two_classes(sample):
    truth, probabilities, _ = sample
    found = statistics.figures(truth, probabilities)
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        if (truth == label).any():
            recall = metrics.recall_score(truth, probabilities.argmax(1), pos_label=label, zero_division=0)
            assert found[name][0] == pytest.approx(recall)
        else:
            assert np.isnan(found[name][0])


@settings(max_examples=30)
@given(predictions())
def test_probabilities_follow_the_frequency_of_classes_by_bayes_rule(sample):
    truth, probabilities, _ = sample
    frequencies = statistics.class_frequencies(np.append(truth, -1), probabilities.shape[1])
    assert frequencies == pytest.approx(np.bincount(truth, minlength=len(frequencies)) / len(truth))
    found = statistics.at_frequencies(probabilities, frequencies)
    assert found.sum(1) == pytest.approx(1)
    first, second = np.argsort(frequencies)[-2:]
    odds = probabilities[:, second] * frequencies[second] * found[:, first]
    assert odds == pytest.approx(probabilities[:, first] * frequencies[first] * found[:, second])
    equal = np.full(len(frequencies), 1 / len(frequencies))
    np.testing.assert_allclose(statistics.at_frequencies(probabilities, equal), probabilities)


def test_resamples_draw_whole_patients():
    groups = np.array(["a", "a", "b", "c", "c", "c"])
    weights = statistics.resampling_weights(groups, 200, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(1) == 3).all()
    assert weights.std() > 0


def _probabilities(truth: np.ndarray, skill: float, rng: np.random.Generator) -> np.ndarray:
    second = 1 / (1 + np.exp(-(skill * (2 * truth - 1) + rng.normal(size=len(truth)))))
    return np.stack([1 - second, second], 1)


def test_interval_of_accuracy_covers_the_true_value_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = []
    for trial in range(200):
        # Both eyes of 60 patients, right or wrong together: the truth is 0.7.
        right = np.repeat(rng.random(60) < 0.7, 2)
        truth = rng.integers(0, 2, 120)
        predicted = np.where(right, truth, 1 - truth)
        found = estimate(truth, [np.eye(2)[predicted]], np.repeat(np.arange(60), 2), 200, trial)["accuracy"]
        covered.append(found.low <= 0.7 <= found.high)
    assert 0.88 < np.mean(covered) < 0.99


def test_ignoring_the_patients_makes_the_interval_too_narrow():
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(60) < 0.7, 2)
    truth = np.zeros(120, int)
    run = np.eye(2)[np.where(right, 0, 1)]
    by_patient = estimate(truth, [run], np.repeat(np.arange(60), 2), 500, 0)["accuracy"]
    by_eye = estimate(truth, [run], np.arange(120), 500, 0)["accuracy"]
    assert by_patient.high - by_patient.low > 1.2 * (by_eye.high - by_eye.low)


def test_paired_difference_is_exact_for_equal_runs_and_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(2)
    truth, groups = rng.integers(0, 2, 150), np.arange(150)
    weak, noise = _probabilities(truth, 0.6, rng), rng.normal(0, 0.02, (150, 1))
    strong = np.clip(weak + np.where(truth == 1, 0.15, -0.15)[:, None] * [-1, 1] + noise * [-1, 1], 0, 1)
    none = estimate(truth, [weak], groups, 100, 0, against=[weak])
    assert all(e.value == e.low == e.high == 0 for e in none.values())
    gain = estimate(truth, [strong], groups, 400, 0, against=[weak])["auc"]
    widths = [(e := estimate(truth, [run], groups, 400, 0)["auc"]).high - e.low for run in (weak, strong)]
    assert gain.value > 0
    assert gain.low > 0
    assert gain.value == pytest.approx(
        metrics.roc_auc_score(truth, strong[:, 1]) - metrics.roc_auc_score(truth, weak[:, 1])
    )
    # Without pairing the variances of the two would add up.
    assert gain.high - gain.low < np.hypot(*widths)


def test_runs_that_disagree_widen_the_pooled_interval():
    rng = np.random.default_rng(3)
    truth, groups = rng.integers(0, 2, 400), np.arange(400)
    good, bad = _probabilities(truth, 2.0, rng), _probabilities(truth, 0.2, rng)
    pooled = estimate(truth, [good, bad], groups, 400, 0)["auc"]
    single = estimate(truth, [good], groups, 400, 0)["auc"]
    assert pooled.value == pytest.approx(
        np.mean([metrics.roc_auc_score(truth, good[:, 1]), metrics.roc_auc_score(truth, bad[:, 1])])
    )
    assert pooled.high - pooled.low > 2 * (single.high - single.low)


def test_two_runs_spread_as_much_as_two_values_do():
    # Without the stretch the spread of the mean of two values would come out smaller by the root of two.
    shares = statistics._run_shares(2, 20000, np.random.default_rng(0))
    assert shares.sum(1) == pytest.approx(1)
    means = shares @ np.array([0.0, 1.0])
    assert means.mean() == pytest.approx(0.5, abs=0.02)
    assert means.std() == pytest.approx(np.std([0.0, 1.0], ddof=1) / np.sqrt(2), abs=0.02)
    assert statistics._run_shares(1, 3, np.random.default_rng(0)).tolist() == [[1.0]] * 3


def test_intervals_end_where_the_range_of_their_figure_does():
    truth, groups = np.arange(40) % 2, np.arange(40)
    right, wrong = np.eye(2)[truth] * 0.8 + 0.1, np.eye(2)[1 - truth] * 0.8 + 0.1
    arms = {"apart": [(truth, [right, wrong])], "turned": [(truth, [wrong, right])]}
    found = statistics.replicate(arms, groups, 400, 0)
    assert (found["apart"].means("auc") > 1).mean() > 0.1, "stretched beyond the range"
    of_arm, change = found["apart"].estimates(), found["apart"].minus(found["turned"]).estimates()
    for name, low in (("auc", 0), ("accuracy", 0), ("sensitivity", 0), ("qwk", -1)):
        assert (of_arm[name].low, of_arm[name].high) == (low, 1), name
        assert (change[name].low, change[name].high) == (low - 1, 1 - low), name


def test_a_figure_that_is_not_defined_has_no_interval_and_the_rest_have():
    truth = np.zeros(20, int)
    found = estimate(truth, [np.tile([0.8, 0.2], (20, 1))], np.arange(20), 50, 0)
    assert np.isnan(found["auc"].value)
    assert found["auc"].low is None
    assert found["accuracy"].value == 1
    assert found["accuracy"].low == 1


def test_intervals_do_not_depend_on_how_the_resamples_are_cut(monkeypatch):
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 50)
    runs = [rng.dirichlet(np.ones(3), 50)]
    parts = [len(part) for part in statistics._weights(np.arange(50), 100, rng)]
    assert parts == [100]
    monkeypatch.setattr(statistics, "CHUNK", 50 * 30)
    parts = [len(part) for part in statistics._weights(np.arange(50), 100, rng)]
    assert parts == [30, 30, 30, 10]
    found = estimate(truth, runs, np.arange(50), 100, 0)
    assert found["auc"].low < found["auc"].value < found["auc"].high


@settings(max_examples=40)
@given(predictions(most=2), st.sampled_from([0.5, 0.8, 0.95]))
def test_sensitivity_at_a_specificity_is_read_off_the_roc_curve(sample, least):
    truth, probabilities, weights = sample
    found = statistics.sensitivity_at(truth == 1, probabilities[:, 1], least, weights[None].astype(float))[0]
    held = weights > 0
    if len(set(truth[held])) < 2:
        assert np.isnan(found)
        return
    false, true, _ = metrics.roc_curve(
        truth, probabilities[:, 1], sample_weight=weights.astype(float), drop_intermediate=False
    )
    assert found == pytest.approx(true[false <= 1 - least + 1e-9].max())


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    # Eight of ten right at 0.7, and all of ten wrong at 0.9.
    probabilities = np.array([[0.7, 0.3]] * 10 + [[0.1, 0.9]] * 10)
    truth = np.array([0] * 8 + [1] * 2 + [0] * 10)
    found = statistics.calibration_error(truth, probabilities, np.ones((1, 20)))[0]
    assert found == pytest.approx((0.1 + 0.9) / 2)
    doubled = np.where(np.arange(20) < 10, 1.0, 0.0)[None]
    assert statistics.calibration_error(truth, probabilities, doubled)[0] == pytest.approx(0.1)


def test_confident_and_right_is_calibrated_and_guessing_with_certainty_is_not():
    rng = np.random.default_rng(5)
    share = rng.random(4000)
    truth = (rng.random(4000) < share).astype(int)
    honest, bold = np.stack([1 - share, share], 1), np.eye(2)[(share > 0.5).astype(int)]
    found = [statistics.calibration_error(truth, p, np.ones((1, 4000)))[0] for p in (honest, bold)]
    assert found[0] < 0.03
    assert found[1] == pytest.approx(0.25, abs=0.03)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_one_after_the_other_as_long_as_each_passes_its_own_bar(p_values):
    corrected = statistics.holm(p_values)
    assert all(new >= old for old, new in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, at in enumerate(order):
            if p_values[at] * (len(p_values) - rank) >= level:
                break
            rejected.add(int(at))
        assert {at for at, p in enumerate(corrected) if p < level} == rejected


def test_what_is_not_defined_does_not_count_as_a_test():
    corrected = statistics.holm([0.01, float("nan"), 0.04])
    assert corrected[0] == pytest.approx(0.02)
    assert np.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.04)


def test_equal_classifiers_are_called_different_about_as_often_as_the_level_says():
    rng = np.random.default_rng(6)
    rejected = []
    for trial in range(200):
        truth, groups = rng.integers(0, 2, 80), np.arange(80) // 2
        one, other = _probabilities(truth, 0.8, rng), _probabilities(truth, 0.8, rng)
        asked = {"one": [(truth, [one])], "other": [(truth, [other])]}
        found = statistics.replicate(asked, groups, 100, trial)
        rejected.append(found["one"].minus(found["other"]).p_value("auc") < 0.05)
    assert 0.01 < np.mean(rejected) < 0.1


def test_a_better_classifier_has_a_small_p_value_and_an_equal_one_none():
    rng = np.random.default_rng(7)
    truth, groups = rng.integers(0, 2, 200), np.arange(200)
    weak, strong = _probabilities(truth, 0.2, rng), _probabilities(truth, 2.0, rng)
    asked = {name: [(truth, [run])] for name, run in (("weak", weak), ("strong", strong), ("again", weak))}
    found = statistics.replicate(asked, groups, 200, 0)
    assert found["strong"].minus(found["weak"]).p_value("auc") < 1e-4
    assert found["again"].minus(found["weak"]).p_value("auc") == 1
    none = statistics.replicate(asked, groups, 0, 0)
    assert np.isnan(none["strong"].minus(none["weak"]).p_value("auc"))


def test_classifiers_of_unequal_runs_are_not_compared():
    truth, run = np.array([0, 1]), np.eye(2)
    with pytest.raises(ValueError, match=r"\[1, 2\] runs"):
        statistics.replicate({"one": [(truth, [run])], "two": [(truth, [run, run])]}, truth, 10, 0)
