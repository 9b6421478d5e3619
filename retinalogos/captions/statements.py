"""How probable a picture makes what its caption states, by readers of pictures that are trained on the captions.

Captions are read back (:mod:`retinalogos.captions.reading`) into statements: eye, side of the disc, grade, glaucoma and
each finding. For each kind of statement a logistic regression learns from the pairs of other patients what pictures say
of it. Some of these pairs are wrong themselves. So a statement is taken to be, at an error rate that is estimated with
the rest, one that was drawn without a look at the picture (learning with noisy labels: Angluin and Laird, Machine
Learning 1988, 2:343; label errors by models that have not seen them: Northcutt et al., arXiv 1911.00068), and Bayes'
rule gives the probability that it was not.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from retinalogos.captions.configuration import StatementsConfig
from retinalogos.captions.contrastive import deal
from retinalogos.captions.reading import read_statements
from retinalogos.progress import track

# Values stated of fewer patients are not judged: with four folds fifteen are left to learn from.
_FEWEST = 20
# Highest error rate: without a bound the fit takes pictures that tell nothing for statements that are all wrong.
_MOST_ERROR = 0.2
_SAID, _UNSAID = "said", ""


def statements_of(text: str) -> dict[str, str]:
    """What a caption states: eye, disc, grade, glaucoma → its value; each finding it states → ``said``.

    A caption that contradicts itself states nothing of that kind; the text rules see to it.
    """
    read = read_statements(text)
    kinds = {"eye": read.eyes, "disc": read.disc_sides, "grade": read.grades, "glaucoma": read.glaucoma}
    single = {kind: str(*values) for kind, values in kinds.items() if len(values) == 1}
    return single | {f"finding {'/'.join(mention)}": _SAID for mention in read.present}


def probability_right(
    images_nd: np.ndarray,
    pairs_p2: np.ndarray,
    texts: Sequence[str],
    groups: Sequence[str],
    config: StatementsConfig,
    seed: int,
) -> np.ndarray:
    """Probability that a caption's least probable statement was made of its picture, float64 (p,), 0-1.

    The least and not the product: statements hang together (the side of the disc is that of the eye).

    Args:
        images_nd: features of pictures.
        pairs_p2: numbers of picture and caption of each pair.
        texts: the captions.
        groups: of each picture: the patient; no reader has seen a patient that it judges.
        config: settings.
        seed: of the folds.

    Returns:
        1 where nothing is stated that could be judged, as for every pair where there are fewer groups than two.
    """
    stated = [statements_of(text) for text in texts]
    fold_p = np.array(deal(groups, config.folds, seed))[pairs_p2[:, 0]]
    features_pd = images_nd[pairs_p2[:, 0]]
    patient_p = np.unique(groups, return_inverse=True)[1][pairs_p2[:, 0]]
    right_p = np.ones(len(pairs_p2))
    for kind in track(sorted({kind for one in stated for kind in one}), "purify: statements", unit="statement"):
        said_p = np.array([stated[text].get(kind, _UNSAID) for text in pairs_p2[:, 1]])
        finding = kind.startswith("finding ")
        # Of findings silence is taken for absence, or there would be nothing to tell their presence from.
        values = np.unique(said_p if finding else said_p[said_p != _UNSAID])
        values = values[[len(np.unique(patient_p[said_p == value])) >= _FEWEST for value in values]]
        if len(values) < 2 or fold_p.max() == 0:
            continue
        known_p = np.isin(said_p, values)
        said = np.searchsorted(values, said_p[known_p])
        evidence = _evidence(features_pd[known_p], said, fold_p[known_p], len(values), config)
        right = _right(evidence, said, config.least_error, fitted=not finding)
        right = np.where(finding & (values[said] == _UNSAID), 1.0, right)
        right_p[known_p] = np.minimum(right_p[known_p], right)
    return right_p


def _evidence(
    features_md: np.ndarray, said_m: np.ndarray, fold_m: np.ndarray, values: int, config: StatementsConfig
) -> np.ndarray:
    """Log of how much likelier each value is for this picture than for any, out of fold, m×values."""
    evidence = np.zeros((len(said_m), values))
    for fold in range(fold_m.max() + 1):
        held = np.flatnonzero(fold_m == fold)
        seen = np.bincount(said_m[fold_m != fold], minlength=values)
        there = np.flatnonzero(seen)
        if len(held) and len(there) > 1:
            reader = make_pipeline(StandardScaler(), LogisticRegression(C=config.inverse_penalty, max_iter=1000))
            reader.fit(features_md[fold_m != fold], said_m[fold_m != fold])
            usual = np.log(seen[there] / seen.sum())
            sure = np.finfo(np.float64).tiny
            evidence[np.ix_(held, there)] = np.log(reader.predict_proba(features_md[held]).clip(sure)) - usual
    return evidence


def _right(evidence_mv: np.ndarray, said_m: np.ndarray, least_error: float, fitted: bool) -> np.ndarray:
    """Probability that what is said was said of this picture, (m,).

    With ``fitted`` the error rate, and how far the readers' evidence can be trusted, are those under which what is said
    is likeliest. Captions leave findings out for want of room, which cannot be told from errors: there the rate is the
    least.
    """
    usual_v = np.bincount(said_m, minlength=evidence_mv.shape[1]) / len(said_m)
    usual_m, rows = usual_v[said_m], np.arange(len(said_m))

    def likelihood(trust: float, error: float) -> tuple[np.ndarray, np.ndarray]:
        read_mv: np.ndarray = log_softmax(trust * evidence_mv + np.log(usual_v), axis=1)
        return (1 - error) * np.exp(read_mv[rows, said_m]), error * usual_m

    trust, error = 1.0, least_error
    if fitted:

        def settings(point: np.ndarray) -> tuple[float, float]:
            return float(np.exp(point[0])), least_error + max(0.0, _MOST_ERROR - least_error) * float(expit(point[1]))

        def misfit(point: np.ndarray) -> float:
            return -float(np.log(sum(likelihood(*settings(point)))).mean())

        # Two parameters, so that no derivatives are needed; from evidence as it is, and a rate of about one in 40.
        first = [[0.0, -2.0], [1.0, -2.0], [0.0, 0.0]]
        trust, error = settings(minimize(misfit, first[0], method="Nelder-Mead", options={"initial_simplex": first}).x)
    by_picture, by_chance = likelihood(trust, error)
    right: np.ndarray = by_picture / (by_picture + by_chance)
    return right
