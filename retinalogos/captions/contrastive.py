"""A small contrastive image-text model, trained on the cohort's own pairs, and each pair's score by a model that has
not seen it.

Two towers map frozen features of pictures and of captions to one sphere, trained by the symmetric InfoNCE of CLIP
(Radford et al., arXiv 2103.00020). Its optimal critic is the pointwise mutual information of picture and caption, up to
what depends on one of them alone (van den Oord et al., arXiv 1807.03748); that part is taken away in the score, so that
a caption that fits every eye does not score above one that fits its own.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.captions.configuration import ContrastiveConfig
from retinalogos.progress import track

# Others of the fold that a pair is held against: enough for a mean, and bounds memory to a few ten megabytes.
_REFERENCES = 2048
# CLIP's: similarities are cosines, and begin with this temperature; its logarithm is learnt, and bounded as there.
_TEMPERATURE, _MAX_SCALE = 0.07, 100.0


class _Tower(nn.Module):
    """Features to the sphere; their scale is that of the training features."""

    def __init__(self, features_nd: Tensor, config: ContrastiveConfig):
        super().__init__()
        width = features_nd.shape[1]
        self.mean = nn.Buffer(features_nd.mean(0))
        deviation = features_nd.std(0, correction=0)
        # A feature that hardly varies is not blown up.
        self.deviation = nn.Buffer(deviation.clamp(min=max(0.1 * float(deviation.mean()), 1e-6)))
        self.layers = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.dimension),
        )

    def forward(self, x_nd: Tensor) -> Tensor:
        """Raw features n×d to unit vectors n×dimension."""
        return F.normalize(self.layers((x_nd - self.mean) / self.deviation), dim=1)


class ContrastiveModel(nn.Module):
    """Both towers and the temperature.

    Args:
        images_nd: features of training pictures, for the scale.
        texts_md: features of training captions, for the scale.
        config: settings.
    """

    def __init__(self, images_nd: Tensor, texts_md: Tensor, config: ContrastiveConfig):
        super().__init__()
        self.image, self.text = _Tower(images_nd, config), _Tower(texts_md, config)
        self.log_scale = nn.Parameter(torch.tensor(-np.log(_TEMPERATURE), dtype=torch.float32))

    def forward(self, images_nd: Tensor, texts_md: Tensor) -> Tensor:
        """Scaled cosines n×m of every picture with every caption."""
        return self.scale() * self.image(images_nd) @ self.text(texts_md).T

    def scale(self) -> Tensor:
        """What cosines are multiplied with."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)


def info_nce(similarity_nn: Tensor, same_nn: Tensor) -> Tensor:
    """Symmetric InfoNCE of a batch whose pairs stand on the diagonal.

    Args:
        similarity_nn: scaled similarities of picture i and caption j.
        same_nn: whether picture i and caption j belong together although they are no pair of the batch (the same words,
            or another caption of the picture); these are no counterexamples and are left out. The diagonal is kept.
    """
    diagonal = torch.eye(len(similarity_nn), dtype=torch.bool, device=similarity_nn.device)
    masked = similarity_nn.masked_fill(same_nn & ~diagonal, float("-inf"))
    target = torch.arange(len(masked), device=masked.device)
    return (F.cross_entropy(masked, target) + F.cross_entropy(masked.T, target)) / 2


def fit(
    images_nd: Tensor, texts_md: Tensor, pairs_p2: Tensor, config: ContrastiveConfig, seed: int
) -> ContrastiveModel:
    """Trains a model; torch's global random state is left as it was.

    Args:
        images_nd: features of pictures.
        texts_md: features of distinct captions.
        pairs_p2: numbers of picture and caption of each pair.
        config: settings.
        seed: of weights, order and dropout.
    """
    draw = np.random.default_rng(seed)
    batch = min(config.batch_size, len(pairs_p2))
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        seen = [torch.unique(column) for column in pairs_p2.T]
        model = ContrastiveModel(images_nd[seen[0]], texts_md[seen[1]], config).to(images_nd.device)
        optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps + 1)
        order = np.empty(0, np.int64)
        for _ in range(config.steps):
            if len(order) < batch:
                order = draw.permutation(len(pairs_p2))
            chosen, order = torch.from_numpy(order[:batch]), order[batch:]
            image, text = pairs_p2[chosen].T
            same = (image[:, None] == image[None, :]) | (text[:, None] == text[None, :])
            loss = info_nce(model(images_nd[image], texts_md[text]), same.to(images_nd.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def specificity(images_nd: Tensor, texts_md: Tensor, scale: float, pairs_p2: Tensor, seed: int) -> Tensor:
    """How much better a picture and its caption go together than either goes with others, float32 (p,).

    The scaled cosine less the logarithmic mean of the exponential over other captions, and over other pictures, half of
    each: 0 for a pair like any other.

    Args:
        images_nd: pictures as unit vectors.
        texts_md: distinct captions as unit vectors.
        scale: of the cosines.
        pairs_p2: pairs to judge; the others are those among them, at most 2,048 of each, drawn at random.
        seed: of that draw.
    """
    draw = np.random.default_rng(seed)
    encoded = (images_nd, texts_md)
    own = scale * (images_nd[pairs_p2[:, 0]] * texts_md[pairs_p2[:, 1]]).sum(1)
    usual = torch.zeros_like(own)
    for here, there in ((0, 1), (1, 0)):
        numbers = torch.unique(pairs_p2[:, there]).numpy()
        if len(numbers) > _REFERENCES:
            numbers = np.sort(draw.choice(numbers, _REFERENCES, replace=False))
        others = encoded[there][torch.from_numpy(numbers)]
        for start in range(0, len(own), _REFERENCES):
            part = slice(start, start + _REFERENCES)
            similar = scale * encoded[here][pairs_p2[part, here]] @ others.T
            usual[part] += (torch.logsumexp(similar, 1) - np.log(len(numbers))) / 2
    return (own - usual).cpu()


def deal(groups: Sequence[str], folds: int, seed: int) -> list[int]:
    """Fold of each, from 0; a group is not torn apart, and there are no more folds than groups."""
    names = sorted(set(groups))
    place = np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names))
    fold_of = dict(zip(names, place.tolist(), strict=True))
    return [fold_of[group] for group in groups]


def out_of_fold(
    images_nd: Tensor,
    texts_md: Tensor,
    pairs_p2: Tensor,
    groups: Sequence[str],
    config: ContrastiveConfig,
    seed: int,
) -> Tensor:
    """:func:`specificity` of every pair by a model that was trained without its group, float32 (p,).

    Args:
        images_nd: features of pictures.
        texts_md: features of distinct captions.
        pairs_p2: numbers of picture and caption of each pair, on the CPU.
        groups: of each picture: the patient, so that neither the other eye nor a mirrored copy gives a pair away.
        config: settings.
        seed: of the folds and of training.

    Returns:
        0 for every pair where there are fewer groups than two: there is nothing to learn from.
    """
    scores = torch.zeros(len(pairs_p2))
    fold = torch.tensor(deal(groups, config.folds, seed))[pairs_p2[:, 0]]
    folds = int(fold.max()) + 1
    if folds < 2:
        return scores
    for number in track(range(folds), "purify: contrastive", unit="fold"):
        held = fold == number
        model = fit(images_nd, texts_md, pairs_p2[~held], config, seed + number)
        with torch.inference_mode():
            images, texts = model.image(images_nd), model.text(texts_md)
        scores[held] = specificity(images, texts, model.scale().item(), pairs_p2[held], seed)
    return scores
