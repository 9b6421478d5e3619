"""Agreement of readers beyond chance, for any number of readers of what is judged: a picture, a caption."""

import math

import numpy as np


def counts(judged: np.ndarray, categories: int) -> np.ndarray:
    """How many readers put each picture into each category, pictures … × categories.

    Args:
        judged: readers × pictures …, 0 … categories - 1; nan or -1 where a reader gave no answer.
        categories: number of categories.
    """
    return np.stack([(judged == category).sum(0) for category in range(categories)], axis=-1)


def kappa(
    counts_nk: np.ndarray, weights_bn: np.ndarray | None = None, quadratic: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Share of agreement between two readers drawn by lot, and kappa: how much of it chance does not explain.

    With the same number of readers for each picture and without ``quadratic`` it is the kappa of Fleiss
    (Psychological Bulletin 1971, 76(5):378), with two readers Scott's pi; for unequal numbers and weights as in Gwet,
    Handbook of Inter-Rater Reliability, 4th ed. 2014, chapter 3. Pictures with fewer than two readers do not count.

    Args:
        counts_nk: of :func:`counts`.
        weights_bn: how often each picture stands in each resample, resamples × pictures; None: once, one sample.
        quadratic: categories are ordered, and a disagreement weighs with the square of its distance.

    Returns:
        Agreement and kappa, (resamples,) each; nan where no picture has two readers, kappa also where chance alone
        agrees always.
    """
    weights_bn = np.ones((1, len(counts_nk))) if weights_bn is None else weights_bn
    categories = counts_nk.shape[1]
    distance_kk = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    credit_kk = 1 - (distance_kk / (categories - 1)) ** 2 if quadratic else (distance_kk == 0).astype(float)
    readers_n = counts_nk.sum(1)
    twice = readers_n >= 2
    counts_nk, readers_n, weights_bn = counts_nk[twice], readers_n[twice], weights_bn[:, twice]
    # Pairs of different readers in credit, over all such pairs.
    agreed_n = (counts_nk * (counts_nk @ credit_kk - 1)).sum(1) / (readers_n * (readers_n - 1))
    total_b = weights_bn.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed_b = weights_bn @ agreed_n / total_b
        share_bk = weights_bn @ (counts_nk / readers_n[:, None]) / total_b[:, None]
        chance_b = np.einsum("bk,kl,bl->b", share_bk, credit_kk, share_bk)
        certain_b = chance_b > 1 - 1e-12
        return agreed_b, np.where(certain_b, np.nan, (agreed_b - chance_b) / np.where(certain_b, 1, 1 - chance_b))


def krippendorff(counts_nk: np.ndarray) -> float:
    """Krippendorff's alpha for nominal data (Content Analysis, chapter 11): 1 - observed / expected disagreement.

    Args:
        counts_nk: of :func:`counts`, … × categories; what fewer than two judged is left out.

    Returns:
        1 (perfect) to below 0 (worse than chance); nan where all answers are one and the same, or there are none.
    """
    counts_nk = counts_nk.reshape(-1, counts_nk.shape[-1])
    each_n = counts_nk.sum(1)
    counts_nk, each_n = counts_nk[each_n > 1], each_n[each_n > 1]
    total, of_category_k = each_n.sum(), counts_nk.sum(0)
    expected = (total**2 - (of_category_k**2).sum()) / (total - 1) if total else 0.0
    if not expected:
        return math.nan
    observed = ((each_n**2 - (counts_nk**2).sum(1)) / (each_n - 1)).sum()
    return float(1 - observed / expected)
