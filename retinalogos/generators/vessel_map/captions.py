"""Captions as a condition of the painter: written by the template engine, seen through the main line's text encoder."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from retinalogos.captions.template import write_captions
from retinalogos.captions.tokens import TokenBudget
from retinalogos.generators.text.conditioning import TextEncoder, load_text_encoder
from retinalogos.generators.text.latents import mirrored_words
from retinalogos.generators.vessel_map.configuration import TextConfig
from retinalogos.training.device import device

_GRANULARITIES = ("coarse", "fine")
# Captions at a time: bounds memory.
_BATCH = 64


def write(rows: Sequence[Mapping[str, Any]], config: TextConfig, seed: int) -> list[list[str]]:
    """Captions of each cohort row, of which pixels are not needed: its coarse wordings, then its fine ones."""
    of_eye = [(granularity, wording) for granularity in _GRANULARITIES for wording in range(config.wordings)]
    requests = [(row, granularity, wording, seed) for row in rows for granularity, wording in of_eye]
    budget = TokenBudget(config.encoder, config.token_budget)
    texts = [caption.text for caption in write_captions(requests, budget)] if requests else []  # type: ignore[arg-type]
    return [texts[start : start + len(of_eye)] for start in range(0, len(texts), len(of_eye))]


class CaptionFeatures:
    """A caption as one vector: the mean of its tokens' features, standardised over the training captions.

    Args:
        encoder: frozen.
        mean, std: of the training captions, D; as the text generator takes them.
    """

    def __init__(self, encoder: TextEncoder, mean: Tensor, std: Tensor):
        self.encoder, self.mean, self.std = encoder, mean.cpu(), std.cpu()

    @classmethod
    def load(cls, config: TextConfig, mean: Tensor, std: Tensor) -> Self:
        """The encoder of a trained painter."""
        return cls(_encoder(config), mean, std)

    @classmethod
    def fit(cls, config: TextConfig, captions: Sequence[Sequence[str]]) -> Self:
        """Fits mean and spread; channels that hardly vary are not blown up."""
        encoder = _encoder(config)
        nothing = torch.zeros(encoder.dim)
        pooled = cls(encoder, nothing, torch.ones(encoder.dim))([text for texts in captions for text in texts])
        std = pooled.std(0, correction=0)
        return cls(encoder, pooled.mean(0), std.clamp(min=max(0.1 * float(std.mean()), 1e-3)))

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N×D, float32, on the CPU.

        Raises:
            UsageError: a text is longer than the budget.
        """
        # Captions of healthy eyes recur.
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        found: dict[str, Tensor] = {}
        for start in range(0, len(distinct), _BATCH):
            batch = distinct[start : start + _BATCH]
            tokens, mask = (one.cpu() for one in self.encoder.encode(batch))
            pooled = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
            found.update(zip(batch, (pooled - self.mean) / self.std, strict=True))
        return torch.stack([found[text] for text in texts]) if texts else torch.zeros(0, len(self.mean))

    def of_eyes(self, captions: Sequence[Sequence[str]]) -> Tensor:
        """n×2×M×D: the captions of each eye, and those of its mirror image."""
        if not captions:
            return torch.zeros(0, 2, 1, len(self.mean))
        both = [[list(texts), [mirrored_words(text) for text in texts]] for texts in captions]
        flat = self([text for pair in both for texts in pair for text in texts])
        return flat.view(len(captions), 2, len(captions[0]), -1)


def _encoder(config: TextConfig) -> TextEncoder:
    return load_text_encoder(config.encoder, config.token_budget, config.layer, device())
