"""Figures of merit of a classifier, with bootstrap intervals over patients.

Everything is a function of weighted observations, so that one matrix of resampling weights gives the figures of all
resamples at once.
"""

from collections.abc import Sequence

import numpy as np

from retinalogos.metrics.intervals import LEVEL, Estimate

# Observations × resamples in one go: 32 MiB of float64.
CHUNK = 2**22


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
    _, tied = np.unique(scores, return_inverse=True)
    order = np.argsort(tied, kind="stable")
    starts = np.flatnonzero(np.diff(tied[order], prepend=-1))
    negatives = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    positives = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + negatives / 2)).sum(1)
    return _ratio(won, positives.sum(1) * negatives.sum(1))


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


def figures(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """All figures of one classifier, each (resamples,).

    Accuracy, macro-F1, macro AUC and quadratic kappa, and with two classes sensitivity and specificity of class 1. The
    decision is the most probable class.

    Args:
        truth: integers (n,).
        probabilities: n × classes.
        weights: resamples × n, or None.
    """
    classes = probabilities.shape[1]
    confusion = confusion_matrices(truth, probabilities.argmax(1), classes, weights)
    found = {
        "accuracy": accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "auc": macro_auc(truth, probabilities, weights),
        "qwk": quadratic_kappa(confusion),
    }
    if classes == 2:
        found |= {"sensitivity": sensitivity(confusion), "specificity": specificity(confusion)}
    return found


def resampling_weights(groups: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each observation stands in each bootstrap resample, resamples × n.

    Whole groups (patients) are drawn with replacement: the two eyes of a patient are not independent (cluster
    bootstrap: Field and Welsh, J. R. Statist. Soc. B 2007).
    """
    names, member = np.unique(groups, return_inverse=True)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return times[:, member].astype(np.float64)


def estimate(
    truth: np.ndarray,
    runs: Sequence[np.ndarray],
    groups: np.ndarray,
    resamples: int,
    seed: int,
    against: Sequence[np.ndarray] | None = None,
) -> dict[str, Estimate]:
    """Every figure as the mean over runs, with its 95 % percentile interval.

    A resample draws patients, and, where there are several runs (training seeds), runs too, so that the interval
    covers both other patients and other trainings.

    Args:
        truth: integers (n,).
        runs: probabilities, n × classes, one array per run.
        groups: patient of each observation (n,).
        resamples: number of resamples; 0 gives no intervals.
        seed: of the resampling.
        against: runs of a reference on the same observations; the figures are then differences to it, resampled in
            pairs (same patients, same runs).
    """
    rng = np.random.default_rng(seed)
    value = _stack(truth, runs, against, None)
    draws = []
    for size in _chunks(resamples, len(truth)):
        weights = resampling_weights(groups, size, rng)
        share = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=size) / len(runs)
        stacked = _stack(truth, runs, against, weights)
        # A run that was not drawn must not carry its nan into the mean.
        draws.append({k: np.where(share > 0, v * share, 0).sum(1) for k, v in stacked.items()})
    return {
        name: _interval(float(values.mean()), np.concatenate([d[name] for d in draws]) if draws else None, len(truth))
        for name, values in value.items()
    }


def _stack(
    truth: np.ndarray,
    runs: Sequence[np.ndarray],
    against: Sequence[np.ndarray] | None,
    weights: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Figures (or differences of figures), resamples × runs."""
    own = [figures(truth, run, weights) for run in runs]
    if against is not None:
        reference = [figures(truth, run, weights) for run in against]
        own = [{name: a[name] - b[name] for name in a} for a, b in zip(own, reference, strict=True)]
    return {name: np.stack([run[name] for run in own], axis=-1) for name in own[0]}


def _chunks(resamples: int, n: int) -> list[int]:
    size = max(1, CHUNK // max(n, 1))
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def _interval(value: float, draws: np.ndarray | None, n: int) -> Estimate:
    draws = np.empty(0) if draws is None else draws[np.isfinite(draws)]
    if draws.size == 0 or not np.isfinite(value):
        return Estimate(value, None, None, n)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), n)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient, nan where the denominator is zero."""
    below = np.asarray(below, float)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
