"""The network of the diffusion, the noising process, and what is told of noisy latents."""

from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn

from retinalogos.errors import DataError
from retinalogos.generators.hyperspectral.configuration import DiffusionConfig
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.training.device import device

# Latents of a side up to which attention on a CPU is by matrix products. In bfloat16 the backward pass of PyTorch's
# fused kernel takes ten times as long for 64 positions of 8 channels (benchmarks/cubes.py); over many it saves memory.
_SHORT = 32
# Either of the two; diffusers tells no types.
Scheduler = Any


def new_unet(config: DiffusionConfig, channels: int, size: int) -> UNet2DModel:
    """The three-level U-Net for latents of ``channels`` × ``size`` × ``size``.

    Relative to a prior it sees three such pictures and tells two, see
    :class:`~retinalogos.generators.text.prior.Split`, and begins with the prior alone.

    Raises:
        DataError: the latents are too small to be halved twice.
    """
    if size % 4:
        raise DataError(
            f"latents of {size} pixels cannot be halved twice: choose a size that is a multiple of 4 latents"
        )
    widths = [config.base_channels * multiplier for multiplier in config.multipliers]
    seen, told = (3, 2) if config.prior_components else (1, 1)
    unet = UNet2DModel(
        sample_size=size,
        in_channels=seen * channels,
        out_channels=told * channels,
        block_out_channels=widths,
        layers_per_block=config.layers,
        down_block_types=["AttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention],
        up_block_types=["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(config.attention)],
        norm_num_groups=8,
        add_attention=config.attention[-1],
    )
    if config.prior_components:
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
    if device().type == "cpu" and size <= _SHORT:
        for module in unet.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor())
    return unet


def new_scheduler(config: DiffusionConfig) -> Scheduler:
    """The noise schedule, and the sampler that goes with it: DDIM, or Euler's steps on a straight path."""
    if config.prediction == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=config.timesteps)
    return DDIMScheduler(
        num_train_timesteps=config.timesteps,
        beta_schedule=config.schedule,
        prediction_type=config.prediction,
        clip_sample=False,  # latents have no bounds
        timestep_spacing="trailing",  # the first step is from pure noise: Lin et al., WACV 2024
        rescale_betas_zero_snr=config.prediction == "v_prediction",
    )


def noised(scheduler: Scheduler, x_bchw: Tensor, noise_bchw: Tensor, uniform_b: Tensor) -> tuple[Tensor, ...]:
    """Noisy latents, their timesteps B, and what the network is to tell of them, B×C×h×w.

    Args:
        scheduler: of the process.
        x_bchw: standardised latents.
        noise_bchw: N(0, I).
        uniform_b: in [0, 1), from which the times come: evenly, or for a straight path logit-normally (Esser et al.,
            arXiv 2403.03206).
    """
    steps = scheduler.config.num_train_timesteps
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        sigma = torch.sigmoid(torch.special.ndtri(uniform_b)).view(-1, 1, 1, 1)
        return (1 - sigma) * x_bchw + sigma * noise_bchw, sigma.flatten() * steps, noise_bchw - x_bchw
    times = (uniform_b * steps).long()
    wanted = noise_bchw
    if scheduler.config.prediction_type == "v_prediction":
        wanted = scheduler.get_velocity(x_bchw, noise_bchw, times)
    return scheduler.add_noise(x_bchw, noise_bchw, times), times, wanted


def told(
    unet: nn.Module,
    prior: LatentPrior | None,
    scheduler: Scheduler,
    noisy_bchw: Tensor,
    times_b: Tensor,
    autoguidance: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """What the network tells of noisy latents, B×C×h×w, and the mean squared error that the prior expects to make, B.

    Without a prior that error is 1.

    Args:
        unet: of :func:`new_unet`.
        prior: what its input and output are relative to; None: it tells everything by itself.
        scheduler: of the process.
        noisy_bchw: latents with noise.
        times_b: timesteps.
        autoguidance: times what it adds to the prior; without a prior there is nothing to guide by.
    """
    network: Any = unet
    if prior is None:
        return network(noisy_bchw, times_b).sample.float(), torch.ones(len(noisy_bchw), device=noisy_bchw.device)
    data_share = 1 - times_b.float() / scheduler.config.num_train_timesteps
    with torch.autocast(noisy_bchw.device.type, enabled=False):
        split = prior(noisy_bchw.float(), data_share, noisy_bchw.new_zeros(len(noisy_bchw), 1, dtype=torch.float32))
    # The prior's velocity leads to the data, that of diffusers' schedulers to the noise.
    velocity = split.velocity(network(split.seen_bchw, times_b).sample, autoguidance)
    return -velocity, split.spread_bc11.square().mean((1, 2, 3))
