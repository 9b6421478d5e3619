"""A published CLIP-type model by name: pictures and captions as unit vectors of one space.

Each loader reads the layout in which its models are published:

- ``transformers``: any model that has ``get_image_features`` and ``get_text_features``: CLIP, SigLIP, ALIGN, …
- ``open_clip``: any model of the package open_clip_torch, BiomedCLIP among them; the package is needed.
- ``flair``, ``retizero``: models of the retina, :mod:`retinalogos.captions.retinal_clip`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from retinalogos.captions.configuration import ClipConfig
from retinalogos.captions.retinal_clip import RetinalClip, load_flair, load_retizero
from retinalogos.errors import UsageError

# SigLIP's processors pad to the model's length in training alone when told so, and the models expect it.
_PADDED_TO_LENGTH = ("siglip", "siglip2")


class ClipModel(Protocol):
    """Maps pictures and texts to one sphere."""

    @property
    def scale(self) -> float:
        """What the model multiplies cosines with."""

    def images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 pictures, height × width × 3, to unit vectors n×d float32, on the CPU."""

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors n×d float32, on the CPU; what is longer than the model reads is cut."""


def load_clip_model(config: ClipConfig, device: torch.device) -> ClipModel:
    """The model that the settings name.

    Raises:
        UsageError: none is named, nothing of that name can be loaded, or it is no model of pictures and texts.
    """
    if not config.model:
        raise UsageError("purify.clip.model is empty: give a file, a folder or a hub name")
    return _LOADERS[config.loader](config, device)


class TransformersClip:
    """A model of transformers.

    Args:
        name: folder or hub name.
        device: where it is to run.

    Raises:
        UsageError: nothing of that name can be loaded, or it is no model of pictures and texts.
    """

    def __init__(self, name: str, device: torch.device):
        from transformers import AutoModel, AutoProcessor

        try:
            model = AutoModel.from_pretrained(name, dtype=torch.float32)
            if not all(hasattr(model, part) for part in ("get_image_features", "get_text_features", "logit_scale")):
                raise UsageError(
                    f"purify.clip.model {name!r} is a {type(model).__name__}: it does not map pictures and texts to "
                    "one space; give a CLIP-type model, or another purify.clip.loader"
                )
            self.processor: Any = AutoProcessor.from_pretrained(name)
        except UsageError:
            raise
        except (OSError, ValueError) as error:
            raise _not_found(name, error) from error
        self.model: Any = model.eval().requires_grad_(False).to(device)
        self._words = int(model.config.text_config.max_position_embeddings)

    @property
    def scale(self) -> float:
        """See :class:`ClipModel`."""
        return float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """See :class:`ClipModel`."""
        inputs = self.processor(images=list(pictures), return_tensors="pt").to(self.model.device)
        return _unit(self.model.get_image_features(**inputs))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """See :class:`ClipModel`."""
        padding = "max_length" if self.model.config.model_type in _PADDED_TO_LENGTH else True
        inputs = self.processor(
            text=list(texts), padding=padding, truncation=True, max_length=self._words, return_tensors="pt"
        ).to(self.model.device)
        return _unit(self.model.get_text_features(**inputs))


class OpenClip:
    """A model of open_clip.

    Args:
        name: a folder with ``open_clip_config.json`` and its weights, a hub name (``hf-hub:`` may be left out), or an
            architecture and the tag of its weights as ``ViT-B-32/laion2b_s34b_b79k``.
        device: where it is to run.

    Raises:
        UsageError: open_clip is not installed, or nothing of that name can be loaded.
    """

    def __init__(self, name: str, device: torch.device):
        try:
            import open_clip
        except (ImportError, RuntimeError) as error:  # torchvision of another torch ends with a RuntimeError
            raise UsageError(
                "purify.clip.loader open_clip needs the packages open_clip_torch and torchvision, the latter built for "
                f"the torch that is installed ({error}): pip install 'retinalogos[open-clip]', or take another loader"
            ) from error
        architecture, _, tag = name.partition("/")
        if Path(name).is_dir():
            model_name, weights = f"local-dir:{name}", None
        elif architecture in open_clip.list_models():
            model_name, weights = architecture, tag
        else:
            model_name, weights = f"hf-hub:{name.removeprefix('hf-hub:')}", None
        try:
            model, self._look = open_clip.create_model_from_pretrained(model_name, pretrained=weights)
            self._read = open_clip.get_tokenizer(model_name)
        except (OSError, ValueError, RuntimeError) as error:
            raise _not_found(name, error) from error
        self.model: Any = model.eval().requires_grad_(False).to(device)
        self._device = device

    @property
    def scale(self) -> float:
        """See :class:`ClipModel`."""
        return float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """See :class:`ClipModel`."""
        batch_bchw = torch.stack([self._look(Image.fromarray(picture)) for picture in pictures])
        return _unit(self.model.encode_image(batch_bchw.to(self._device)))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """See :class:`ClipModel`."""
        return _unit(self.model.encode_text(self._read(list(texts)).to(self._device)))


def _not_found(name: str, error: Exception) -> UsageError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(f"purify.clip.model {name!r}: no such folder and not to be had from the hub ({reason})")


def _unit(features: Any) -> Tensor:
    # Releases of transformers differ in whether the projected vector comes alone or with the tower's states.
    return F.normalize(getattr(features, "pooler_output", features).float(), dim=-1).cpu()


def _retinal(load: Callable[[str, str], RetinalClip]) -> Callable[[ClipConfig, torch.device], ClipModel]:
    return lambda config, device: load(config.model, config.text_model).to(device)


_LOADERS: Mapping[str, Callable[[ClipConfig, torch.device], ClipModel]] = {
    "transformers": lambda config, device: TransformersClip(config.model, device),
    "open_clip": lambda config, device: OpenClip(config.model, device),
    "flair": _retinal(load_flair),
    "retizero": _retinal(load_retizero),
}
