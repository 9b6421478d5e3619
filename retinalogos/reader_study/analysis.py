"""What a reader study found: figures with intervals, and a sentence that follows from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, permutation_test

from retinalogos.errors import DataError
from retinalogos.metrics.agreement import counts, kappa
from retinalogos.metrics.intervals import LEVEL, Estimate, undefined
from retinalogos.reader_study.answers import Answer, Book, read_books
from retinalogos.reader_study.design import ASPECTS, KINDS, ROLES, SCORES, Kind, Study, open_study

# Two-sided tests; permutations give p to within 0.002 at 0.05 (binomial error).
_SIGNIFICANT, _PERMUTATIONS = 0.05, 9999
# Readings × resamples in one go: 32 MiB of float64.
_CHUNK = 2**22

# RetinaLogos (arXiv 2505.12887), as published: share judged real, and mean ratings. The numbers of pictures are not
# published; 18 of 28 and 18 of 29 are the smallest that give these shares.
PAPER: dict[str, Any] = {
    "judged_real": {"real": 0.6429, "synthetic": 0.6207},
    "counts": {"real": (18, 28), "synthetic": (18, 29)},
    "ratings": {
        "disc": (2.11, 2.41),
        "macula": (2.10, 2.45),
        "vessels": (2.21, 2.55),
        "nerve_fibre_layer": (2.46, 2.41),
        "lesions": (1.46, 1.90),
        "overall": (2.07, 2.28),
    },
}


@dataclass(frozen=True)
class Readings:
    """First readings of R readers and N pictures; nan where there is no answer.

    Attributes:
        synthetic_n: what the pictures are.
        judged_rn: 1 where the reader took it for synthetic, 0 for real.
        ratings_rn: scores 1-3 by aspect.
        seconds_rn: time of the answer.
        again: (first, second) answer of one reader to one picture.
    """

    synthetic_n: np.ndarray
    judged_rn: np.ndarray
    ratings_rn: dict[str, np.ndarray]
    seconds_rn: np.ndarray
    again: list[tuple[Answer, Answer]]

    @classmethod
    def of(cls, study: Study, books: Sequence[Book]) -> "Readings":
        """The answers of all readers in the order of the pictures of the study."""
        place = {picture.name: n for n, picture in enumerate(study.pictures)}
        names = ("judged", "seconds", *ASPECTS)
        values = {name: np.full((len(books), len(place)), np.nan) for name in names}
        again = []
        for r, book in enumerate(books):
            first: dict[str, Answer] = {}
            for answer in book.answers:
                if answer.repeat:
                    again.append((first[answer.picture], answer))
                    continue
                first[answer.picture] = answer
                n = place[answer.picture]
                values["judged"][r, n] = KINDS.index(answer.judged)
                values["seconds"][r, n] = np.nan if answer.seconds is None else answer.seconds
                for aspect in ASPECTS:
                    score = getattr(answer.ratings, aspect)
                    values[aspect][r, n] = np.nan if score is None else score
        synthetic = np.array([picture.kind == "synthetic" for picture in study.pictures])
        ratings = {aspect: values[aspect] for aspect in ASPECTS}
        return cls(synthetic, values["judged"], ratings, values["seconds"], again)

    def of_reader(self, r: int) -> "Readings":
        """Those of one reader."""
        ratings = {aspect: values[r : r + 1] for aspect, values in self.ratings_rn.items()}
        return Readings(self.synthetic_n, self.judged_rn[r : r + 1], ratings, self.seconds_rn[r : r + 1], [])

    def of_pictures(self, which_n: np.ndarray) -> "Readings":
        """Those of some pictures."""
        ratings = {aspect: values[:, which_n] for aspect, values in self.ratings_rn.items()}
        judged, seconds = self.judged_rn[:, which_n], self.seconds_rn[:, which_n]
        return Readings(self.synthetic_n[which_n], judged, ratings, seconds, self.again)


# Readings, weights of readers (resamples × R) and of pictures (resamples × N) → (resamples,).
Statistic = Callable[[Readings, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Figure:
    """A statistic, the kind of pictures that it is about (None: both) and the values that it can take."""

    of: Statistic
    kind: Kind | None
    bounds: tuple[float, float]


def _mean(values_rn: np.ndarray, of_n: np.ndarray, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
    """Weighted mean of the answers that there are to the pictures in ``of_n``; nan where there is none."""
    known_rn = np.isfinite(values_rn) & of_n
    total_b = ((readers_br @ known_rn) * pictures_bn).sum(1)
    sum_b = ((readers_br @ np.where(known_rn, values_rn, 0.0)) * pictures_bn).sum(1)
    return np.divide(sum_b, total_b, out=np.full(len(total_b), np.nan), where=total_b > 0)


def sensitivity(readings: Readings, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
    """Share of synthetic pictures judged synthetic."""
    return _mean(readings.judged_rn, readings.synthetic_n, readers_br, pictures_bn)


def specificity(readings: Readings, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
    """Share of real pictures judged real."""
    return 1 - _mean(readings.judged_rn, ~readings.synthetic_n, readers_br, pictures_bn)


def fooled(readings: Readings, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
    """Share of synthetic pictures judged real."""
    return 1 - sensitivity(readings, readers_br, pictures_bn)


def accuracy(readings: Readings, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
    """Mean of sensitivity and specificity: one half for who cannot tell, whatever they prefer to say."""
    return (sensitivity(readings, readers_br, pictures_bn) + specificity(readings, readers_br, pictures_bn)) / 2


def gap(readings: Readings, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
    """Share judged real of real pictures less that of synthetic ones (Youden's J): 0 for who cannot tell."""
    return 2 * accuracy(readings, readers_br, pictures_bn) - 1


FIGURES = {
    "accuracy": Figure(accuracy, None, (0, 1)),
    "sensitivity": Figure(sensitivity, "synthetic", (0, 1)),
    "specificity": Figure(specificity, "real", (0, 1)),
    "synthetic_judged_real": Figure(fooled, "synthetic", (0, 1)),
    "gap": Figure(gap, None, (-1, 1)),
}


def rating(aspect: str, kind: Kind) -> Figure:
    """Mean score of an aspect of the pictures of a kind."""

    def mean(readings: Readings, readers_br: np.ndarray, pictures_bn: np.ndarray) -> np.ndarray:
        of_n = readings.synthetic_n if kind == "synthetic" else ~readings.synthetic_n
        return _mean(readings.ratings_rn[aspect], of_n, readers_br, pictures_bn)

    return Figure(mean, kind, (min(SCORES), max(SCORES)))


def rating_difference(aspect: str) -> Figure:
    """Mean score of synthetic pictures less that of real ones."""
    synthetic, real = rating(aspect, "synthetic"), rating(aspect, "real")
    most = max(SCORES) - min(SCORES)
    return Figure(lambda *of: synthetic.of(*of) - real.of(*of), None, (-most, most))


def estimate(
    figure: Figure, readings: Readings, *, resamples: int, seed: int, readers: bool, pictures: bool
) -> Estimate:
    """A figure with its 95 % bootstrap interval over pictures, readers or both; n counts pictures.

    Pictures are drawn with replacement within each kind, with all that was said of them; readers with all that they
    said. Both at once is the bootstrap of crossed factors (Owen, Annals of Applied Statistics 2007, 1(2):386), which is
    somewhat wide. Where the figure is at an end of what it can be (each reader was always right), resamples know no
    doubt: the interval is then the exact binomial one of as many pictures.

    Args:
        figure: what to estimate.
        readings: of all readers.
        resamples: number of resamples.
        seed: of the resampling.
        readers, pictures: what is drawn anew. Where there is one reader only, none can be: no interval then.
    """
    readings = readings.of_pictures(np.isfinite(readings.judged_rn).any(0))
    n_readers, n_pictures = readings.judged_rn.shape
    n = n_pictures if figure.kind is None else int((readings.synthetic_n == (figure.kind == "synthetic")).sum())
    value = float(figure.of(readings, np.ones((1, n_readers)), np.ones((1, n_pictures)))[0])
    if not np.isfinite(value):
        return undefined(n)
    if readers and n_readers < 2:
        return Estimate(value, None, None, n)
    if value in figure.bounds:
        bottom, top = figure.bounds
        exact = binomtest(n if value == top else 0, n).proportion_ci(LEVEL, method="exact")
        return Estimate(value, bottom + exact.low * (top - bottom), bottom + exact.high * (top - bottom), n)
    rng = np.random.default_rng(seed)
    draws = []
    chunk = max(1, _CHUNK // readings.judged_rn.size)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        readers_br, pictures_bn = np.ones((size, n_readers)), np.ones((size, n_pictures))
        if readers:
            readers_br = rng.multinomial(n_readers, np.full(n_readers, 1 / n_readers), size).astype(float)
        if pictures:
            for kind in np.unique(readings.synthetic_n):
                members = np.flatnonzero(readings.synthetic_n == kind)
                pictures_bn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size)
        draws.append(figure.of(readings, readers_br, pictures_bn))
    return _percentiles(value, np.concatenate(draws), n)


def _percentiles(value: float, draws: np.ndarray, n: int) -> Estimate:
    if not np.isfinite(value):
        return undefined(n)
    draws = draws[np.isfinite(draws)]
    if draws.size == 0 or draws.min() == draws.max():
        return Estimate(value, None, None, n)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), n)


