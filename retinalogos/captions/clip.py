"""A published CLIP-type model by name: pictures and captions as unit vectors of one space.

Any model of transformers that has ``get_image_features`` and ``get_text_features``: CLIP, SigLIP, ALIGN, …
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retinalogos.errors import UsageError

# SigLIP's processors pad to the model's length in training alone when told so, and the models expect it.
_PADDED_TO_LENGTH = ("siglip", "siglip2")


@dataclass(frozen=True)
class ClipModel:
    """A model and its processor.

    Args:
        model: with ``get_image_features``, ``get_text_features`` and ``logit_scale``.
        processor: of its pictures and texts.
        words: most tokens of a text; what is longer is cut, as the model was trained.
    """

    model: Any
    processor: Any
    words: int

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ClipModel":
        """Loads by folder or hub name.

        Raises:
            UsageError: nothing of that name can be loaded, or it is no model of pictures and texts.
        """
        from transformers import AutoModel, AutoProcessor

        try:
            model = AutoModel.from_pretrained(name, dtype=torch.float32).eval().requires_grad_(False).to(device)
            if not all(hasattr(model, part) for part in ("get_image_features", "get_text_features", "logit_scale")):
                raise UsageError(
                    f"clip_model {name!r} is a {type(model).__name__}: it does not map pictures and texts to one "
                    "space; give a CLIP-type model"
                )
            processor = AutoProcessor.from_pretrained(name)
        except UsageError:
            raise
        except (OSError, ValueError) as error:
            raise UsageError(
                f"clip_model {name!r}: no such folder and not to be had from the hub ({str(error).splitlines()[0]})"
            ) from error
        return cls(model, processor, int(model.config.text_config.max_position_embeddings))

    @property
    def scale(self) -> float:
        """What the model multiplies cosines with."""
        return float(self.model.logit_scale.exp())

    @torch.inference_mode()
    def images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 pictures, height × width × 3, to unit vectors n×d float32."""
        inputs = self.processor(images=list(pictures), return_tensors="pt").to(self.model.device)
        return _unit(self.model.get_image_features(**inputs))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors n×d float32."""
        padding = "max_length" if self.model.config.model_type in _PADDED_TO_LENGTH else True
        inputs = self.processor(
            text=list(texts), padding=padding, truncation=True, max_length=self.words, return_tensors="pt"
        ).to(self.model.device)
        return _unit(self.model.get_text_features(**inputs))


def _unit(features: Any) -> Tensor:
    # Releases of transformers differ in whether the projected vector comes alone or with the tower's states.
    return F.normalize(getattr(features, "pooler_output", features).float(), dim=-1).cpu()
