"""The trained generator as a diffusers pipeline: a folder that loads and draws cubes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import SchedulerMixin, UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from retinalogos.errors import UsageError
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.denoising import told
from retinalogos.generators.text.flow import solve
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.progress import track


class CubePipeline(DiffusionPipeline):
    """Noise to hyperspectral cube: diffusion in the latents, codes, decoder.

    Args:
        unet: predicts noise or velocity in standardised latents, relative to the prior where there is one.
        autoencoder: its codes are what is decoded.
        scheduler: of the noise that the network was trained with.
        prior: of standardised latents; None for none.
        size: pixels of the cubes that it was trained on.
        steps: network evaluations that sampling spends.
        mean: of the latents by channel; None for 0.
        std: of the latents by channel; None for 1.
        autoguidance: times what the network adds to the prior is drawn.
        tile: pixels of the squares that are decoded one by one; None: whole cubes.

    Raises:
        UsageError: mean or std has not one value for each latent channel.
    """

    _optional_components: ClassVar[list[str]] = ["prior"]

    def __init__(
        self,
        unet: UNet2DModel,
        autoencoder: CubeAutoencoder,
        scheduler: SchedulerMixin,
        prior: LatentPrior | None = None,
        # diffusers reads from model_index.json only arguments that have a default; saved folders hold them all.
        size: int = 64,
        steps: int = 50,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        autoguidance: float = 1.0,
        tile: int | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, autoencoder=autoencoder, scheduler=scheduler, prior=prior)
        channels = autoencoder.latent_channels
        statistics = {
            "mean": [0.0] * channels if mean is None else [float(value) for value in mean],
            "std": [1.0] * channels if std is None else [float(value) for value in std],
        }
        for name, values in statistics.items():
            if len(values) != channels:
                raise UsageError(f"{name} has {len(values)} values, the latents have {channels} channels")
        self.register_to_config(size=size, steps=steps, autoguidance=autoguidance, tile=tile, **statistics)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "CubePipeline":
        """Loads a folder written by ``save_pretrained``; in evaluation mode.

        Raises:
            UsageError: the folder is no such generator.
        """
        if not (Path(folder) / "model_index.json").is_file():
            raise UsageError(f"{folder} is no generator: it has no model_index.json; run `train_cube_diffusion`")
        try:
            pipeline: CubePipeline = super().from_pretrained(str(folder), **options)
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{folder} is damaged, or no generator of cubes: {str(error).splitlines()[0]}") from None
        for part in pipeline.networks():
            part.eval().requires_grad_(False)
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Writes a diffusers-layout folder, without the places on this machine that its parts were loaded from."""
        for part in (self, *self.networks()):
            part.register_to_config(_name_or_path="")
        super().save_pretrained(save_directory, **options)

    def networks(self) -> list[Any]:
        """U-Net and autoencoder, and the prior where there is one."""
        return [part for part in (self.unet, self.autoencoder, self.prior) if part is not None]

    @property
    def wavelengths(self) -> list[float]:
        """Wavelengths, nm, of the bands it draws."""
        return [float(nm) for nm in self.autoencoder.config.wavelengths]

    @torch.inference_mode()
    def __call__(
        self,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
        size: int | None = None,
        batch_size: int = 16,
        progress: str | None = None,
    ) -> np.ndarray:
        """Draws one cube for each seed; a cube depends on its seed, and on its batch by rounding alone.

        Args:
            seeds: one for each cube.
            steps: network evaluations; default as trained.
            size: pixels; a size that it was not trained on is drawn directly, whatever comes of it, and not at all
                where there is a prior.
            batch_size: cubes drawn at once.
            progress: name of a progress line to show.

        Returns:
            uint16, n×bands×size×size; 65535 is a reflectance of 1.

        Raises:
            UsageError: the size has no whole number of latents that can be halved twice, or there are more steps than
                the noise of training had.
        """
        size = size or self.config.size
        unit = 4 * self.autoencoder.compression
        if size % unit:
            raise UsageError(f"size {size} is no multiple of {unit} pixels (four latents)")
        if (steps or 0) > self.scheduler.config.num_train_timesteps:
            most = self.scheduler.config.num_train_timesteps
            raise UsageError(f"{steps} steps are more than the {most} of the noise that the network was trained with")
        shape = (self.autoencoder.latent_channels, size // self.autoencoder.compression)
        starts: Any = range(0, len(seeds), batch_size)
        if progress:
            starts = track(starts, progress, unit="batch")
        mean, std = (torch.tensor(self.config[name], device=self.device).view(-1, 1, 1) for name in ("mean", "std"))
        drawn = []
        for start in starts:
            # On the CPU, so that every device draws the same.
            noise = [
                torch.randn(shape[0], shape[1], shape[1], generator=torch.Generator().manual_seed(seed))
                for seed in seeds[start : start + batch_size]
            ]
            x = self._denoised(torch.stack(noise).to(self.device), steps or self.config.steps)
            codes, _ = self.autoencoder.quantise(x * std + mean)
            drawn.append(self.autoencoder.from_model(self.autoencoder.decode(codes, self.config.tile)))
        return np.concatenate(drawn)

    def _denoised(self, x_bchw: torch.Tensor, steps: int) -> torch.Tensor:
        """Latents from noise: by the scheduler, or where there is a prior along it, see :func:`solve`."""
        if self.prior is None:
            self.scheduler.set_timesteps(steps)
            for time in self.scheduler.timesteps:
                found, _ = told(self.unet, None, self.scheduler, x_bchw, time.to(x_bchw.device).expand(len(x_bchw)))
                x_bchw = self.scheduler.step(found, time, x_bchw).prev_sample
            return x_bchw
        of_training = self.scheduler.config.num_train_timesteps

        def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            # Of diffusers' schedulers time and velocity lead to the noise.
            return -told(self.unet, self.prior, self.scheduler, x, (1 - t) * of_training, self.config.autoguidance)[0]

        return solve(self.prior.field(velocity, x_bchw.new_zeros(len(x_bchw), 1)), x_bchw, steps)