def against_chance(readings: Readings, seed: int) -> float:
    """Probability of an accuracy as far from one half as this where readers cannot tell; two-sided.

    The labels of the pictures are permuted: each keeps what all readers said of it, so neither a reader's preference
    for one answer nor readers who fall for the same pictures count as knowledge. nan where one kind was not seen.
    """
    known_n = np.isfinite(readings.judged_rn).any(0)
    said_n = np.nansum(readings.judged_rn[:, known_n], 0)
    answers_n = np.isfinite(readings.judged_rn[:, known_n]).sum(0)
    labels_n = readings.synthetic_n[known_n].astype(float)
    if labels_n.size == 0 or labels_n.min() == labels_n.max():
        return float("nan")

    def statistic(labels: np.ndarray, axis: int = -1) -> np.ndarray:
        found = (said_n * labels).sum(axis) / (answers_n * labels).sum(axis)
        wrong = (said_n * (1 - labels)).sum(axis) / (answers_n * (1 - labels)).sum(axis)
        return (1 + found - wrong) / 2

    # Every permutation leaves the statistic as it is.
    if said_n.min() == said_n.max() and answers_n.min() == answers_n.max():
        return 1.0
    return float(
        permutation_test(
            (labels_n,),
            statistic,
            permutation_type="pairings",
            n_resamples=_PERMUTATIONS,
            vectorized=True,
            rng=np.random.default_rng(seed),
        ).pvalue
    )


