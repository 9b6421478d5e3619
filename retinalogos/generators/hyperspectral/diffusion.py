"""Diffusion in the latents of cubes: what is learned, and its training."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retinalogos.cohort.cubes import FULL_SCALE, render_rgb
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.configuration import CubeSamplingConfig, DiffusionConfig
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.denoising import Scheduler, new_scheduler, new_unet, noised, told
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.progress import track
from retinalogos.training import distributed
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import device
from retinalogos.training.loop import train

_VALIDATION_CUBES = 64
_ENCODED = 8
# Cubes drawn on a sample picture.
_SHOWN = 8
# Numbers in the latents that a prior is fitted to, at most: 400 MB, as the text generator's.
_MOST_NUMBERS = 100_000_000


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


def fit_prior(latents_nchw: Tensor, eyes: Sequence[str | None], mirror: bool, components: int) -> LatentPrior:
    """A Gaussian of each side, to which nothing is told.

    Args:
        latents_nchw: standardised; with ``mirror`` those of the mirrored cubes follow.
        eyes: side of each cube, ``left``, ``right`` or None; mirrored left eyes are right eyes.
        mirror: see there.
        components: at most, see :meth:`LatentPrior.fit`.
    """
    other = {"left": "right", "right": "left"}
    sides = [*eyes, *(other.get(eye or "") for eye in eyes)] if mirror else list(eyes)
    # Odd, so that of eyes which are left and right in turn both are taken.
    stride = latents_nchw.numel() // _MOST_NUMBERS // 2 * 2 + 1
    chosen = latents_nchw[::stride]
    nothing = torch.zeros(1)
    return LatentPrior.fit(chosen, nothing.expand(1, len(chosen), 1), nothing, components, sides[::stride])


@dataclass
class LatentDenoising:
    """Error of what the network tells of noisy latents, a function of the step's number alone.

    With a prior as a multiple of the prior's own squared error, so that all times weigh the same.

    Args:
        latents: of training cubes, standardised, n×C×h×w.
        validation: of cubes that are only measured.
        scheduler: of the noise.
        prior: of the latents, or None.
        loss: l1 or l2.
        batch_size: latents of a step.
        seed: of order, noise and times.
    """

    latents: Tensor
    validation: Tensor
    scheduler: Scheduler
    prior: LatentPrior | None
    loss: str
    batch_size: int
    seed: int

    def __call__(self, model: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Loss over ``rows`` of a training step's batch, or of the fixed validation latents where ``step`` is None."""
        drawn = self.batch(step)
        noisy, times, wanted = noised(self.scheduler, *(drawn[name][rows] for name in ("latents", "noise", "uniform")))
        where = next(model.parameters()).device
        prior = None if self.prior is None else self.prior.to(where)
        found, expected = told(model, prior, self.scheduler, noisy.to(where), times.to(where))
        # In units of the deviation that the prior expects: squared, its variance.
        error = (found - wanted.to(where)) / expected.sqrt().view(-1, 1, 1, 1)
        return error.abs().mean() if self.loss == "l1" else error.square().mean()

    def batch(self, step: int | None) -> dict[str, Any]:
        """What a step shows: ``latents`` and ``noise`` (B×C×h×w), and ``uniform`` (B), which tells times."""
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
        uniform = spread[torch.randperm(count, generator=draw)]
        return {"latents": chosen, "noise": torch.randn(chosen.shape, generator=draw), "uniform": uniform}


def train_diffusion(
    autoencoder: CubeAutoencoder,
    cubes: CubeFile,
    validation: CubeFile,
    eyes: Sequence[str | None],
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
    """Trains the U-Net on the latents of cubes, writes the generator's folder and its log, returns the metrics.

    ``eyes`` are the sides of the training cubes: ``left``, ``right`` or None.
    """
    latents = encode_all(autoencoder, cubes, diffusion.mirror, what, sampling.tile)
    # By channel: what noise is left at the end of sampling is then small in channels that hardly vary.
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3)).clamp(min=1e-6)

    def standard(z: Tensor) -> Tensor:
        return (z - mean[:, None, None]) / std[:, None, None]

    latents_standard = standard(latents)
    prior = None
    if diffusion.prior_components:
        prior = fit_prior(latents_standard, eyes, diffusion.mirror, diffusion.prior_components)
    torch.manual_seed(seed)
    unet = new_unet(diffusion, latents.shape[1], latents.shape[-1])
    scheduler = new_scheduler(diffusion)
    objective = LatentDenoising(
        latents_standard,
        standard(encode_all(autoencoder, validation, False, what, sampling.tile)),
        scheduler,
        prior,
        diffusion.loss,
        training.batch_size,
        seed,
    )
    pipeline = CubePipeline(
        unet,
        autoencoder,
        scheduler,
        prior,
        size=cubes.values.shape[-1],
        steps=sampling.steps,
        autoguidance=sampling.autoguidance,
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
    key = hashlib.sha256(json.dumps([settings, seed, list(eyes), weights], sort_keys=True).encode()).hexdigest()[:16]
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
