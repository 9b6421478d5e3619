from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinalogos.metrics.agreement import counts, kappa, krippendorff

# Fleiss, Psychological Bulletin 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses; kappa .430.
FLEISS = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 00501 30012 51000 02040 10203
00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""
# The example of the article on Fleiss' kappa in Wikipedia: 10 subjects, 14 raters, 5 categories; kappa .210.
EXAMPLE = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def test_published_examples() -> None:
    fleiss = np.array([[int(digit) for digit in row] for row in FLEISS.split()])
    assert fleiss.shape == (30, 5)
    assert (fleiss.sum(1) == 6).all()
    agreement, value = kappa(fleiss)
    assert agreement[0] == pytest.approx(0.5556, abs=5e-5)
    assert value[0] == pytest.approx(0.430, abs=5e-4)
    agreement, value = kappa(np.array(EXAMPLE))
    assert agreement[0] == pytest.approx(0.378, abs=5e-4)
    assert value[0] == pytest.approx(0.210, abs=5e-4)


def by_pairs(judged: np.ndarray, categories: int, quadratic: bool) -> tuple[float, float]:
    """From the definition: every pair of readers of every picture, and of two answers drawn by lot."""

    def credit(a: float, b: float) -> float:
        return 1 - ((a - b) / (categories - 1)) ** 2 if quadratic else float(a == b)

    columns = [column[np.isfinite(column)] for column in judged.T]
    columns = [column for column in columns if len(column) >= 2]
    agreed = np.mean([np.mean([credit(a, b) for a, b in combinations(column, 2)]) for column in columns])
    share = np.mean([[np.mean(column == k) for k in range(categories)] for column in columns], axis=0)
    chance = sum(share[k] * share[m] * credit(k, m) for k in range(categories) for m in range(categories))
    return float(agreed), float("nan") if chance > 1 - 1e-12 else float((agreed - chance) / (1 - chance))


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 12), st.integers(2, 4), st.booleans())
def test_equals_the_definition_with_gaps_and_weights(seed, readers, pictures, categories, quadratic) -> None:
    rng = np.random.default_rng(seed)
    judged = rng.integers(0, categories, (readers, pictures)).astype(float)
    judged[rng.random(judged.shape) < 0.2] = np.nan
    judged[:2, 0] = 0  # one picture at least has two readers
    table = counts(judged, categories)
    assert np.array_equal(table.sum(1), np.isfinite(judged).sum(0))
    assert np.ravel(kappa(table, None, quadratic)) == pytest.approx(
        by_pairs(judged, categories, quadratic), nan_ok=True
    )
    # A weight is a repetition.
    drawn = rng.integers(0, 3, pictures)
    drawn[0] = 1
    weighted = kappa(table, drawn[None].astype(float), quadratic)
    assert np.ravel(weighted) == pytest.approx(
        by_pairs(np.repeat(judged, drawn, 1), categories, quadratic), nan_ok=True
    )


def test_full_agreement_chance_and_contradiction() -> None:
    assert kappa(np.array([[3, 0], [0, 3]]))[1][0] == 1
    assert np.isnan(kappa(np.array([[3, 0], [3, 0]]))[1][0]), "everyone always said the same: chance explains all"
    assert kappa(np.array([[1, 1], [1, 1]]))[1][0] == -1
    assert np.isnan(kappa(np.array([[1, 0], [0, 1]]))).all(), "one reader"


def judged(rows: list[str]) -> np.ndarray:
    return np.array([[np.nan if digit == "." else int(digit) for digit in row] for row in rows])


def test_alpha_of_krippendorffs_own_examples() -> None:
    """K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", University of Pennsylvania 2011, A and C."""
    two = ["0100000010", "1110010000"]
    assert krippendorff(counts(judged(two), 2)) == pytest.approx(0.095, abs=5e-4)
    four = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    assert krippendorff(counts(judged(four) - 1, 5)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_not_defined_where_all_say_the_same_or_nobody_was_two() -> None:
    assert np.isnan(krippendorff(np.array([[2, 0, 0], [3, 0, 0]])))
    assert np.isnan(krippendorff(np.array([[1, 0, 0], [0, 1, 0]])))
    assert krippendorff(np.array([[2, 0, 0], [0, 2, 0]])) == 1