def agreement(counts_nk: np.ndarray, quadratic: bool, resamples: int, seed: int) -> dict[str, Estimate]:
    """Share of agreement and kappa with their intervals over pictures (rows of ``counts_nk``)."""
    usable = counts_nk[counts_nk.sum(1) >= 2]
    n = len(usable)
    if n == 0:
        return {"agreement": undefined(), "kappa": undefined()}
    weights_bn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), resamples).astype(float)
    values, draws = kappa(usable, None, quadratic), kappa(usable, weights_bn, quadratic)
    names = ("agreement", "kappa")
    return {name: _percentiles(float(v[0]), d, n) for name, v, d in zip(names, values, draws, strict=True)}


def analyse(folder: Path, resamples: int, seed: int) -> dict[str, Any]:
    """All that a study found, ready for JSON; an undefined figure is null.

    Args:
        folder: of the study.
        resamples: of every bootstrap.
        seed: of resampling and permutations.

    Raises:
        UsageError: no study is there.
        DataError: nobody has answered anything yet, or a file is damaged.
    """
    study = open_study(folder)
    books = [book for book in read_books(folder, study) if book.answers]
    if not books:
        raise DataError(f"{folder}: nobody has answered anything yet; `retinalogos reader-study serve {folder}`")
    readings = Readings.of(study, books)

    def told(figure: Figure) -> dict[str, Any]:
        drawn = {"pictures": (False, True), "readers": (True, False), "readers_and_pictures": (True, True)}
        return {
            name: estimate(
                figure, readings, resamples=resamples, seed=seed, readers=readers, pictures=pictures
            ).as_json()
            for name, (readers, pictures) in drawn.items()
        }

    def of_one(name: str, r: int) -> dict[str, Any]:
        one = readings.of_reader(r)
        return estimate(FIGURES[name], one, resamples=resamples, seed=seed, readers=False, pictures=True).as_json()

    p = against_chance(readings, seed)
    found: dict[str, Any] = {
        "study": {
            "identity": study.identity,
            "pictures": {kind: sum(picture.kind == kind for picture in study.pictures) for kind in KINDS},
            "size": study.size,
            "matched": study.matched,
            "sources": sorted({picture.source for picture in study.pictures if picture.kind == "real"}),
            "generators": sorted({picture.generator for picture in study.pictures if picture.generator}),
        },
        "readers": [
            {
                "name": book.reader.name,
                "role": book.reader.role,
                "answered": len(book.answers),
                "of": len(book.order),
                "median_seconds": _median(readings.seconds_rn[r]),
                **{name: of_one(name, r) for name in ("accuracy", "sensitivity", "specificity")},
            }
            for r, book in enumerate(books)
        ],
        "verdict": {name: told(figure) for name, figure in FIGURES.items()},
        "p_against_chance": None if np.isnan(p) else p,
        "agreement": _agreements(readings, resamples, seed),
        "ratings": {
            aspect: {
                **{kind: told(rating(aspect, kind)) for kind in KINDS},
                "difference": told(rating_difference(aspect)),
                "not_rated": {
                    kind: _not_rated(readings, aspect, readings.synthetic_n == (kind == "synthetic")) for kind in KINDS
                },
            }
            for aspect in ASPECTS
        },
        "paper": _paper(),
    }
    return found | {"conclusion": _conclusion(found), "cautions": _cautions(found)}


