"""Feature spaces: images to vectors, by name.

A distance between distributions is a distance *in a feature space*, and its number means nothing without the
name of that space. ``cohort``: the penultimate layer of a classifier trained on the real training images;
``random_conv``: seeded random convolutions, which need no training; any other name: a transformers vision
backbone, by hub name or folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from retinalogos.errors import UsageError

BATCH = 64  # images at a time: bounds memory
COHORT = "cohort"
RANDOM_CONV = "random_conv"


class FeatureSpace(Protocol):
    """Maps uint8 RGB images, n × h × w × 3, to float32 features, n × d."""

    name: str

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features of the images, n × d."""


class FeatureNetwork(Protocol):
    """A trained classifier that can say what it sees before it decides."""

    def features(self, images: np.ndarray) -> np.ndarray:
        """Penultimate features of uint8 images, n × d."""


class CohortFeatures:
    """Features of a classifier trained on the cohort's own real training images.

    They tell apart what matters in these eyes, at the price that the training images themselves are seen
    with other eyes than unseen ones; the real-to-real floor (training against test) carries the same bias.
    """

    name = COHORT

    def __init__(self, network: FeatureNetwork):
        self._network = network

    def features(self, images: np.ndarray) -> np.ndarray:
        """Penultimate features, n × d."""
        return np.asarray(self._network.features(images), np.float32)


class RandomConv:
    """Features of seeded random convolutions: mean and standard deviation of every channel at every scale.

    Random filters see colour, contrast, edges and texture at four scales and need no training (Saxe et al., ICML
    2011, on why random filters already separate classes). No eye knowledge is in them.

    Args:
        seed: of the weights.
        channels: filters per scale; d = 8 · channels.
    """

    name = RANDOM_CONV

    def __init__(self, seed: int, channels: int = 32):
        generator = torch.Generator().manual_seed(seed)
        self._layers = []
        for width in (3, channels, channels, channels):
            layer = nn.Conv2d(width, channels, 3, stride=2, padding=1, bias=False)
            # Keeps the variance through rectified layers: He et al., ICCV 2015.
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            self._layers.append(layer)

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Channel statistics, n × 8·channels."""
        parts = []
        for batch in _batches(images):
            x = torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
            statistics = []
            for layer in self._layers:
                x = torch.relu(layer(x))
                statistics += [x.mean((2, 3)), x.std((2, 3))]
            parts.append(torch.cat(statistics, 1).numpy())
        return np.concatenate(parts)


class Backbone:
    """Pooled output of a transformers vision model with the preprocessing it was trained with.

    Args:
        source: hub name (``facebook/dinov2-base``) or folder.

    Raises:
        UsageError: there is no such model here, or it is no vision model.
    """

    def __init__(self, source: str):
        from transformers import AutoImageProcessor, AutoModel

        self.name = Path(source).name if Path(source).is_dir() else source
        try:
            self._processor = AutoImageProcessor.from_pretrained(source)
            self._model = AutoModel.from_pretrained(source).eval()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"feature space {source!r}: neither {COHORT!r}, {RANDOM_CONV!r} nor a vision model that can be loaded "
                f"({str(error).splitlines()[0]})"
            ) from None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)

    @torch.no_grad()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Pooled output, or the mean over positions of a model that does not pool, n × d."""
        parts = []
        for batch in _batches(images):
            pixels = self._processor(images=list(batch), return_tensors="pt")["pixel_values"].to(self._device)
            output = self._model(pixel_values=pixels)
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                hidden = output.last_hidden_state  # tokens n × t × d, or maps n × d × h × w
                pooled = hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))
            parts.append(pooled.flatten(1).float().cpu().numpy())
        return np.concatenate(parts)


def feature_space(name: str, seed: int, network: FeatureNetwork | None = None) -> FeatureSpace:
    """The feature space of this name.

    Args:
        name: ``cohort``, ``random_conv``, or a vision backbone by hub name or folder.
        seed: of random weights.
        network: the trained classifier behind ``cohort``.

    Raises:
        UsageError: ``cohort`` without a network, or a name that cannot be loaded.
    """
    if name == COHORT:
        if network is None:
            raise UsageError("feature space 'cohort' needs a classifier trained on the real training images")
        return CohortFeatures(network)
    if name == RANDOM_CONV:
        return RandomConv(seed)
    return Backbone(name)


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]
