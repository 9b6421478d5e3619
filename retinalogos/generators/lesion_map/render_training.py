"""What the renderer is trained to: photographs that fit their map and no discriminator tells from real ones."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.contact_sheet import make_sheet
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import RenderConfig, RenderLossConfig
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.perceptual import Features, distance
from retinalogos.generators.lesion_map.render import RenderDiscriminator, RenderGenerator
from retinalogos.provenance import write_png
from retinalogos.training import distributed
from retinalogos.training.device import device

# Across and down, of those whose mean colours are compared.
_FIELDS = 8
# Eyes in a sample's picture.
_SHOWN = 6
_ENCODE_BATCH = 32


def _tones(images_bchw: Tensor) -> Tensor:
    """Mean colours of 8×8 fields. No other term sees them: discriminators and perceptual distances normalise."""
    return F.adaptive_avg_pool2d(images_bchw, _FIELDS)


class RenderObjective:
    """Hinge loss, feature matching, perceptual term, tones, and the divergence of styles from the normal distribution.

    Where a pixel's class is not known its map is empty, and the real photograph takes the place of the drawn one before
    either is judged: no term of the loss sees what was drawn there.

    Args:
        examples: training eyes.
        config: of the networks.
        loss: weights.
        features: network of the perceptual term; None where its weight is zero.
        batch_size: eyes in a step.
        seed: of weights and of all draws.
    """

    def __init__(
        self,
        examples: Examples,
        config: RenderConfig,
        loss: RenderLossConfig,
        features: nn.Module | None,
        batch_size: int,
        seed: int,
    ):
        self._classes, self._images = torch.from_numpy(examples.classes), torch.from_numpy(examples.images)
        self._loss, self._batch_size, self._seed = loss, batch_size, seed
        self._features: Features | None = None if features is None else features.to(device())
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = RenderGenerator(config)
            self.discriminator = RenderDiscriminator(config)
        # From the eye with the least of lesions to that with the most.
        order = np.isin(examples.classes, maps.LESIONS).sum((1, 2)).argsort(kind="stable")
        self._shown = torch.from_numpy(order[np.linspace(0, len(order) - 1, _SHOWN).astype(int)])
        self._terms: dict[tuple[str, int], Tensor] = {}

    def _batch(self, step: int | None, rows: slice, turn: int) -> tuple[Tensor, Tensor, torch.Generator]:
        """Maps b×7×size×size, photographs b×3×size×size, and the generator of further draws."""
        rng = np.random.default_rng([self._seed, 0 if step is None else step + 1])
        chosen = rng.integers(len(self._classes), size=self._batch_size)[rows]
        mirrored = (rng.random(self._batch_size) < 0.5)[rows] & self._loss.mirror
        maps_bchw, images_bchw = tensors(self._classes[chosen], self._images[chosen])
        flip = torch.from_numpy(mirrored).to(maps_bchw.device)[:, None, None, None]
        words = [self._seed, 0 if step is None else step + 1, rows.start or 0, turn]
        draws = torch.Generator().manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))
        return (
            torch.where(flip, maps_bchw.flip(3), maps_bchw),
            torch.where(flip, images_bchw.flip(3), images_bchw),
            draws,
        )

    def _drawn(
        self, generator: nn.Module, maps_bchw: Tensor, images_bchw: Tensor, draws: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Photographs in the style of the real ones, which stay where the map is empty; and the styles' divergence."""
        assert isinstance(generator, RenderGenerator)
        mean, log_variance = generator.encode(images_bchw)
        noise = torch.randn(mean.shape, generator=draws).to(mean)
        drawn = generator(maps_bchw, mean + noise * torch.exp(0.5 * log_variance))
        known = maps_bchw.sum(1, keepdim=True)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return known * drawn + (1 - known) * images_bchw, divergence

    def discriminator_loss(self, discriminator: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Hinge loss: real patches above 1, drawn ones below −1."""
        maps_bchw, images, draws = self._batch(step, rows, 0)
        with torch.no_grad():
            drawn, _ = self._drawn(self.generator, maps_bchw, images, draws)
        both = discriminator(torch.cat([maps_bchw, maps_bchw]), torch.cat([images, drawn]))
        terms = []
        for features in both:
            real, made = features[-1].chunk(2)
            terms.append(F.relu(1 - real).mean() + F.relu(1 + made).mean())
        return torch.stack(terms).mean()

    def generator_loss(self, generator: nn.Module, step: int | None, rows: slice) -> Tensor:
        """All terms, weighted."""
        maps_bchw, images, draws = self._batch(step, rows, 1)
        drawn, divergence = self._drawn(generator, maps_bchw, images, draws)
        both = self.discriminator(torch.cat([maps_bchw, maps_bchw]), torch.cat([images, drawn]))
        adversarial, matching = [], []
        for features in both:
            adversarial.append(-features[-1].chunk(2)[1].mean())
            for layer in features[:-1]:
                real, made = layer.chunk(2)
                matching.append((real.detach() - made).abs().mean())
        terms = {
            "adversarial": torch.stack(adversarial).mean(),
            "feature_matching": self._loss.feature_matching * torch.stack(matching).mean(),
            "tone": self._loss.tone * (_tones(drawn) - _tones(images)).abs().mean(),
            "divergence": self._loss.divergence * divergence,
        }
        if self._features is not None:
            terms["perceptual"] = self._loss.perceptual * distance(self._features, drawn, images)
        for name, value in terms.items():
            self._terms[name, rows.start or 0] = value.detach()
        return torch.stack(list(terms.values())).sum()

    def after(self, step: int) -> dict[str, float]:
        """The terms of the generator's loss."""
        names = sorted({name for name, _ in self._terms})
        means = [
            torch.stack([value for key, value in sorted(self._terms.items()) if key[0] == name]).mean()
            for name in names
        ]
        distributed.average(means)
        return {name: float(mean) for name, mean in zip(names, means, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """Nothing beside the networks."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing to put back."""

    @torch.no_grad()
    def sample(self, path: Path) -> None:
        """Maps, real photographs, and drawn ones in the style of the real and of another eye."""
        shown = self._shown
        maps_bchw, images = tensors(self._classes[shown], self._images[shown])
        mean, _ = self.generator.encode(images)
        rows = [to_images(images)] + [to_images(self.generator(maps_bchw, each)) for each in (mean, mean.roll(1, 0))]
        coloured = maps.to_rgb(np.where(self._classes[shown] == maps.UNKNOWN, maps.BG, self._classes[shown]))
        pictures = [picture for row in (coloured, *rows) for picture in row]
        write_png(path, make_sheet(pictures, columns=len(shown)), {"seed": self._seed})

    @torch.no_grad()
    def fit_styles(self) -> None:
        """Lets the generator know how the styles of the training photographs are spread; on the processor."""
        parts = []
        for start in range(0, len(self._images), _ENCODE_BATCH):
            rows = slice(start, start + _ENCODE_BATCH)
            _, images = tensors(self._classes[rows], self._images[rows], torch.device("cpu"))
            parts.append(torch.stack(self.generator.encode(images)))
        means, log_variances = torch.cat(parts, 1)
        self.generator.fit_styles(means, log_variances.exp())


def tensors(classes: Tensor, images: Tensor, where: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Classes b×h×w and uint8 photographs b×h×w×3 to maps b×7×h×w, empty where unknown, and photographs in [−1, 1]."""
    where = where or device()
    codes = torch.arange(len(maps.CLASSES), device=where)[:, None, None]
    maps_bchw = (classes.to(where)[:, None] == codes).float()
    return maps_bchw, images.to(where).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(images_bchw: Tensor) -> np.ndarray:
    """Photographs in [−1, 1], b×3×h×w, to uint8, b×h×w×3."""
    scaled = (images_bchw.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
