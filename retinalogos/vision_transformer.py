"""A vision transformer from weights under timm's names, as MAE, RETFound and RetiZero publish theirs.

timm itself is not needed: the weights go into the same network of transformers, and its sizes are read from them.
"""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from retinalogos.errors import UsageError

# Channels of a head of the published ViTs but MAE's H (1,280 / 16 = 80), which is not read.
_HEAD_WIDTH = 64
# timm's names → those of transformers; queries, keys and values lie in one weight there, see below.
_NAMES = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.norm1\.", r"layers.\1.layernorm_before."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"layers.\1.attention.o_proj."),
    (r"^blocks\.(\d+)\.norm2\.", r"layers.\1.layernorm_after."),
    (r"^blocks\.(\d+)\.mlp\.", r"layers.\1.mlp."),
    (r"^norm\.", "layernorm."),
)


def from_timm(weights: Mapping[str, Tensor]) -> ViTModel:
    """The network that these weights are of, without a pooler.

    Args:
        weights: ``cls_token``, ``pos_embed``, ``patch_embed.*``, ``blocks.*`` and ``norm.*``; without ``norm.weight``
            the tokens leave the network before their last normalisation.

    Raises:
        KeyError: a weight that tells a size is missing.
        RuntimeError: another is missing, unknown or of another shape.
    """
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
        num_attention_heads=width // _HEAD_WIDTH,
        intermediate_size=weights["blocks.0.mlp.fc1.weight"].shape[0],
        patch_size=patch,
        image_size=patch * round((weights["pos_embed"].shape[1] - 1) ** 0.5),
        layer_norm_eps=1e-6,  # of MAE's models, and so of RETFound and RetiZero
    )
    model = ViTModel(config, add_pooling_layer=False) if "norm.weight" in weights else unnormalised(config)
    named = {}
    for key, value in weights.items():
        if together := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key):
            block, kind = together.groups()
            for part, own in zip("qkv", value.chunk(3), strict=True):
                named[f"layers.{block}.attention.{part}_proj.{kind}"] = own
        else:
            for pattern, name in _NAMES:
                key = re.sub(pattern, name, key)
            named[key] = value
    model.load_state_dict(named)
    return model


def unnormalised(config: ViTConfig) -> ViTModel:
    """A network with random weights whose tokens leave it before their last normalisation."""
    model = ViTModel(config, add_pooling_layer=False)
    model.layernorm = nn.Identity()  # type: ignore[assignment]
    return model


# The encoder's weights. Patches are averaged before they are normalised, so that its last normalisation is not used.
_ENCODER = ("cls_token", "pos_embed", "patch_embed.", "blocks.")


def read_retfound(path: Path) -> ViTModel:
    """RETFound's encoder, without its last normalisation, from a checkpoint in the layout of MAE's code.

    The checkpoint (Zhou et al., Nature 2023; ViT-L/16) is a pickled mapping whose entry ``model`` holds the encoder
    under timm's names beside a decoder, which is left out. The same layout serves any ViT pre-trained by MAE's code.
    Nothing but tensors and plain settings is unpickled.

    Raises:
        UsageError: there is no such file, or it is of another layout.
    """
    try:
        # Beside the weights lie the options of the training, as argparse gave them.
        with torch.serialization.safe_globals([argparse.Namespace]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
        return from_timm({key: value for key, value in stored["model"].items() if key.startswith(_ENCODER)})
    except OSError as error:
        raise UsageError(
            f"retfound:{path}: {error}; fetch the checkpoint (huggingface.co/YukunZhou, gated) and name the file, "
            "retfound:FILE"
        ) from None
    except (KeyError, RuntimeError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"retfound:{path} is no checkpoint of a ViT in the layout of MAE ({' '.join(str(error).split())[:160]})"
        ) from None
