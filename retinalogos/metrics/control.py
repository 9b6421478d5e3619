"""Control: whether a synthetic eye shows what was asked for.

Two witnesses. A *judge*, a classifier trained on real images only, sees every synthetic image; its own
accuracy on real test images stands beside, since no generator can be seen to obey better than the judge can
see. On phantom cohorts *measurement* needs no training: the disc, the cup and the lesions are found in the
pixels by the phantom's own geometry.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import ConstantInputWarning, pearsonr, spearmanr

from retinalogos.classifiers import statistics
from retinalogos.metrics.intervals import Estimate, bootstrap, undefined


def agreement(
    asked: np.ndarray, seen: np.ndarray, resamples: int, seed: int, patients: np.ndarray | None = None
) -> Estimate:
    """Share of images in which what is seen equals what was asked, with its interval.

    Args:
        asked: n labels (strings or integers).
        seen: n labels of the same kind; what could not be seen must be a label that is never asked for.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        patients: of the images, by which they are resampled, here and below; None: each for itself.
    """
    right = np.asarray(asked) == np.asarray(seen)
    return bootstrap(np.mean, right, resamples=resamples, seed=seed, groups=patients)


def quadratic_kappa(asked: np.ndarray, seen: np.ndarray, classes: int) -> float:
    """Cohen's kappa with quadratic weights for grades 0 … classes − 1: 1 agreement, 0 chance (Cohen 1968).

    nan where only one grade occurs at all, since chance agreement is then complete.
    """
    return float(statistics.quadratic_kappa(statistics.confusion_matrices(asked, seen, classes))[0])


def grade_agreement(
    asked: np.ndarray,
    seen: np.ndarray,
    classes: int,
    resamples: int,
    seed: int,
    patients: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """``accuracy`` and quadratic ``kappa`` of grades, with intervals."""

    def kappa(a: np.ndarray, s: np.ndarray) -> float:
        return quadratic_kappa(a, s, classes)

    asked, seen = np.asarray(asked, int), np.asarray(seen, int)
    return {
        "accuracy": agreement(asked, seen, resamples, seed, patients),
        "kappa": bootstrap(kappa, asked, seen, resamples=resamples, seed=seed, groups=patients),
    }


def auc(
    asked: np.ndarray, score: np.ndarray, resamples: int, seed: int, patients: np.ndarray | None = None
) -> Estimate:
    """Area under the ROC curve of the judge's ``score`` for what was asked (bool, n); nan with one class only."""

    def area(a: np.ndarray, s: np.ndarray) -> float:
        return float(statistics.macro_auc(a.astype(int), np.stack([-s, s], axis=1))[0])

    columns = np.asarray(asked, bool), np.asarray(score, float)
    return bootstrap(area, *columns, resamples=resamples, seed=seed, groups=patients)


def confusion(asked: Sequence[object], seen: Sequence[object], classes: Sequence[object]) -> list[list[int]]:
    """Counts by asked (rows) and seen (columns); what is none of the classes is not counted."""
    position = {name: i for i, name in enumerate(classes)}
    table = np.zeros((len(classes), len(classes)), int)
    for a, s in zip(asked, seen, strict=True):
        if a in position and s in position:
            table[position[a], position[s]] += 1
    return [[int(count) for count in row] for row in table]


def mean_absolute_error(
    asked: np.ndarray, measured: np.ndarray, resamples: int, seed: int, patients: np.ndarray | None = None
) -> Estimate:
    """Mean |measured − asked| over the images where both are known (not nan); n counts those."""
    return of_known(np.mean, np.abs(measured - asked), resamples, seed, patients)


def of_known(
    statistic: Callable[..., float],
    values: np.ndarray,
    resamples: int,
    seed: int,
    patients: np.ndarray | None = None,
) -> Estimate:
    """A statistic of the values (n,) that are known (not nan), with its interval; n counts those."""
    known = np.isfinite(values)
    of = None if patients is None else patients[known]
    return bootstrap(statistic, values[known], resamples=resamples, seed=seed, groups=of)


def correlation(
    asked: np.ndarray,
    measured: np.ndarray,
    resamples: int,
    seed: int,
    patients: np.ndarray | None = None,
    rank: bool = False,
) -> Estimate:
    """Pearson's r, or Spearman's rho with ``rank``, over the images where both are known; nan for fewer than three."""
    known = np.isfinite(asked) & np.isfinite(measured)
    if known.sum() < 3:
        return undefined(int(known.sum()))
    function = spearmanr if rank else pearsonr

    def coefficient(a: np.ndarray, m: np.ndarray) -> float:
        with warnings.catch_warnings():
            # A resample without variation has no correlation; it is left out as nan.
            warnings.simplefilter("ignore", ConstantInputWarning)
            return float(function(a, m).statistic)

    of = None if patients is None else patients[known]
    return bootstrap(coefficient, asked[known], measured[known], resamples=resamples, seed=seed, groups=of)
