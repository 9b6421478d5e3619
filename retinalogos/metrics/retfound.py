"""RETFound's masked autoencoder as a feature extractor: the space of the RET-FD.

The checkpoint (Zhou et al., Nature 2023; ViT-L/16) is a pickled mapping whose entry ``model`` holds the encoder under
timm's names beside a decoder, which is left out. The same layout serves any ViT pre-trained by MAE's code.
"""

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTModel
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from retinalogos.errors import UsageError
from retinalogos.vision_transformer import from_timm

# The encoder's weights. Patches are averaged before they are normalised, so that its last normalisation is not used.
_ENCODER = ("cls_token", "pos_embed", "patch_embed.", "blocks.")


class MaskedAutoencoderFeatures(nn.Module):
    """Encoder without masking: the mean over patches, normalised, as RETFound's classifiers begin with.

    Args:
        encoder: a ViT without its last normalisation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, encoder: ViTModel):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.tensor(IMAGENET_DEFAULT_MEAN).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEFAULT_STD).view(3, 1, 1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Features, b × d, of images of values 0-255, b × 3 × h × w."""
        patches_bd = self.patches(x_bchw).mean((2, 3))
        return F.layer_norm(patches_bd, patches_bd.shape[-1:], eps=1e-6)

    def patches(self, x_bchw: Tensor) -> Tensor:
        """Features of each patch, b × d × g × g, of images of values 0-255, b × 3 × h × w."""
        side: Any = self.encoder.config.image_size
        x_bchw = F.interpolate(x_bchw, (side, side), mode="bicubic", align_corners=False, antialias=True)
        x_bchw = (x_bchw.clamp(0, 255) / 255 - self.mean) / self.deviation
        tokens_btd = self.encoder(pixel_values=x_bchw).last_hidden_state
        grid = side // self.encoder.config.patch_size
        return tokens_btd[:, 1:].mT.unflatten(2, (grid, grid))


def load_retfound(path: Path) -> MaskedAutoencoderFeatures:
    """Reads a checkpoint in the layout of MAE's code; nothing but tensors and plain settings is unpickled.

    Raises:
        UsageError: there is no such file, or it is of another layout.
    """
    try:
        # Beside the weights lie the options of the training, as argparse gave them.
        with torch.serialization.safe_globals([argparse.Namespace]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
        encoder = {key: value for key, value in stored["model"].items() if key.startswith(_ENCODER)}
        return MaskedAutoencoderFeatures(from_timm(encoder)).eval()
    except OSError as error:
        raise UsageError(
            f"feature space 'retfound': {error}; fetch the checkpoint (huggingface.co/YukunZhou, gated) and name the "
            "file, retfound:FILE"
        ) from None
    except (KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"feature space 'retfound': {path} is no checkpoint of a ViT in the layout of MAE "
            f"({' '.join(str(error).split())[:160]})"
        ) from None
