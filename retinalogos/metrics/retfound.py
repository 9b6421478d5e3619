"""RETFound's masked autoencoder as a feature extractor: the space of the RET-FD."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTModel
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD


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
