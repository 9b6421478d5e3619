"""What cubes without labels are good for: a masked autoencoder learns from them, and tells apart few labelled ones.

The encoder of a :class:`~retinalogos.masked_autoencoder.MaskedAutoencoder` of all bands is frozen, and a logistic
regression on its features is fitted to labelled real cubes: with weights as they were drawn, or after pre-training on
real, on synthetic, or on both kinds of cubes.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retinalogos.metrics.intervals import Estimate, bootstrap

NONE, REAL, SYNTHETIC, BOTH = "none", "real", "synthetic", "both"
SOURCES = (NONE, REAL, SYNTHETIC, BOTH)


def scores(features: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Probability of the label by ``judged`` features, n × d, in a logistic regression fitted to others and labels."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probe.fit(features, labels)
    return np.asarray(probe.predict_proba(judged)[:, 1])


def mean_auc(labels: np.ndarray, by_seed: np.ndarray) -> float:
    """Mean over the seeds of the area under the curve; ``by_seed`` are scores, n × seeds. nan with one class."""
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(labels, column) for column in by_seed.T]))


def gain(
    labels: np.ndarray,
    by_seed: np.ndarray,
    without: np.ndarray,
    resamples: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> Estimate:
    """Mean AUC above that without pre-training, with the paired bootstrap interval over the judged cubes.

    ``groups`` are their patients, as in :func:`~retinalogos.metrics.intervals.bootstrap`.
    """
    return bootstrap(
        lambda y, one, other: mean_auc(y, one) - mean_auc(y, other),
        labels,
        by_seed,
        without,
        resamples=resamples,
        seed=seed,
        groups=groups,
    )
