"""The velocity networks behind one interface, chosen by name: ``next_dit``, ``unet`` and ``lumina2``.

Weights of all load and save in diffusers' layout, which everyone uses. The interface is :func:`velocity`; t = 1 is
data for all.
"""

from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinalogos.errors import UsageError
from retinalogos.generators.text.next_dit import PUBLISHED_CLASS, NextDiT
from retinalogos.generators.text.prior import LatentPrior

BackboneName = Literal["next_dit", "unet", "lumina2"]

# The U-Net's sinusoidal embedding is made for 1,000 discrete steps; Next-DiT takes t in [0, 1] as it is.
_UNET_TIME_SCALE = 1000.0


def build_backbone(
    name: BackboneName, latent_channels: int, text_dim: int, size: int, config: dict[str, Any], prior: bool = False
) -> ModelMixin:
    """A new backbone with seeded random weights (seed torch before the call).

    Args:
        name: ``next_dit`` (:class:`NextDiT`), ``unet`` (diffusers' UNet2DConditionModel) or ``lumina2``
            (Lumina-Image-2.0, arXiv 2503.21758: diffusers' Lumina2Transformer2DModel).
        latent_channels: C of the latents.
        text_dim: width of a token's features.
        size: width of the latents; only recorded, all networks run at other sizes.
        config: further arguments of the class, e.g. ``hidden_size`` or ``block_out_channels``.
        prior: whether it refines a :class:`LatentPrior`, see :class:`Split`: it then sees 3C channels and predicts 2C.

    Raises:
        UsageError: an unknown name or an argument the class does not have.
    """
    seen, predicted = (3 * latent_channels, 2 * latent_channels) if prior else (latent_channels, latent_channels)
    common = {"sample_size": size, "in_channels": seen}
    shared = common | {"cross_attention_dim": text_dim}
    try:
        if name == "next_dit":
            return _start_at_zero(NextDiT(**shared, learn_sigma=False, **config))
        if name == "unet":
            narrowest, head_dim = min(config["block_out_channels"]), config["attention_head_dim"]
            if narrowest < head_dim:
                raise ValueError(f"heads of {head_dim} channels do not fit into a level of {narrowest}")
            # The pooled caption joins the time embedding, as it does in Next-DiT.
            pooled = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": text_dim}
            return _start_at_zero(UNet2DConditionModel(**shared, out_channels=predicted, **pooled, **config))
        if name == "lumina2":
            own = common | {"out_channels": predicted, "cap_feat_dim": text_dim}
            model = diffusers.Lumina2Transformer2DModel(**own, **config)
            head = model.config.hidden_size // model.config.num_attention_heads
            if sum(model.config.axes_dim_rope) != head:
                raise ValueError(
                    f"axes_dim_rope {model.config.axes_dim_rope} do not add up to a head's {head} channels"
                )
            return _start_at_zero(model)
    except (TypeError, ValueError) as error:
        raise UsageError(f"backbone {name} refuses its configuration {config}: {error}") from None
    raise UsageError(f"unknown backbone {name!r}: choose next_dit, unet or lumina2")


def _start_at_zero(model: ModelMixin) -> ModelMixin:
    """Zero-initialises the output, so that training starts from the prior alone.

    In Next-DiT also the modulation and the caption embedding, in Lumina-Image-2.0 the modulation, as the released code
    of both does.
    """
    if isinstance(model, UNet2DConditionModel):
        zeros = [model.conv_out]
    else:
        zeros = [model.norm_out.linear_1, model.norm_out.linear_2, *(layer.norm1.linear for layer in model.layers)]
        if isinstance(model, NextDiT):
            zeros.append(model.time_caption_embed.caption_embedder[1])
        else:
            zeros += [layer.norm1.linear for layer in model.noise_refiner]
    for linear in zeros:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return model


def load_backbone(name: str | Path, subfolder: str | None = None) -> ModelMixin:
    """Loads a diffusers folder or a model of the hub, e.g. ``Alpha-VLLM/Lumina-Next-SFT-diffusers``.

    Raises:
        UsageError: not to be found, or of a class that is no backbone.
    """
    try:
        config = UNet2DConditionModel.load_config(str(name), subfolder=subfolder)
        ours = (PUBLISHED_CLASS, NextDiT.__name__)
        kinds = (*ours, "UNet2DConditionModel", "Lumina2Transformer2DModel")
        kind = config["_class_name"]
        if kind not in kinds:
            raise UsageError(f"{name} holds a {kind}; a backbone is one of {', '.join(kinds)}")
        # diffusers imports a class when it is first asked for.
        loaded: Any = NextDiT if kind in ours else getattr(diffusers, kind)
        return loaded.from_pretrained(str(name), subfolder=subfolder)
    except OSError as error:
        raise UsageError(f"backbone {name}: no such folder and not to be had from the hub ({error})") from None


def velocity(
    backbone: nn.Module,
    prior: LatentPrior | None,
    x_bchw: Tensor,
    t_b: Tensor,
    text_bnd: Tensor,
    mask_bn: Tensor,
    pooled_bd: Tensor,
    autoguidance: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Predicted velocity (data − noise), B×C×H×W, and the mean squared error that the prior expects of its own, B.

    Without a prior that error is 1.

    Args:
        backbone: a network of :func:`build_backbone` or :func:`load_backbone`.
        prior: what the network's input and output are relative to; ``None``: it predicts the velocity itself.
        x_bchw: latents on the path.
        t_b: time in [0, 1], 1 is data.
        text_bnd: token features.
        mask_bn: 1 where there is a token; padding is on the right.
        pooled_bd: one vector per caption, for the U-Net; the others see tokens only.
        autoguidance: see :class:`Split`; without a prior there is nothing to guide by.
    """
    if prior is not None:
        with torch.autocast(x_bchw.device.type, enabled=False):
            split = prior(x_bchw.float(), t_b, pooled_bd.float())
        predicted, _ = velocity(backbone, None, split.seen_bchw, t_b, text_bnd, mask_bn, pooled_bd)
        return split.velocity(predicted, autoguidance), split.spread_bc11.square().mean((1, 2, 3))
    if isinstance(backbone, NextDiT):
        # Lumina's own weights predict a variance too, which flow matching does not use.
        return backbone(x_bchw, t_b, text_bnd, mask_bn)[:, : backbone.in_channels], torch.ones_like(t_b)
    if not isinstance(backbone, UNet2DConditionModel):
        # Lumina-Image-2.0. Its pipeline counts from noise as we do, and negates what its scheduler takes the other way.
        return backbone(x_bchw, t_b, text_bnd, mask_bn, return_dict=False)[0], torch.ones_like(t_b)
    predicted = backbone(
        x_bchw,
        t_b * _UNET_TIME_SCALE,
        text_bnd,
        class_labels=pooled_bd,
        encoder_attention_mask=mask_bn.to(x_bchw.dtype),
        return_dict=False,
    )[0]
    return predicted, torch.ones_like(t_b)
