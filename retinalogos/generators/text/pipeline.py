"""The trained generator as a diffusers pipeline: a folder that loads and samples."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor
from torch.nn.functional import max_pool2d

from retinalogos.errors import UsageError
from retinalogos.generators.text.autoencoder import as_autoencoder, to_model_range, to_uint8
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.conditioning import TextConditioning, TextEncoder, load_text_encoder
from retinalogos.generators.text.flow import Field, guided, interpolate, solve, straight, target_velocity, unit_gaussian
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.progress import track
from retinalogos.training.configuration import Precision
from retinalogos.training.device import compute_dtype


class TextToFundusPipeline(DiffusionPipeline):
    """Text to colour fundus photograph by velocity flow matching.

    The frozen text encoder is kept by name, not by copy: it is the published one.

    Args:
        backbone: the velocity network.
        autoencoder: :class:`PatchAutoencoder` or ``AutoencoderKL``.
        conditioning: scale of the text features.
        prior: of the latents; ``None`` for a network that predicts the velocity itself, as published ones do.
        text_encoder_name: see :func:`load_text_encoder`.
        text_layer: hidden state of the text encoder that is used.
        token_budget: most tokens of a prompt.
        size: width of the pictures it was last trained on, pixels.
        steps: network evaluations that sampling spends.
        guidance: scale of classifier-free guidance.
        time_shift: of the sampling grid.
        solver: of :func:`solve`.
        guidance_interval: times between which guidance acts; outside, only the prompt's own velocity is computed.
        renormalise: see :func:`guided`.
        autoguidance: away from the prior, see :class:`Split`; 1 for none.
        precision: of the network, see :func:`compute_dtype`; solver and autoencoder compute in float32.
    """

    # For diffusers: a folder without it is whole.
    _optional_components: ClassVar[list[str]] = ["prior"]

    def __init__(
        self,
        backbone: ModelMixin,
        autoencoder: ModelMixin,
        conditioning: TextConditioning,
        prior: LatentPrior | None,
        # diffusers reads from model_index.json only arguments that have a default; saved folders hold them all.
        text_encoder_name: str = "minilm",
        text_layer: int = -1,
        token_budget: int = 64,
        size: int = 128,
        steps: int = 10,
        guidance: float = 1.5,
        time_shift: float = 1.0,
        solver: str = "splitting",
        guidance_interval: list[float] | None = None,
        renormalise: bool = False,
        autoguidance: float = 1.0,
        precision: Precision = "auto",
    ):
        super().__init__()
        self.register_modules(backbone=backbone, autoencoder=autoencoder, conditioning=conditioning, prior=prior)
        self.register_to_config(
            text_encoder_name=text_encoder_name,
            text_layer=text_layer,
            token_budget=token_budget,
            size=size,
            steps=steps,
            guidance=guidance,
            time_shift=time_shift,
            solver=solver,
            guidance_interval=guidance_interval or [0.0, 1.0],
            renormalise=renormalise,
            autoguidance=autoguidance,
            precision=precision,
        )
        self._encoder: TextEncoder | None = None

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "TextToFundusPipeline":
        """Loads a folder written by ``save_pretrained``; in evaluation mode."""
        pipeline = super().from_pretrained(str(folder), **options)
        for part in pipeline.parts():
            part.eval().requires_grad_(False)
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Writes a diffusers-layout folder, without the places on this machine that its parts were loaded from."""
        for part in (self, *self.parts()):
            part.register_to_config(_name_or_path="")
        super().save_pretrained(save_directory, **options)

    def parts(self) -> list[ModelMixin]:
        """The models that it is made of."""
        return [part for part in self.components.values() if part is not None]

    @property
    def text_encoder(self) -> TextEncoder:
        """The frozen text encoder, loaded at first use."""
        if self._encoder is None:
            self._encoder = load_text_encoder(
                self.config.text_encoder_name, self.config.token_budget, self.config.text_layer, self.device
            )
        return self._encoder

    @torch.inference_mode()
    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        autoguidance: float | None = None,
        size: int | None = None,
        batch_size: int = 16,
        progress: str | None = None,
    ) -> np.ndarray:
        """Draws one picture for each prompt.

        Args:
            prompts: text, at most ``token_budget`` tokens each.
            seeds: one for each picture; a picture depends on its prompt and seed, not on its batch.
            steps: network evaluations; default as trained.
            guidance: scale of classifier-free guidance, 1 for none; default as trained.
            autoguidance: away from the prior, 1 for none; default as trained.
            size: width in pixels, a multiple of the autoencoder's downscale factor; default as trained.
            batch_size: pictures drawn at once.
            progress: name of a progress line to show.

        Returns:
            uint8 array, n×size×size×3.

        Raises:
            UsageError: a prompt is over the token budget, or the size no multiple of the downscale factor.
        """
        prompts, seeds = _pairs(prompts, seeds)
        size = size or self.config.size
        if size % self._downscale:
            below = size - size % self._downscale
            near = f"{below} and {below + self._downscale}"
            raise UsageError(f"size {size} is no multiple of {self._downscale} pixels; near it are {near}")
        starts: Any = range(0, len(prompts), batch_size)
        if progress:
            starts = track(starts, progress, unit="batch")
        width = size // self._downscale
        drawn = []
        for start in starts:
            rows = slice(start, start + batch_size)
            noise = starting_noise(seeds[rows], self._latent_channels, width).to(self.device)
            field = self._field(prompts[rows], guidance, autoguidance)
            drawn.append(self._solve(field, noise, steps or self.config.steps))
        return np.concatenate(drawn)

    @torch.inference_mode()
    def edit(
        self,
        images: np.ndarray,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int],
        strength: float = 0.6,
        masks: np.ndarray | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Redraws pictures by their prompts: image to image (SDEdit, Meng et al., arXiv 2108.01073), or inpainting.

        Where a mask is 0 the picture's latents are kept on their own straight path from noise to data, whatever the
        network says, and its pixels are put back at the end.

        Args:
            images: uint8, n×size×size×3, of the size that the generator draws.
            prompts: one for each picture.
            seeds: one for each picture.
            strength: in (0, 1]: share of the way to noise that a picture is taken back; 1 keeps nothing of it. 0.6
                redraws what is fine and keeps field, tone and the place of the disc.
            masks: uint8 or bool, n×size×size, not 0 where the picture is redrawn; ``None``: everywhere.
            steps: network evaluations of the whole way; a weaker edit spends its share of them.
            guidance: as in the call.

        Returns:
            uint8 array of the shape of ``images``.

        Raises:
            UsageError: strength out of range, or masks of another size than the pictures.
        """
        prompts, seeds = _pairs(prompts, seeds)
        if not 0 < strength <= 1:
            raise UsageError(f"strength {strength} is not above 0 and at most 1")
        if masks is not None and masks.shape != images.shape[:3]:
            raise UsageError(f"masks of shape {masks.shape} for pictures of shape {images.shape[:3]}")
        data = as_autoencoder(self.autoencoder).encode(to_model_range(images).to(self.device))
        noise = starting_noise(seeds, self._latent_channels, data.shape[-1]).to(self.device)
        field, begin = self._field(prompts, guidance), 1 - strength
        x = interpolate(data, noise, data.new_full((len(data),), begin))
        count = max(2, math.ceil((steps or self.config.steps) * strength))
        if masks is None:
            return self._solve(field, x, count, begin)
        redrawn = torch.from_numpy(masks != 0).to(self.device)
        # A latent is free as soon as one of its pixels is.
        free = max_pool2d(redrawn[:, None].float(), self._downscale)
        drawn = self._solve(straight(target_velocity(data, noise)).mixed(field, free), x, count, begin)
        return np.where(masks[..., None] != 0, drawn, images)

    @torch.inference_mode()
    def between(
        self,
        first: str,
        second: str,
        shares: Sequence[float],
        *,
        seed: int,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Draws one eye on the way from one prompt to another: the velocities of both, mixed.

        Args:
            first: prompt at share 0.
            second: prompt at share 1.
            shares: of the second prompt, in [0, 1], one for each picture.
            seed: of all of them: it is the same eye.
            steps: network evaluations of each prompt.
            guidance: as in the call.

        Returns:
            uint8 array, n×size×size×3.
        """
        n, width = len(shares), self.config.size // self._downscale
        noise = starting_noise([seed] * n, self._latent_channels, width).to(self.device)
        fields = [self._field([prompt] * n, guidance) for prompt in (first, second)]
        share = torch.tensor(list(shares), device=self.device, dtype=noise.dtype).view(-1, 1, 1, 1)
        return self._solve(fields[0].mixed(fields[1], share), noise, steps or self.config.steps)

    def _field(self, prompts: Sequence[str], guidance: float | None, autoguidance: float | None = None) -> Field:
        """The guided velocity of a batch with these prompts; known of it is what the prior says of the prompt."""
        scale = self.config.guidance if guidance is None else guidance
        text, mask = self.text_encoder.encode([*prompts, ""])
        text, mask = text.to(self.device), mask.to(self.device)
        tokens, pooled = self.conditioning(text, mask)
        n = len(prompts)
        empty = [part[n:].expand(n, *part.shape[1:]) for part in (tokens, mask, pooled)]
        with_empty = zip((tokens, mask, pooled), empty, strict=True)
        both = tuple(torch.cat([part[:n], nothing]) for part, nothing in with_empty)
        earliest, latest = self.config.guidance_interval
        away = self.config.autoguidance if autoguidance is None else autoguidance
        dtype = compute_dtype(self.config.precision, self.device)

        def predicted(x: Tensor, t: Tensor, texts: Tensor, masks: Tensor, vectors: Tensor) -> Tensor:
            with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                return velocity(self.backbone, self.prior, x, t, texts, masks, vectors, away)[0].float()

        def field(x: Tensor, t: Tensor) -> Tensor:
            if scale == 1 or not earliest <= float(t[0]) <= latest:
                return predicted(x, t, tokens[:n], mask[:n], pooled[:n])
            conditional, unconditional = predicted(torch.cat([x, x]), torch.cat([t, t]), *both).chunk(2)
            return guided(conditional, unconditional, scale, self.config.renormalise)

        return unit_gaussian(field) if self.prior is None else self.prior.field(field, pooled[:n].float())

    def _solve(self, field: Field, start_bchw: Tensor, steps: int, start_time: float = 0.0) -> np.ndarray:
        latents = solve(field, start_bchw, steps, self.config.time_shift, self.config.solver, start_time)
        return to_uint8(as_autoencoder(self.autoencoder).decode(latents))

    @property
    def _latent_channels(self) -> int:
        return as_autoencoder(self.autoencoder).latent_channels

    @property
    def _downscale(self) -> int:
        return as_autoencoder(self.autoencoder).downscale


def _pairs(prompts: str | Sequence[str], seeds: int | Sequence[int]) -> tuple[list[str], list[int]]:
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    return prompts, seeds


def starting_noise(seeds: Sequence[int], channels: int, size: int) -> Tensor:
    """N(0, I) of n×channels×size×size, each picture's own generator, on the CPU so that every device draws the same."""
    return torch.stack(
        [torch.randn(channels, size, size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
