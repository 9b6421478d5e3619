"""Figures of merit of a classifier, with bootstrap intervals over patients and paired tests between classifiers.

Everything is a function of weighted observations, so that one matrix of resampling weights gives the figures of all
resamples at once.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from retinalogos.metrics.intervals import LEVEL, Estimate

# Observations × resamples in one go: 32 MiB of float64.
CHUNK = 2**22
# Bins of confidence behind the calibration error: Guo et al., ICML 2017.
CALIBRATION_BINS = 15
# Least value that a figure can have, where that is not 0; the greatest of all is 1.
_LEAST = {"qwk": -1.0}


def confusion_matrices(
    truth: np.ndarray, predicted: np.ndarray, classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weighted counts, resamples × classes (truth) × classes (predicted).

    Args:
        truth: integers (n,), 0 … classes - 1.
        predicted: integers (n,).
        classes: number of classes.
        weights: resamples × n; None is one sample in which every observation counts once.
    """
    weights = np.ones((1, len(truth))) if weights is None else weights
    cell = np.zeros((len(truth), classes * classes))
    cell[np.arange(len(truth)), truth * classes + predicted] = 1
    return (weights @ cell).reshape(len(weights), classes, classes)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share on the diagonal, of matrices … × classes × classes."""
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Mean share found of the classes that occur in truth."""
    occurring = confusion.sum(-1)
    found = np.diagonal(confusion, axis1=-2, axis2=-1) / np.where(occurring > 0, occurring, 1)
    return _ratio(found.sum(-1), (occurring > 0).sum(-1))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 over the classes that occur in truth or prediction; a class that is never right counts 0."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurring = confusion.sum(-1) + confusion.sum(-2)
    f1 = 2 * right / np.where(occurring > 0, occurring, 1)
    return _ratio(f1.sum(-1), (occurring > 0).sum(-1))


def quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights (Cohen, Psychological Bulletin 1968); nan where chance agrees always."""
    classes = confusion.shape[-1]
    distance = (np.arange(classes)[:, None] - np.arange(classes)) ** 2
    total = confusion.sum((-2, -1))
    by_chance = confusion.sum(-1)[..., :, None] * confusion.sum(-2)[..., None, :]
    observed = (distance * confusion).sum((-2, -1)) * total
    return 1 - _ratio(observed, (distance * by_chance).sum((-2, -1)))


def sensitivity(confusion: np.ndarray) -> np.ndarray:
    """Share of class 1 that was found, of 2 × 2 matrices; nan where there is none."""
    return _ratio(confusion[..., 1, 1], confusion[..., 1, :].sum(-1))


def specificity(confusion: np.ndarray) -> np.ndarray:
    """Share of class 0 that was left alone, of 2 × 2 matrices; nan where there is none."""
    return _ratio(confusion[..., 0, 0], confusion[..., 0, :].sum(-1))


def macro_auc(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean one-against-rest area under the ROC curve (resamples,) over the classes that a resample holds.

    A class of which a resample has no image, or nothing else, is left out of its mean; nan where none remains.

    Args:
        truth: integers (n,).
        probabilities: n × classes.
        weights: resamples × n, or None.
    """
    weights = np.ones((1, len(truth))) if weights is None else weights
    areas = np.stack([_auc(truth == c, probabilities[:, c], weights) for c in range(probabilities.shape[1])], axis=-1)
    defined = np.isfinite(areas)
    return _ratio(np.where(defined, areas, 0).sum(-1), defined.sum(-1))


def _auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Mann-Whitney statistic: P(score of a positive > score of a negative), a tie counting half."""
    positives, negatives = _by_score(positive, scores, weights)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + negatives / 2)).sum(1)
    return _ratio(won, positives.sum(1) * negatives.sum(1))


def _by_score(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of positives and of negatives at each distinct score, from the lowest, each resamples × scores."""
    _, tied = np.unique(scores, return_inverse=True)
    order = np.argsort(tied, kind="stable")
    starts = np.flatnonzero(np.diff(tied[order], prepend=-1))
    ordered = weights[:, order]
    return (
        np.add.reduceat(ordered * positive[order], starts, axis=1),
        np.add.reduceat(ordered * ~positive[order], starts, axis=1),
    )


