"""Readers of statements: what a picture contradicts is found, no patient judged by who saw it, silence no error."""

import numpy as np
import pytest

from retinalogos.captions import statements
from retinalogos.captions.configuration import StatementsConfig
from retinalogos.captions.statements import probability_right, statements_of

CONFIG = StatementsConfig(folds=3, inverse_penalty=0.1, least_error=0.003, min_probability=0.5)
SIDES, GRADES = ("left", "right"), ("mild", "moderate", "severe")


def text(side: int, grade: int, drusen: bool) -> str:
    tail = " Drusen are seen." if drusen else ""
    return f"{SIDES[side].title()} eye with {GRADES[grade]} non-proliferative diabetic retinopathy.{tail}"


TEXTS = [text(side, grade, drusen) for side in range(2) for grade in range(3) for drusen in (False, True)]


def planted(kind: str) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Pictures of two a patient that show the side clearly, grade and drusen well; every tenth caption is wrong."""
    draw = np.random.default_rng(0)
    side, grade, drusen = draw.integers(0, 2, 400), draw.integers(0, 3, 400), draw.integers(0, 2, 400)
    signs = np.stack([3 * (2 * side - 1), 3 * (grade - 1), 2 * (2 * drusen - 1)], 1)
    images = np.concatenate([signs + draw.normal(size=signs.shape), draw.normal(size=(400, 5))], 1)
    wrong = np.arange(400) % 10 == 0
    if kind == "side":
        side = np.where(wrong, 1 - side, side)
    elif kind == "grade":
        grade = np.where(wrong, 2 - grade, grade)
        wrong &= grade != 1
    elif kind == "drusen":
        wrong &= drusen == 0
        drusen = np.where(wrong, 1, drusen)
    else:
        wrong[:] = False
    said = side * 6 + grade * 2 + drusen
    return images, np.stack([np.arange(400), said], 1), [str(i // 2) for i in range(400)], wrong


@pytest.mark.parametrize(("kind", "recall", "alarms"), [("side", 0.95, 4), ("grade", 0.9, 12), ("none", 0, 8)])
def test_what_is_improbable_was_planted(kind, recall, alarms):
    images, pairs, groups, wrong = planted(kind)
    right = probability_right(images, pairs, TEXTS, groups, CONFIG, seed=1)
    dropped = right < CONFIG.min_probability
    assert (dropped & wrong).sum() >= recall * wrong.sum()
    assert (dropped & ~wrong).sum() <= alarms
    assert np.array_equal(right, probability_right(images, pairs, TEXTS, groups, CONFIG, seed=1))


def test_a_finding_that_is_not_seen_comes_last_and_one_that_is_unsaid_is_no_error():
    images, pairs, groups, wrong = planted("drusen")
    right = probability_right(images, pairs, TEXTS, groups, CONFIG, seed=1)
    ranks = right.argsort().argsort()
    assert ranks[wrong].mean() < 0.1 * len(ranks)
    silent = [text(side, grade, drusen=False) for side in range(2) for grade in range(3) for _ in range(2)]
    assert (probability_right(images, pairs, silent, groups, CONFIG, seed=1) > 0.5).mean() > 0.97


def test_no_reader_sees_a_patient_that_it_judges(monkeypatch):
    images, pairs, groups, _ = planted("none")
    images[:, 0] = [int(group) for group in groups]
    seen: list[tuple[set[float], set[float]]] = []

    class Reader:
        def fit(self, features: np.ndarray, said: np.ndarray) -> None:
            self.trained, self.values = set(features[:, 0]), len(np.unique(said))

        def predict_proba(self, features: np.ndarray) -> np.ndarray:
            seen.append((self.trained, set(features[:, 0])))
            return np.full((len(features), self.values), 1 / self.values)

    monkeypatch.setattr(statements, "make_pipeline", lambda *_: Reader())
    probability_right(images, pairs, TEXTS, groups, CONFIG, seed=0)
    assert len(seen) == CONFIG.folds * 3  # eye, grade, drusen
    assert all(trained and judged and not trained & judged for trained, judged in seen)


def test_what_nobody_states_or_one_patient_alone_is_not_judged():
    images, pairs, groups, _ = planted("side")
    assert (probability_right(images, pairs, ["A fundus photograph."] * 12, groups, CONFIG, 0) == 1).all()
    assert (probability_right(images, pairs, TEXTS, ["one"] * 400, CONFIG, 0) == 1).all()


def test_statements_are_those_of_the_text_and_contradictions_are_none():
    assert statements_of(text(0, 2, drusen=True)) == {"eye": "left", "grade": "3", "finding drusen": "said"}
    assert statements_of("Left eye. Right eye. No glaucoma, and no drusen.") == {"glaucoma": "no"}
