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
from retinalogos.metrics.control import of_known
from retinalogos.metrics.intervals import Estimate

# Words that fewer training captions have teach a name and no meaning.
_LEAST_CAPTIONS = 2
# Rows of the matrix of similarities at a time: bounds memory.
_BAND = 1024


@dataclass(frozen=True)
class PairingJudge:
    """A contrastive model, and how it reads captions."""

    words: TfidfVectorizer
    model: ContrastiveModel

    @torch.inference_mode()
    def vectors(self, features_nd: np.ndarray, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors of n pictures, by the features it was trained on, and of their captions: float32 n×e each."""
        images, texts = [], []
        for start in range(0, len(captions), _BAND):
            part = slice(start, start + _BAND)
            images.append(self.model.image(torch.from_numpy(features_nd[part]).float()).numpy())
            texts.append(self.model.text(_counts(self.words, captions[part])).numpy())
        return np.concatenate(images), np.concatenate(texts)


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
    judge: PairingJudge,
    features_nd: np.ndarray,
    captions: Sequence[str],
    resamples: int,
    seed: int,
    patients: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """How well pictures and captions find each other among those of this set; 0.5 is chance, 1 is always.

    ``image_to_text`` is the chance that a picture's own caption is nearer to it than another caption of the set,
    ``text_to_image`` that a caption's own picture is nearer to it than a picture of another caption. Pictures of the
    same caption are no competitors. Intervals are over pictures, or over their patients.

    Args:
        judge: of real pairs.
        features_nd: of n pictures.
        captions: of them.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        patients: of the pictures.
    """
    number = np.unique(np.array(captions), return_inverse=True)[1]
    images, texts = judge.vectors(features_nd, captions)
    found = {}
    for name, asking, answering in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        shares = np.full(len(number), np.nan)
        for start in range(0, len(number), _BAND):
            part = slice(start, start + _BAND)
            rivals = number[part, None] != number[None]
            fits = asking[part] @ answering.T
            own = np.diagonal(fits, start)[:, None]
            beaten = (fits < own) + 0.5 * (fits == own)
            count = rivals.sum(1)
            shares[part] = np.where(count > 0, (beaten * rivals).sum(1) / np.maximum(count, 1), np.nan)
        found[name] = of_known(np.mean, shares, resamples, seed, patients)
    return found
