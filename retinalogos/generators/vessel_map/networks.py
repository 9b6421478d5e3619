"""The denoising network of all three models: diffusers' U-Net, its condition concatenated or through a ControlNet."""

from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.detail import DetailPrior
from retinalogos.generators.vessel_map.prior import PixelPrior

# Channels of the first convolution over the condition; without further ones it keeps the resolution of the pixels.
_CONTROL_CHANNELS = (16,)


class Denoiser(ModelMixin, ConfigMixin):
    """Predicts noise, v or velocity of a noisy picture, given a condition of the same size.

    Args:
        part: masks, paint or enlarge.
        size: pixels it was trained on; without a prior it runs at others.
        channels: of what is drawn.
        condition_channels: of what is given.
        conditioning: ``concatenate`` or ``control``.
        labels: kinds of a label that joins the time (0: not told); 0 for none.
        levels: a number in [0, 1] joins the time, as the noise of the condition.
        scale: what is drawn is this times what is meant; see :class:`~.objective.Denoising`.
        unet: further arguments of UNet2DConditionModel.
        diffusion: of DiffusionConfig, for whoever draws with it.
        sampling: of SamplerConfig, likewise.
        prior_shape: of PixelPrior, of ``enlarge`` of DetailPrior, which input and output of the network are then
            relative to; for the prediction ``flow``.
        text: of TextConfig; the features of a caption then join the time.
        text_dim: their number.
        map_factor: pixels of a map along one of the painter's, see :class:`~.objective.Denoising`.

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
        prior_shape: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        text_dim: int = 0,
        map_factor: int = 1,
    ):
        super().__init__()
        # Relative to a prior it sees three pictures and tells two, see text.prior.Split.
        seen, told = (3 * channels, 2 * channels) if prior_shape else (channels, channels)
        seen += condition_channels if conditioning == "concatenate" else 0
        joined: dict[str, Any] = {"num_class_embeds": labels} if labels else {}
        if levels:
            joined = {"class_embed_type": "timestep"}
        if text_dim:
            joined = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": text_dim}
        try:
            self.backbone = UNet2DConditionModel(
                sample_size=size, in_channels=seen, out_channels=told, **joined, **unet
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
        kind = DetailPrior if part == "enlarge" else PixelPrior
        self.prior = kind(**prior_shape) if prior_shape else None
        # Of a caption's features over the training captions.
        self.text_mean = nn.Parameter(torch.zeros(text_dim), requires_grad=False)
        self.text_std = nn.Parameter(torch.ones(text_dim), requires_grad=False)

    def forward(
        self,
        noisy_bchw: Tensor,
        t_b: Tensor,
        condition_bkhw: Tensor,
        joined: Tensor | None,
        autoguidance: float = 1.0,
        relative: bool = False,
    ) -> Any:
        """Prediction, B×C×H×W.

        Args:
            noisy_bchw: what is being drawn.
            t_b: timesteps of the process.
            condition_bkhw: the condition, zero where there is none.
            joined: label B, level in [0, 1] B, or features of a caption B×D, zero where there is none; ``None`` for
                networks without.
            autoguidance: times what the network adds to its prior; without a prior there is nothing to guide by.
            relative: return also the mean squared error that the prior expects of its own, B; without a prior 1.
        """
        if self.prior is None:
            told = self._network(noisy_bchw, t_b, condition_bkhw, joined)
            return (told, torch.ones(len(told), device=told.device)) if relative else told
        time = 1 - t_b.float() / self.config.diffusion["train_timesteps"]
        with torch.autocast(noisy_bchw.device.type, enabled=False):
            said = told_beside(joined, self.config.labels, len(noisy_bchw)).to(noisy_bchw)
            known = self.prior(noisy_bchw.float(), time, condition_bkhw.float(), said.float())
        predicted = self._network(known.seen_bchw, t_b, condition_bkhw, joined)
        # The prior's velocity leads to the data, that of diffusers' schedulers to the noise.
        told = -known.velocity(predicted, autoguidance)
        return (told, known.expected_b) if relative else told

    def _network(self, seen_bchw: Tensor, t_b: Tensor, condition_bkhw: Tensor, joined: Tensor | None) -> Tensor:
        # The embedding of times is made for numbers up to about 1,000.
        if joined is not None and self.config.levels:
            joined = joined * 1000
        if self.control is None:
            seen = torch.cat([seen_bchw, condition_bkhw], 1)
            return self.backbone(seen, t_b, None, class_labels=joined, return_dict=False)[0]
        down, middle = self.control(seen_bchw, t_b, None, condition_bkhw, class_labels=joined, return_dict=False)
        return self.backbone(
            seen_bchw,
            t_b,
            None,
            class_labels=joined,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]


def told_beside(joined: Tensor | None, labels: int, n: int) -> Tensor:
    """What a prior is told beside the condition, n×D: the side as 1 (left), −1 (right) or 0; a caption's features."""
    if joined is None:
        return torch.zeros(n, 0)
    if labels:
        return ((joined == 1).float() - (joined == 2).float())[:, None]
    return joined