def headline(figure: dict[str, Any]) -> dict[str, Any]:
    """The estimate to be told first: over readers and pictures where there are several readers, else over pictures."""
    both = figure["readers_and_pictures"]
    return figure["pictures"] if both["low"] is None else both


def _agreements(readings: Readings, resamples: int, seed: int) -> dict[str, Any]:
    """Between readers and of each reader at first and second sight, for the verdict and every aspect."""
    found = {}
    for name in ("judged", *ASPECTS):
        ordered = name != "judged"
        between = readings.ratings_rn[name] - 1 if ordered else readings.judged_rn
        categories = len(SCORES) if ordered else len(KINDS)
        within = np.array([[_category(answer, name) for answer in pair] for pair in readings.again]).reshape(-1, 2).T
        found[name] = {
            "between_readers": _as_json(agreement(counts(between, categories), ordered, resamples, seed)),
            "within_reader": _as_json(agreement(counts(within, categories), ordered, resamples, seed)),
        }
    return found


def _category(answer: Answer, name: str) -> float:
    if name == "judged":
        return float(KINDS.index(answer.judged))
    score = getattr(answer.ratings, name)
    return np.nan if score is None else score - 1.0


def _as_json(estimates: dict[str, Estimate]) -> dict[str, Any]:
    return {name: one.as_json() for name, one in estimates.items()}


def _not_rated(readings: Readings, aspect: str, of_n: np.ndarray) -> float | None:
    """Share of answers without a score."""
    answered = np.isfinite(readings.judged_rn) & of_n
    if not answered.any():
        return None
    return float(np.isnan(readings.ratings_rn[aspect][answered]).mean())


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _paper() -> dict[str, Any]:
    """The published figures, with Wilson intervals of the counts that they imply."""
    shares = {}
    for kind, (k, n) in PAPER["counts"].items():
        interval = binomtest(k, n).proportion_ci(LEVEL, method="wilson")
        shares[kind] = {
            "value": PAPER["judged_real"][kind],
            "low": float(interval.low),
            "high": float(interval.high),
            "n": n,
        }
    real, synthetic = (PAPER["judged_real"][kind] for kind in KINDS)
    return {
        "judged_real": shares,
        "accuracy": (real + 1 - synthetic) / 2,
        "gap": real - synthetic,
        "ratings": {aspect: dict(zip(KINDS, means, strict=True)) for aspect, means in PAPER["ratings"].items()},
    }


def _conclusion(found: dict[str, Any]) -> str:
    """What the test against chance allows to say, and no more."""
    accuracy_found = headline(found["verdict"]["accuracy"])
    value, p = accuracy_found["value"], found["p_against_chance"]
    if value is None or p is None:
        return "Too little was answered: both real and synthetic pictures must have been judged."
    low, high = accuracy_found["low"], accuracy_found["high"]
    interval = (
        "no interval, since all was judged the same" if low is None else f"interval {_percent(low)} to {_percent(high)}"
    )
    said = f"accuracy {_percent(value)}, {interval}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}; guessing: 50 %"
    if p >= _SIGNIFICANT:
        reach = "" if low is None else f": the interval reaches to {_percent(max(high, 1 - low))}"
        return (
            f"It is not shown that the readers can tell synthetic from real pictures ({said}). That is no proof that "
            f"they cannot{reach}."
        )
    if value > 0.5:
        return f"The readers tell synthetic from real pictures better than by guessing ({said})."
    return f"The readers tell synthetic from real pictures, but take each for the other ({said})."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cautions(found: dict[str, Any]) -> list[str]:
    """What a reader of the results has to know before they are believed."""
    readers, study = found["readers"], found["study"]
    said = []
    roles = [reader["role"] for reader in readers]
    counted = ", ".join(f"{roles.count(role)} {role}" for role in ROLES if role in roles)
    said.append(f"Who read, by their own account: {counted}.")
    if "ophthalmologist" not in roles:
        said.append("No ophthalmologist took part: this says nothing of what clinicians would see.")
    if len(readers) == 1:
        said.append("One reader only: the intervals are over pictures, and other readers may see otherwise.")
    elif len(readers) < 5:
        said.append(
            f"{len(readers)} readers: how far readers differ is only roughly known; intervals over them are too narrow."
        )
    unfinished = [reader["name"] for reader in readers if reader["answered"] < reader["of"]]
    if unfinished:
        said.append(f"Not finished: {', '.join(unfinished)}.")
    if not study["matched"]:
        said.append(
            "Real and synthetic pictures differ in their mix of grades and glaucoma: disease may have told them apart."
        )
    if "phantom" in study["sources"]:
        said.append("The pictures that count as real are drawn by a program (the phantom): no photograph was judged.")
    return said