def sensitivity_at(positive: np.ndarray, scores: np.ndarray, least: float, weights: np.ndarray) -> np.ndarray:
    """Largest sensitivity (resamples,) among the thresholds of at least that specificity; nan where a class is missing.

    The threshold is chosen in each resample on the images that are judged, as one reads it off a ROC curve.

    Args:
        positive: bool (n,).
        scores: (n,), larger for positives.
        least: specificity, 0-1.
        weights: resamples × n.
    """
    positives, negatives = _by_score(positive, scores, weights)
    # Found are those that score at least as high as the threshold: one for each distinct score.
    missed = np.cumsum(positives, axis=1) - positives
    below = np.cumsum(negatives, axis=1) - negatives
    ill, healthy = positives.sum(1, keepdims=True), negatives.sum(1, keepdims=True)
    allowed = below >= least * healthy - 1e-9  # sums of weights: not exact
    found = np.where(allowed, ill - missed, 0).max(1)
    return np.where(healthy[:, 0] > 0, _ratio(found, ill[:, 0]), np.nan)


def calibration_error(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error (resamples,): mean distance of confidence from accuracy over bins of confidence.

    Guo et al., ICML 2017. The confidence is the probability of the decision; bins are of equal width.

    Args:
        truth: integers (n,).
        probabilities: n × classes.
        weights: resamples × n.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    of_bin = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.zeros((len(truth), CALIBRATION_BINS))
    gap[np.arange(len(truth)), of_bin] = confidence - right
    return _ratio(np.abs(weights @ gap).sum(1), weights.sum(1))


def class_frequencies(labels: np.ndarray, classes: int) -> np.ndarray:
    """Share of each class (classes,) among the known labels, integers (n,), -1 where unknown."""
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    return counts / max(1, counts.sum())


def at_frequencies(probabilities: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Probabilities where classes are as frequent as told, from those of equally frequent classes.

    Bayes' rule (Saerens et al., Neural Computation 2002, 14(1):21). Where pictures tell little, the most probable of
    equally frequent classes is a matter of chance, and no reader would decide so.

    Args:
        probabilities: n × classes, under equal class frequencies; returned as float64.
        frequencies: (classes,), of which at least one is positive.
    """
    weighted = probabilities.astype(np.float64) * frequencies
    return weighted / weighted.sum(1, keepdims=True).clip(min=np.finfo(np.float64).tiny)


def figures(
    truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None, least_specificity: float = 0.95
) -> dict[str, np.ndarray]:
    """All figures of one classifier, each (resamples,).

    Accuracy, balanced accuracy, macro-F1, macro AUC, quadratic kappa and calibration error, and with two classes
    sensitivity and specificity of class 1 and the sensitivity at a fixed specificity. The decision is the most probable
    class.

    Args:
        truth: integers (n,).
        probabilities: n × classes.
        weights: resamples × n, or None.
        least_specificity: the fixed specificity, 0-1; 0.95 as AIROGS (de Vente et al., IEEE TMI 2024).
    """
    weights = np.ones((1, len(truth))) if weights is None else weights
    classes = probabilities.shape[1]
    confusion = confusion_matrices(truth, probabilities.argmax(1), classes, weights)
    found = {
        "accuracy": accuracy(confusion),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        # Of two classes one area is the other.
        "auc": macro_auc(truth, probabilities, weights)
        if classes > 2
        else _auc(truth == 1, probabilities[:, 1], weights),
        "qwk": quadratic_kappa(confusion),
        "ece": calibration_error(truth, probabilities, weights),
    }
    if classes == 2:
        found |= {
            "sensitivity": sensitivity(confusion),
            "specificity": specificity(confusion),
            "sensitivity_at_specificity": sensitivity_at(truth == 1, probabilities[:, 1], least_specificity, weights),
        }
    return found


# One question to a classifier: truth (n,) and the probabilities of each run, n × classes. Several that are asked of the
# same images (findings) are one task, whose figures are their means.
Question = tuple[np.ndarray, Sequence[np.ndarray]]


@dataclass(frozen=True)
class Replicates:
    """Figures of a classifier trained several times.

    Attributes:
        values: figure → (runs,), on the images as they are.
        draws: figure → resamples × runs, on resampled patients.
        shares: resamples × runs, how much of each resample each run is.
        n: images.
        differences: whether these are differences of two classifiers' figures.
    """

    values: Mapping[str, np.ndarray]
    draws: Mapping[str, np.ndarray]
    shares: np.ndarray
    n: int
    differences: bool = False

    def minus(self, other: "Replicates") -> "Replicates":
        """Differences, in pairs: same patients, same runs."""
        return Replicates(
            {name: values - other.values[name] for name, values in self.values.items()},
            {name: draws - other.draws[name] for name, draws in self.draws.items()},
            self.shares,
            self.n,
            differences=True,
        )

    def run(self, number: int) -> "Replicates":
        """One of the runs alone."""
        return Replicates(
            {name: values[[number]] for name, values in self.values.items()},
            {name: draws[:, [number]] for name, draws in self.draws.items()},
            np.ones((len(self.shares), 1)),
            self.n,
            self.differences,
        )

    def means(self, name: str) -> np.ndarray:
        """Resampled means over runs of a figure (resamples,), without those that are not defined."""
        means = (self.draws[name] * self.shares).sum(1)
        return means[np.isfinite(means)]

    def estimates(self) -> dict[str, Estimate]:
        """Every figure as the mean over runs, with its 95 % percentile interval within the range of the figure.

        Stretched shares of runs (:func:`_run_shares`) are negative where a resample lacks a run, so that its mean can
        leave the range of the figure. The p-value goes by the whole spread.
        """
        return {
            name: _interval(float(values.mean()), self.means(name), self.n, self._range(name))
            for name, values in self.values.items()
        }

    def _range(self, name: str) -> tuple[float, float]:
        low = _LEAST.get(name, 0.0)
        return (low - 1, 1 - low) if self.differences else (low, 1.0)

    def p_value(self, name: str) -> float:
        """Probability of a mean as far from zero as this, were it zero: two-sided, by the spread of the resamples.

        The normal reference of Robin et al., BMC Bioinformatics 2011, 12:77 (DeLong's test by bootstrap); nan where
        there are no resamples.
        """
        value, means = float(self.values[name].mean()), self.means(name)
        if len(means) < 2 or not np.isfinite(value):
            return float("nan")
        spread = float(means.std(ddof=1))
        if spread == 0:
            return float(value == 0)
        return math.erfc(abs(value) / spread / math.sqrt(2))


# Resampling weights, resamples × observations (None: each counts once) → figures, each resamples × runs.
Figures = Callable[[np.ndarray | None], Mapping[str, np.ndarray]]


def replicate(
    classifiers: Mapping[str, Sequence[Question]],
    groups: np.ndarray,
    resamples: int,
    seed: int,
    least_specificity: float = 0.95,
) -> dict[str, Replicates]:
    """Figures of several classifiers on the same images and on the same resamples of them.

    Args:
        classifiers: name → what was asked and answered; all have the same number of runs.
        groups: patient of each observation (n,).
        resamples: number of resamples; 0 gives no intervals.
        seed: of the resampling.
        least_specificity: see :func:`figures`.
    """
    runs = {len(probabilities) for questions in classifiers.values() for _, probabilities in questions}
    if len(runs) != 1:
        raise ValueError(f"classifiers of {sorted(runs)} runs cannot be resampled in pairs")
    of_name = {name: partial(_stack, asked, least=least_specificity) for name, asked in classifiers.items()}
    return resample(of_name, runs.pop(), groups, resamples, seed)


def resample(
    of_name: Mapping[str, Figures], runs: int, groups: np.ndarray, resamples: int, seed: int
) -> dict[str, Replicates]:
    """Figures of several models on the same images and on the same resamples of them.

    A resample draws patients, and, where there are several runs (training seeds), runs too, so that an interval covers
    both other patients and other trainings.

    Args:
        of_name: name of a model → its figures.
        runs: number of runs, the same of all models.
        groups: patient of each observation (n,).
        resamples: number of resamples; 0 gives no intervals.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, Mapping[str, np.ndarray]]] = []
    shares = [np.empty((0, runs))]
    for weights in _weights(groups, resamples, rng):
        shares.append(_run_shares(runs, len(weights), rng))
        drawn.append({name: figures_of(weights) for name, figures_of in of_name.items()})
    share = np.concatenate(shares)
    return {
        name: Replicates(
            {figure: stacked[0] for figure, stacked in plain.items()},
            {figure: np.concatenate([part[name][figure] for part in drawn] or [stacked[:0]])
             for figure, stacked in plain.items()},
            share,
            len(groups),
        )
        for name, plain in ((name, figures_of(None)) for name, figures_of in of_name.items())
    }  # fmt: skip


def _run_shares(runs: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How much of each resample each run is, resamples × runs, of sum 1.

    Runs are drawn with replacement. Of so few the spread would come out too small by (runs − 1) / runs (Hesterberg, The
    American Statistician 2015, 69:371): deviations from equal shares are stretched by the root of that.
    """
    drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
    stretch = math.sqrt(runs / (runs - 1)) if runs > 1 else 1.0
    return 1 / runs + stretch * (drawn - 1 / runs)


def _stack(questions: Sequence[Question], weights: np.ndarray | None, least: float) -> dict[str, np.ndarray]:
    """Figures, resamples × runs; the mean over the questions for which they are defined."""
    asked = []
    for truth, runs in questions:
        found = [figures(truth, run, weights, least) for run in runs]
        asked.append({name: np.stack([of_run[name] for of_run in found], axis=-1) for name in found[0]})
    return mean_figures(asked)


def mean_figures(asked: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Each figure's mean over those in whose place it is defined; nan where none is."""
    if len(asked) == 1:
        return asked[0]
    mean = {}
    for name in asked[0]:
        of_name = np.stack([found[name] for found in asked])
        defined = np.isfinite(of_name)
        mean[name] = _ratio(np.where(defined, of_name, 0).sum(0), defined.sum(0))
    return mean


def _weights(groups: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The resampling weights in parts that fit into memory."""
    size = max(1, CHUNK // max(len(groups), 1))
    for start in range(0, resamples, size):
        yield resampling_weights(groups, min(size, resamples - start), rng)


def resampling_weights(groups: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each observation stands in each bootstrap resample, resamples × n.

    Whole groups (patients) are drawn with replacement: the two eyes of a patient are not independent (cluster
    bootstrap: Field and Welsh, J. R. Statist. Soc. B 2007).
    """
    names, member = np.unique(groups, return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return times[:, member].astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, Scand. J. Statist. 1979, 6:65); nan stays and does not count."""
    counted = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
    corrected, largest = [float("nan")] * len(p_values), 0.0
    for rank, (p, at) in enumerate(counted):
        largest = max(largest, min(1.0, p * (len(counted) - rank)))
        corrected[at] = largest
    return corrected


def _interval(value: float, draws: np.ndarray, n: int, within: tuple[float, float]) -> Estimate:
    if draws.size == 0 or not np.isfinite(value):
        return Estimate(value, None, None, n)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).clip(*within)
    return Estimate(value, float(low), float(high), n)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, nan where the denominator is zero."""
    below = np.asarray(below, float)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
