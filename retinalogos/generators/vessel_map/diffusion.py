"""The noising process, as diffusers' schedulers have it, and drawing with a trained network."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from retinalogos.generators.vessel_map.configuration import DiffusionConfig, SamplerConfig
from retinalogos.generators.vessel_map.networks import Denoiser
from retinalogos.training.device import compute_dtype

# predict(noisy B×C×H×W, t B, condition B×K×H×W, label or level B, or caption B×D) → B×C×H×W
Predict = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Process:
    """Training side of a process: times, noisy pictures and what the network is to tell of them."""

    def __init__(self, config: DiffusionConfig):
        self.config = config
        self.flow = config.prediction == "flow"
        self._scheduler = None if self.flow else _variance_preserving(config)

    def times(self, n: int, generator: torch.Generator) -> Tensor:
        """Training timesteps, n: whole numbers, or for flow logit-normal (arXiv 2403.03206) times the timesteps."""
        if self.flow:
            return torch.sigmoid(torch.randn(n, generator=generator)) * self.config.train_timesteps
        return torch.randint(self.config.train_timesteps, (n,), generator=generator)

    def noisy(self, data_bchw: Tensor, noise_bchw: Tensor, t_b: Tensor) -> Tensor:
        """What the network sees at these times."""
        if self._scheduler is None:
            sigma = self._sigma(t_b)
            return (1 - sigma) * data_bchw + sigma * noise_bchw
        return self._scheduler.add_noise(data_bchw, noise_bchw, t_b)

    def target(self, data_bchw: Tensor, noise_bchw: Tensor, t_b: Tensor) -> Tensor:
        """What it is to tell."""
        if self._scheduler is None:
            return noise_bchw - data_bchw
        if self.config.prediction == "epsilon":
            return noise_bchw
        return self._scheduler.get_velocity(data_bchw, noise_bchw, t_b)

    def _sigma(self, t_b: Tensor) -> Tensor:
        return (t_b / self.config.train_timesteps).view(-1, 1, 1, 1)


def _variance_preserving(config: DiffusionConfig) -> DDIMScheduler:
    # With v the last step is pure noise (Lin et al., arXiv 2305.08891), as drawing begins; the noise of pure noise
    # tells nothing of the picture, so epsilon keeps the schedule as published.
    return DDIMScheduler(
        num_train_timesteps=config.train_timesteps,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction,
        rescale_betas_zero_snr=config.prediction == "v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )


def _sampler(diffusion: DiffusionConfig, sampling: SamplerConfig) -> Any:
    if sampling.scheduler == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=diffusion.train_timesteps)
    published = _variance_preserving(diffusion)
    if sampling.scheduler == "dpm_solver":
        return DPMSolverMultistepScheduler.from_config(published.config)
    return published


def starting_noise(seeds: Sequence[int], channels: int, height: int, width: int) -> Tensor:
    """N(0, I), n×channels×height×width: each picture's own, drawn on the CPU so that every device draws the same."""
    return torch.stack(
        [torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.inference_mode()
def draw(
    model: Denoiser,
    start_bchw: Tensor,
    condition_bkhw: Tensor,
    joined_b: Tensor | None,
    sampling: SamplerConfig | None = None,
    through: Callable[[Predict], Predict] | None = None,
) -> Tensor:
    """Draws pictures, B×C×H×W, from noise.

    Args:
        model: in evaluation mode.
        start_bchw: N(0, I).
        condition_bkhw: what is given.
        joined_b: labels, levels or features of captions.
        sampling: how; default the model's own.
        through: wraps the network, as :func:`~.tiles.in_tiles` does.
    """
    sampling = sampling or SamplerConfig(**model.config.sampling)
    scheduler = _sampler(DiffusionConfig(**model.config.diffusion), sampling)
    scheduler.set_timesteps(sampling.steps)
    where = next(model.parameters()).device
    dtype = compute_dtype(sampling.precision, where)
    network: Any = model

    def predict(x: Tensor, t_b: Tensor, condition: Tensor, joined_b: Tensor | None) -> Tensor:
        with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
            return network(x, t_b, condition, joined_b, autoguidance=sampling.autoguidance).float()

    told: Predict = through(predict) if through else predict
    x, condition = start_bchw.to(where), condition_bkhw.to(where)
    joined = None if joined_b is None else joined_b.to(where)
    for t in scheduler.timesteps:
        t_b = t.to(where).expand(len(x))
        predicted = told(x, t_b, condition, joined)
        if sampling.guidance > 1:
            # A level describes the condition, and stays; a label is part of it.
            nothing = joined if joined is None or model.config.levels else torch.zeros_like(joined)
            without = told(x, t_b, torch.zeros_like(condition), nothing)
            predicted = without + sampling.guidance * (predicted - without)
        x = scheduler.step(predicted, t, x, return_dict=False)[0]
    return x
