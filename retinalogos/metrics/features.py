"""Feature spaces: images to vectors, by name.

A distance between distributions is a distance *in a feature space*, and its number means nothing without the
name of that space. ``cohort``: the penultimate layer of a classifier trained on the real training images;
``random_conv``: seeded random convolutions, which need no training; ``inception``: that of the FID;
``retfound:FILE``: a masked autoencoder of fundus photographs; ``flair:NAME``: the image tower of a model of fundus
photographs and expert descriptions; ``dinov2`` and ``clip``, short for the models of
:data:`SHORT`; any other name: a transformers vision backbone, by hub name or folder.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from retinalogos.errors import UsageError
from retinalogos.metrics.inception import InceptionV3, load_inception

if TYPE_CHECKING:
    from retinalogos.metrics.retfound import MaskedAutoencoderFeatures

BATCH = 64  # images at a time: bounds memory
COHORT = "cohort"
RANDOM_CONV = "random_conv"
INCEPTION = "inception"
RETFOUND = "retfound"
FLAIR = "flair"
FLAIR_HUB = "jusiro2/FLAIR"
# Names that papers use for one model: DINOv2's of middle size, and the CLIP in which the CMMD is defined.
SHORT = {"dinov2": "facebook/dinov2-base", "clip": "openai/clip-vit-large-patch14-336"}


class FeatureSpace(Protocol):
    """Maps uint8 RGB images, n × h × w × 3, to float32 features, n × d."""

    name: str

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features of the images, n × d."""


@runtime_checkable
class Local(Protocol):
    """A feature space that also tells what lies where."""

    def patches(self, images: np.ndarray) -> np.ndarray:
        """Features by place, n × d × g × g."""


@runtime_checkable
class Classifying(Protocol):
    """A feature space whose features also name the things on ordinary photographs."""

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities of its classes, n × c, from its features, n × d."""


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


class NetworkFeatures:
    """Features of a network that takes images of values 0-255, b × 3 × h × w, and does its own preprocessing."""

    def __init__(self, name: str, network: nn.Module):
        self.name = name
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network = network.to(self._device)

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the network gives, n × d."""
        return self._given(self._network, images)

    @torch.no_grad()
    def _given(self, part: Callable[[torch.Tensor], torch.Tensor], images: np.ndarray) -> np.ndarray:
        parts = []
        for batch in _batches(images):
            x = torch.from_numpy(batch.copy()).to(self._device).permute(0, 3, 1, 2).float()
            parts.append(part(x).float().cpu().numpy())
        return np.concatenate(parts)


class RetfoundFeatures(NetworkFeatures):
    """Features of :class:`~retinalogos.metrics.retfound.MaskedAutoencoderFeatures`, of the whole and by place."""

    def __init__(self, network: "MaskedAutoencoderFeatures"):
        super().__init__(RETFOUND, network)
        self._places = network.patches

    def patches(self, images: np.ndarray) -> np.ndarray:
        """The encoder's patches, n × d × g × g."""
        return self._given(self._places, images)


class Tower(Protocol):
    """The image tower of a model of pictures and texts."""

    def images(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        """uint8 pictures, height × width × 3, to unit vectors n×d float32, on the CPU."""


class TowerFeatures:
    """Unit vectors of a model of pictures and texts."""

    def __init__(self, name: str, tower: Tower):
        self.name, self._tower = name, tower

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the tower gives, n × d."""
        return np.concatenate([self._tower.images(list(batch)).numpy() for batch in _batches(images)])


class InceptionFeatures(NetworkFeatures):
    """Pooled features of :class:`InceptionV3` and, by its last layer without bias, probabilities of its classes."""

    def __init__(self, network: InceptionV3):
        super().__init__(INCEPTION, network)
        self._classes = network.fc.weight.detach().cpu().numpy()

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of the 1,008 classes, n × 1,008: torch-fidelity, too, scores without the bias."""
        logits = np.asarray(features, np.float64) @ self._classes.T.astype(np.float64)
        return np.asarray(softmax(logits, axis=1))


class Backbone:
    """Pooled output of a transformers vision model with the preprocessing it was trained with.

    Of a CLIP it is the projected output of the image tower.

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
                f"feature space {source!r}: neither {COHORT}, {RANDOM_CONV}, {INCEPTION}, {RETFOUND}:FILE, {FLAIR} nor "
                f"a vision model that can be loaded ({str(error).splitlines()[0]})"
            ) from None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Pooled output, or the mean over positions of a model that does not pool, n × d."""
        parts = []
        for output in self._outputs(images):
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                hidden = output.last_hidden_state  # tokens n × t × d, or maps n × d × h × w
                pooled = hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))
            parts.append(pooled.flatten(1).float().cpu().numpy())
        return np.concatenate(parts)

    def patches(self, images: np.ndarray) -> np.ndarray:
        """Features by place, n × d × g × g: maps, or the tokens of patches, which come after all others."""
        parts = []
        for output in self._outputs(images):
            hidden = output.last_hidden_state
            if hidden.ndim == 3:
                side = math.isqrt(hidden.shape[1])
                hidden = hidden[:, -(side**2) :].mT.unflatten(2, (side, side))
            parts.append(hidden.float().cpu().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def _outputs(self, images: np.ndarray) -> Iterator[Any]:
        for batch in _batches(images):
            pixels = self._processor(images=list(batch), return_tensors="pt")["pixel_values"].to(self._device)
            # A model of two towers is asked for its images alone.
            yield getattr(self._model, "get_image_features", self._model)(pixel_values=pixels)


def feature_space(name: str, seed: int, network: FeatureNetwork | None = None) -> FeatureSpace:
    """The feature space of this name.

    Args:
        name: ``cohort``, ``random_conv``, ``inception`` (or ``inception:FILE`` where its weights cannot be fetched),
            ``retfound:FILE``, ``flair`` (from the hub) or ``flair:NAME`` (file, folder or hub name), a name of
            :data:`SHORT`, or a vision backbone by hub name or folder.
        seed: of random weights.
        network: the trained classifier behind ``cohort``.

    Raises:
        UsageError: ``cohort`` without a network, or a name that cannot be loaded.
    """
    kind, _, file = name.partition(":")
    if name == COHORT:
        if network is None:
            raise UsageError("feature space 'cohort' needs a classifier trained on the real training images")
        return CohortFeatures(network)
    if name == RANDOM_CONV:
        return RandomConv(seed)
    if kind == INCEPTION:
        return InceptionFeatures(load_inception(Path(file) if file else None))
    if kind == RETFOUND:
        # transformers' models take seconds to import, and most runs need none.
        from retinalogos.metrics.retfound import MaskedAutoencoderFeatures
        from retinalogos.vision_transformer import read_retfound

        if not file:
            raise UsageError("feature space 'retfound': its weights are gated; name the file, retfound:FILE")
        return RetfoundFeatures(MaskedAutoencoderFeatures(read_retfound(Path(file))).eval())
    if kind == FLAIR:
        from retinalogos.captions.retinal_clip import load_flair_images

        try:
            return TowerFeatures(FLAIR, load_flair_images(file or FLAIR_HUB))
        except UsageError as error:
            raise UsageError(f"feature space {name!r}: {str(error).removeprefix('purify.clip.model ')}") from error
    return Backbone(SHORT.get(name, name))


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]
