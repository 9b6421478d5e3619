"""Do pictures and captions go together? Each picture must choose its caption, and each caption its picture.

The judge is a small contrastive model (:mod:`retinalogos.captions.contrastive`) of the real training pairs. It reads a
caption as its words and pairs of words, weighted by how rare they are, which needs no language model and knows what the
captions of a template say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from retinalogos.captions.configuration import ContrastiveConfig
from retinalogos.captions.contrastive import ContrastiveModel, fit
from retinalogos.metrics.intervals import Estimate, bootstrap, undefined

# Words that fewer training captions have teach a name and no meaning.
_LEAST_CAPTIONS = 2
# Rows of the matrix of similarities at a time: bounds memory.
_BAND = 1024


@dataclass(frozen=True)
class PairingJudge:
    """A contrastive model, and how it reads captions."""

    words: TfidfVectorizer
    model: ContrastiveModel

    def similarity(self, features_nd: np.ndarray, captions: Sequence[str]) -> np.ndarray:
        """Cosines of every picture with every caption, float32 n×m; ``features_nd`` are those it was trained on."""
        with torch.inference_mode():
            texts = self.model.text(_counts(self.words, captions))
            return (self.model.image(torch.from_numpy(features_nd).float()) @ texts.T).numpy()


def fit_pairing_judge(
    features_nd: np.ndarray, captions: Sequence[str], config: ContrastiveConfig, seed: int
) -> PairingJudge | None:
    """A judge of real training pairs; None where these have fewer than two different captions.

    Args:
        features_nd: of the pictures.
        captions: one of each picture.
        config: settings.
        seed: of weights, order and dropout.
    """
    distinct = list(dict.fromkeys(captions))
    if len(distinct) < 2:
        return None
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=_LEAST_CAPTIONS, sublinear_tf=True)
    words.fit(captions)
    number = {text: at for at, text in enumerate(distinct)}
    pairs = torch.tensor([(at, number[text]) for at, text in enumerate(captions)])
    features = torch.from_numpy(features_nd).float()
    return PairingJudge(words, fit(features, _counts(words, distinct), pairs, config, seed))


def _counts(words: TfidfVectorizer, captions: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(words.transform(captions).toarray()).float()


def pairing(
    judge: PairingJudge, features_nd: np.ndarray, captions: Sequence[str], resamples: int, seed: int
) -> dict[str, Estimate]:
    """How well pictures and captions find each other among those of this set; 0.5 is chance, 1 is always.

    ``image_to_text`` is the chance that a picture's own caption is nearer to it than another caption of the set,
    ``text_to_image`` that a caption's own picture is nearer to it than a picture of another caption. Pictures of the
    same caption are no competitors. Intervals are over pictures.

    Args:
        judge: of real pairs.
        features_nd: of n pictures.
        captions: of them.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    number = np.unique(np.array(captions), return_inverse=True)[1]
    similar = judge.similarity(features_nd, captions)
    own = np.diagonal(similar)
    found = {}
    # Along a row the captions of a picture compete, along a column the pictures of a caption.
    for name, matrix in (("image_to_text", similar), ("text_to_image", similar.T)):
        shares = np.full(len(number), np.nan)
        for start in range(0, len(number), _BAND):
            part = slice(start, start + _BAND)
            rivals = number[part, None] != number[None]
            beaten = (matrix[part] < own[part, None]) + 0.5 * (matrix[part] == own[part, None])
            count = rivals.sum(1)
            shares[part] = np.where(count > 0, (beaten * rivals).sum(1) / np.maximum(count, 1), np.nan)
        known = shares[np.isfinite(shares)]
        found[name] = bootstrap(np.mean, known, resamples=resamples, seed=seed) if len(known) else undefined()
    return found
