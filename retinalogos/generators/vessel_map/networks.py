"""The denoising network of all three models: diffusers' U-Net, its condition concatenated or through a ControlNet."""

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinalogos.errors import UsageError

# Channels of the first convolution over the condition; without further ones it keeps the resolution of the pixels.
_CONTROL_CHANNELS = (16,)


class Denoiser(ModelMixin, ConfigMixin):
    """Predicts noise, v or velocity of a noisy picture, given a condition of the same size.

    Args:
        part: masks, paint or enlarge.
        size: pixels it was trained on; it runs at others.
        channels: of what is drawn.
        condition_channels: of what is given.
        conditioning: ``concatenate`` or ``control``.
        labels: kinds of a label that joins the time (0: not told); 0 for none.
        levels: a number in [0, 1] joins the time, as the noise of the condition.
        scale: what is drawn is this times what is meant; see :class:`~.objective.Denoising`.
        unet: further arguments of UNet2DConditionModel.
        diffusion: of DiffusionConfig, for whoever draws with it.
        sampling: of SamplerConfig, likewise.

    Raises:
        UsageError: the U-Net refuses its arguments.
    """

    @register_to_config
    def __init__(
        self,
        part: str,
        size: int,
        channels: int,
        condition_channels: int,
        conditioning: str,
        labels: int,
        levels: bool,
        scale: float,
        unet: dict[str, Any],
        diffusion: dict[str, Any],
        sampling: dict[str, Any],
    ):
        super().__init__()
        seen = channels + (condition_channels if conditioning == "concatenate" else 0)
        joined: dict[str, Any] = {"num_class_embeds": labels} if labels else {}
        if levels:
            joined = {"class_embed_type": "timestep"}
        try:
            self.backbone = UNet2DConditionModel(
                sample_size=size, in_channels=seen, out_channels=channels, **joined, **unet
            )
            self.control = None
            if conditioning == "control":
                self.control = ControlNetModel.from_unet(
                    self.backbone,
                    conditioning_embedding_out_channels=_CONTROL_CHANNELS,
                    conditioning_channels=condition_channels,
                )
        except (TypeError, ValueError) as error:
            raise UsageError(f"{part}: the U-Net refuses its arguments {unet}: {error}") from None
        nn.init.zeros_(self.backbone.conv_out.weight)
        nn.init.zeros_(self.backbone.conv_out.bias)

    def forward(self, noisy_bchw: Tensor, t_b: Tensor, condition_bkhw: Tensor, joined_b: Tensor | None) -> Tensor:
        """Prediction, B×C×H×W.

        Args:
            noisy_bchw: what is being drawn.
            t_b: timesteps of the process.
            condition_bkhw: the condition, zero where there is none.
            joined_b: label, or level in [0, 1]; ``None`` for networks without.
        """
        # The embedding of times is made for numbers up to about 1,000.
        if joined_b is not None and self.config.levels:
            joined_b = joined_b * 1000
        if self.control is None:
            seen = torch.cat([noisy_bchw, condition_bkhw], 1)
            return self.backbone(seen, t_b, None, class_labels=joined_b, return_dict=False)[0]
        down, middle = self.control(noisy_bchw, t_b, None, condition_bkhw, class_labels=joined_b, return_dict=False)
        return self.backbone(
            noisy_bchw,
            t_b,
            None,
            class_labels=joined_b,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
