"""Representation alignment (REPA, Yu et al., arXiv 2410.06940): a frozen encoder tells the network what lies where.

Inside the backbone, features of the noisy picture are to agree with those that an encoder has of the clean one. A small
network between the two is trained along and thrown away in the end. The encoder's features are computed once and lie
beside the latents, so that a step reads them as it reads those.
"""

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from retinalogos.errors import UsageError
from retinalogos.generators.text.configuration import RepresentationConfig
from retinalogos.generators.text.next_dit import NextDiT
from retinalogos.training.configuration import TrainingConfig

COHORT = "cohort"
# A token for each patch of the autoencoders here. Sizes and settings are those of the step `use_cubes`, at twice its
# width and a layer more; the share that is hidden is the paper's.
_NETWORK = {"patch": 8, "width": 192, "layers": 4, "heads": 4, "mask": 0.75}
_TRAINING = {
    "batch_size": 32, "pieces": 2, "learning_rate": 1e-3, "weight_decay": 0.05, "beta2": 0.95, "gradient_clip": 1.0,
    "ema_decay": 0.95, "snapshot_every": 0, "sharded": False, "checkpoint_activations": False, "compile_blocks": False,
    "precision": "auto",
}  # fmt: skip
# The part of a backbone that is trained for the alignment alone.
_PROJECTOR = "representation_projector"
# The block that is aligned, as a share of all layers: the published one is the fourth of 12 and the eighth of 24.
_DEPTH = 1 / 3
# Pieces of a batch run side by side, each in a thread of its own.
_FOUND = threading.local()


class Representation:
    """An encoder's features of pictures, by place, less those of the mean picture.

    Eyes are photographed alike: most of what an encoder says of a place is true of all of them, and tells a network
    nothing.

    Args:
        config: which encoder, and how finely its features are kept.
        pictures: some of the training split, uint8 n×h×w×3, for the mean and, with the encoder ``cohort``, to learn
            from.
        seed: of that encoder.

    Raises:
        UsageError: there is no such encoder, or it gives one vector for a whole picture.
    """

    def __init__(self, config: RepresentationConfig, pictures: np.ndarray, seed: int):
        name = config.encoder or COHORT
        self._patches = _masked_autoencoder(pictures, config.steps, seed) if name == COHORT else _by_name(name, seed)
        self._grid = config.grid
        self._mean: float | Tensor = 0.0
        found = self(pictures[:: max(1, len(pictures) // config.mean_of)])
        self._mean = found.mean(0)
        self.meta = {"encoder": name, "channels": found.shape[1], "grid": found.shape[2]}

    def __call__(self, pictures: np.ndarray) -> Tensor:
        """uint8 n×h×w×3 to float32 n×d×g×g."""
        return _coarser(torch.from_numpy(self._patches(pictures)), self._grid) - self._mean


def _by_name(name: str, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    # What reads published models takes seconds to import, and training needs none of it.
    from retinalogos.metrics.features import Local, feature_space

    space = feature_space(name, seed)
    if not isinstance(space, Local):
        raise UsageError(
            f"representation.encoder {name!r} gives one vector for a picture: choose {COHORT}, dinov2, "
            "retfound:FILE or another vision model of transformers"
        )
    return space.patches


def _masked_autoencoder(pictures: np.ndarray, steps: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Self-supervised, on the pictures given."""
    from retinalogos.masked_autoencoder import MaskedAutoencoderConfig, pretrained

    network = MaskedAutoencoderConfig.model_validate(_NETWORK)
    if pictures.shape[1] % network.patch:
        raise UsageError(
            f"representation.encoder {COHORT}: {pictures.shape[1]} pixels are no multiple of the patch "
            f"{network.patch}: choose another encode.size"
        )

    def planar(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    ends = dict.fromkeys(("checkpoint_every", "validate_every", "sample_every"), steps)
    training = TrainingConfig.model_validate(
        _TRAINING | ends | {"steps": steps, "warmup_steps": steps // 10, "log_every": max(1, steps // 10)}
    )
    with tempfile.TemporaryDirectory() as scratch:
        values = planar(pictures)
        model = pretrained(values, values, network, training, seed, Path(scratch), "encode: representation")
    return lambda some: model.patches(planar(some))


class Projector(nn.Module):
    """From the backbone's features to the encoder's: three layers, as published.

    Args:
        width: channels of the backbone's block.
        channels: of the encoder.
        grid: places along a side that the encoder's features have.
    """

    hook: RemovableHandle

    def __init__(self, width: int, channels: int, grid: int):
        super().__init__()
        self._grid = grid
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, channels)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps B×C×h×w, or tokens B×(h·h)×C, to B×d×g×g; g is h where the block is coarser than the encoder."""
        if hidden.ndim == 3:
            side = round(hidden.shape[1] ** 0.5)
            hidden = hidden.mT.unflatten(2, (side, side))
        places = _coarser(hidden, self._grid).permute(0, 2, 3, 1)
        found: Tensor = self.layers(places).permute(0, 3, 1, 2)
        return found


def attach(backbone: nn.Module, meta: dict[str, Any], seed: int) -> None:
    """Adds a :class:`Projector` to a backbone, in place; :func:`detach` takes it off again.

    The features of the U-Net's middle, of the block after a third of Next-DiT's, or of the last one in
    Lumina-Image-2.0 that sees the picture alone.

    Args:
        backbone: a network of :func:`~retinalogos.generators.text.backbones.build_backbone`.
        meta: of the latents.
        seed: of the projector's random weights.

    Raises:
        UsageError: no features lie beside the latents.
    """
    if "representation" not in meta:
        raise UsageError(
            "flow.alignment_weight is above 0, and no encoder's features lie beside the latents: set "
            "encode.representation.encoder (stage 3: encode_curated), or flow.alignment_weight=0"
        )
    network: Any = backbone
    if isinstance(backbone, UNet2DConditionModel):
        block, width = network.mid_block, network.config.block_out_channels[-1]
    elif isinstance(backbone, NextDiT):
        block, width = network.layers[round(len(network.layers) * _DEPTH) - 1], network.config.hidden_size
    else:
        block, width = network.noise_refiner[-1], network.config.hidden_size
    torch.manual_seed(seed)
    projector = Projector(width, meta["representation"]["channels"], meta["representation"]["grid"])
    backbone.add_module(_PROJECTOR, projector)

    # While the backbone computes: that is when weights in shares are whole.
    def project(block: nn.Module, _: Any, hidden: Tensor) -> None:
        if block.training:
            _FOUND.projected = projector(hidden)

    projector.hook = block.register_forward_hook(project)


def detach(backbone: nn.Module) -> None:
    """Takes off what :func:`attach` added; without it, does nothing."""
    if _PROJECTOR in backbone._modules:
        getattr(backbone, _PROJECTOR).hook.remove()
        delattr(backbone, _PROJECTOR)


def disagreement(features_bdgg: Tensor) -> Tensor:
    """1 − cosine of the encoder's features and what the backbone that has just run in this thread makes of them.

    The mean over pictures and places. REPA's loss is this less 1, which has the same gradient.
    """
    projected = _FOUND.__dict__.pop("projected").float()
    features = _coarser(features_bdgg, projected.shape[-1]).to(projected.device)
    return (1 - F.cosine_similarity(projected, features, dim=1)).mean()


def _coarser(maps_bchw: Tensor, side: int) -> Tensor:
    """Averaged to ``side`` places along a side, where there are more."""
    return F.adaptive_avg_pool2d(maps_bchw, side) if maps_bchw.shape[-1] > side else maps_bchw
