"""Flow matching on a set of latents as a loss that is a function of the step's number alone."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retinalogos.errors import UsageError
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.conditioning import TextConditioning
from retinalogos.generators.text.configuration import FlowConfig
from retinalogos.generators.text.flow import interpolate, loss_weight, sample_timesteps, target_velocity
from retinalogos.generators.text.latents import Latents, epoch_order
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.generators.text.representation import disagreement

# The validation loss is a mean over this many images at fixed times and noise, so that curves compare.
_VALIDATION_IMAGES = 64


@dataclass
class FlowMatching:
    """Mean squared error of the velocity over all latent channels; with a prior, as a multiple of the prior's own.

    So all times weigh the same: vessels find their place before t = 0.6, where errors are half of those at 0.85. In
    training :func:`loss_weight` comes on top, and the alignment to an encoder where it has a weight; the validation
    loss stays without, so that weightings compare.

    Args:
        latents: the encoded cohort; the split ``train`` is learned, ``validation`` only measured.
        conditioning: scale of the text features.
        prior: of the latents, see :func:`velocity`.
        batch_size: images of a step.
        seed: of the data order, the noise, the times and the captions chosen.
        flow: laws of times, captions and weights; with an ``alignment_weight`` a model that learns has been through
            :func:`~retinalogos.generators.text.representation.attach`.

    Raises:
        UsageError: the training split is empty.
    """

    latents: Latents
    conditioning: TextConditioning
    prior: LatentPrior | None
    batch_size: int
    seed: int
    flow: FlowConfig
    _orders: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.conditioning.requires_grad_(False)
        self.empty = int(self.latents.meta["empty_text"])
        self._train = np.array(self.latents.rows("train"))
        if not len(self._train):
            raise UsageError(f"{self.latents.folder}: no image of the split 'train' has a caption")
        validation = self.latents.rows("validation") or self._train.tolist()
        stride = max(1, len(validation) // _VALIDATION_IMAGES)
        self._validation = validation[::stride][:_VALIDATION_IMAGES]

    def __call__(self, model: nn.Module, step: int | None, rows: slice = slice(None)) -> Tensor:
        """Loss over ``rows`` of a training step's batch, or of the fixed validation batch where ``step`` is None."""
        where = next(model.parameters()).device
        images, texts, noise, t = self._draw(step)
        noise, t = noise[rows], t[rows]
        tokens, mask = self.latents.batch_tokens(texts[rows])
        text, pooled = self.conditioning.to(where)(tokens.to(where), mask.to(where))
        data = self.latents.latents(images[rows])
        x = interpolate(data, noise, t).to(where)
        prior = self.prior.to(where) if self.prior is not None else None
        predicted, variance = velocity(model, prior, x, t.to(where), text, mask.to(where), pooled)
        errors = (predicted.float() - target_velocity(data, noise).to(where)).square().mean((1, 2, 3))
        weight = loss_weight(t, self.flow.loss_weighting if step is not None else "uniform").to(where)
        loss = (weight * errors / variance).mean()
        if step is None or not self.flow.alignment_weight:
            return loss
        return loss + self.flow.alignment_weight * disagreement(self.latents.representations(images[rows]))

    def batch(self, step: int) -> dict[str, Any]:
        """What a training step shows: ``image_ids`` and ``captions`` (B), ``noise`` (B×C×h×w) and ``times`` (B)."""
        images, texts, noise, t = self._draw(step)
        return {
            "image_ids": [self.latents.images[image]["image_id"] for image in images],
            "captions": [self.latents.texts[text]["text"] for text in texts],
            "noise": noise,
            "times": t,
        }

    def _draw(self, step: int | None) -> tuple[list[int], list[int], Tensor, Tensor]:
        """Images, captions, noise B×C×h×w and times B of the whole batch."""
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + (step if step is not None else -1))
        images = self._validation if step is None else self._images(step)
        texts = [self._caption(image, draw, training=step is not None) for image in images]
        noise = torch.randn((len(images), *self.latents.shape), generator=draw)
        return (
            images,
            texts,
            noise,
            sample_timesteps(len(images), self.flow.timestep_law, self.flow.timestep_shift, draw),
        )

    def _images(self, step: int) -> list[int]:
        """The step's images: consecutive pieces of one shuffled epoch after another."""
        first = step * self.batch_size
        chosen = []
        for position in range(first, first + self.batch_size):
            epoch, place = divmod(position, len(self._train))
            if epoch not in self._orders:
                self._orders = {epoch: epoch_order(self._train, self.seed, epoch)} | {
                    key: value for key, value in self._orders.items() if key == epoch - 1
                }
            chosen.append(int(self._orders[epoch][place]))
        return chosen

    def _caption(self, image: int, draw: torch.Generator, training: bool) -> int:
        dropped, coarse, which = torch.rand(3, generator=draw).tolist()
        if training and dropped < self.flow.caption_dropout:
            return self.empty
        captions = self.latents.captions(image, "coarse" if coarse < self.flow.coarse_share else "fine")
        return captions[int(which * len(captions))]
