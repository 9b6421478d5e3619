"""Diffusion in the latents of cubes: what is learned, and its training."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.cohort.cubes import FULL_SCALE, render_rgb
from retinalogos.errors import DataError
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.configuration import CubeSamplingConfig, DiffusionConfig
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.progress import track
from retinalogos.training import distributed
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import device
from retinalogos.training.loop import train

_VALIDATION_CUBES = 64
_ENCODED = 8
# Cubes drawn on a sample picture.
_SHOWN = 8


def new_unet(config: DiffusionConfig, channels: int, size: int) -> UNet2DModel:
    """The three-level U-Net for latents of ``channels`` × ``size`` × ``size``.

    Raises:
        DataError: the latents are too small to be halved twice.
    """
    if size % 4:
        raise DataError(
            f"latents of {size} pixels cannot be halved twice: choose a size that is a multiple of 4 latents"
        )
    widths = [config.base_channels * multiplier for multiplier in config.multipliers]
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=config.layers,
        down_block_types=["AttnDownBlock2D" if attends else "DownBlock2D" for attends in config.attention],
        up_block_types=["AttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(config.attention)],
        norm_num_groups=8,
        add_attention=config.attention[-1],
    )


def new_scheduler(config: DiffusionConfig) -> DDIMScheduler:
    """The noise schedule, and the sampler that goes with it."""
    return DDIMScheduler(
        num_train_timesteps=config.timesteps,
        beta_schedule=config.schedule,
        prediction_type=config.prediction,
        clip_sample=False,  # latents have no bounds
        timestep_spacing="trailing",  # the first step is from pure noise: Lin et al., WACV 2024
        rescale_betas_zero_snr=config.prediction == "v_prediction",
    )


@torch.no_grad()
def encode_all(
    autoencoder: CubeAutoencoder, cubes: CubeFile, mirror: bool, what: str, tile: int | None = None
) -> Tensor:
    """Latents before quantisation, n×C×h×w, of all cubes; with ``mirror`` of the mirrored ones too, after them."""
    where = device()
    autoencoder = autoencoder.to(where).eval()
    found: list[Tensor] = []
    for flipped in (False, True)[: 1 + mirror]:
        for start in track(range(0, len(cubes), _ENCODED), f"{what}: encode", unit="batch"):
            x = autoencoder.to_model(cubes[range(start, min(start + _ENCODED, len(cubes)))])
            x = x.flip(-1) if flipped else x
            found.append(autoencoder.encode(x.to(where), tile).float().cpu())
    return torch.cat(found)


@dataclass
class LatentDenoising:
    """Error of the predicted noise (or velocity) at a random time, a function of the step's number alone.

    Args:
        latents: of training cubes, standardised, n×C×h×w.
        validation: of cubes that are only measured.
        scheduler: of the noise.
        loss: l1 or l2.
        batch_size: latents of a step.
        seed: of order, noise and times.
    """

    latents: Tensor
    validation: Tensor
    scheduler: DDIMScheduler
    loss: str
    batch_size: int
    seed: int

    def __call__(self, model: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Loss over ``rows`` of a training step's batch, or of the fixed validation latents where ``step`` is None."""
        drawn = self.batch(step)
        x, noise, times = (drawn[name][rows] for name in ("latents", "noise", "times"))
        noisy = self.scheduler.add_noise(x, noise, times)
        wanted = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            wanted = self.scheduler.get_velocity(x, noise, times)
        where = next(model.parameters()).device
        predicted = model(noisy.to(where), times.to(where)).sample.float()
        error = F.l1_loss if self.loss == "l1" else F.mse_loss
        return error(predicted, wanted.to(where))

    def batch(self, step: int | None) -> dict[str, Any]:
        """What a step shows: ``latents`` and ``noise`` (B×C×h×w) and ``times`` (B)."""
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + (step if step is not None else -1))
        if step is None:
            chosen = self.validation[:_VALIDATION_CUBES]
        else:
            places = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, place = divmod(position, len(self.latents))
                places.append(int(np.random.default_rng([self.seed, epoch]).permutation(len(self.latents))[place]))
            chosen = self.latents[places]
        count = len(chosen)
        # Times evenly spread over a batch: the same law, less noise in the loss (Kingma et al., NeurIPS 2021).
        spread = (torch.rand(1, generator=draw) + torch.arange(count) / count) % 1
        times = (spread[torch.randperm(count, generator=draw)] * self.scheduler.config.num_train_timesteps).long()
        return {"latents": chosen, "noise": torch.randn(chosen.shape, generator=draw), "times": times}


def train_diffusion(
    autoencoder: CubeAutoencoder,
    cubes: CubeFile,
    validation: CubeFile,
    *,
    diffusion: DiffusionConfig,
    sampling: CubeSamplingConfig,
    training: TrainingConfig,
    seed: int,
    checkpoints: Path,
    generator: Path,
    log: Path,
    what: str,
) -> dict[str, float]:
    """Trains the U-Net on the latents of cubes, writes the generator's folder and its log, returns the metrics."""
    latents = encode_all(autoencoder, cubes, diffusion.mirror, what, sampling.tile)
    # By channel: what noise is left at the end of sampling is then small in channels that hardly vary.
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp(min=1e-6)

    def standard(z: Tensor) -> Tensor:
        return (z - mean[:, None, None]) / std[:, None, None]

    torch.manual_seed(seed)
    unet = new_unet(diffusion, latents.shape[1], latents.shape[-1])
    scheduler = new_scheduler(diffusion)
    objective = LatentDenoising(
        standard(latents),
        standard(encode_all(autoencoder, validation, False, what, sampling.tile)),
        scheduler,
        diffusion.loss,
        training.batch_size,
        seed,
    )
    pipeline = CubePipeline(
        unet,
        autoencoder,
        scheduler,
        size=cubes.values.shape[-1],
        steps=sampling.steps,
        tile=sampling.tile,
        mean=mean.tolist(),
        std=std.tolist(),
    ).to(device())

    def sample(_: nn.Module, path: Path) -> None:
        drawn = pipeline(seeds=range(_SHOWN))
        if distributed.rank() == distributed.FIRST:
            path.parent.mkdir(parents=True, exist_ok=True)
            pictures = [render_rgb(cube / FULL_SCALE, cubes.wavelengths) for cube in drawn]
            Image.fromarray(np.concatenate(pictures, 1)).save(path)

    settings = [part.model_dump(mode="json") for part in (diffusion, sampling, training)]
    weights = hashlib.sha256(latents.numpy().tobytes()).hexdigest()
    key = hashlib.sha256(json.dumps([settings, seed, weights], sort_keys=True).encode()).hexdigest()[:16]
    trained = train(unet, objective, training, log, checkpoints / key, what, sample, objective.batch)
    if distributed.rank() != distributed.FIRST:
        return {}
    pipeline.register_modules(unet=trained)
    pipeline.to("cpu").save_pretrained(generator)
    shutil.rmtree(checkpoints / key, ignore_errors=True)
    last = json.loads((log / "log.jsonl").read_text().splitlines()[-1])
    return {
        "steps": training.steps,
        "cubes_seen": training.steps * training.batch_size,
        "parameters": sum(weight.numel() for weight in trained.parameters()),
        "loss": last["loss"],
        "validation_loss": last["validation_loss"],
    }
