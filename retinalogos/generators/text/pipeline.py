"""The trained generator as a diffusers pipeline: a folder that loads and samples."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import max_pool2d

from retinalogos.errors import UsageError
from retinalogos.generators.text.autoencoder import as_autoencoder, to_model_range, to_uint8
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.conditioning import TextConditioning, TextEncoder, load_text_encoder
from retinalogos.generators.text.configuration import SamplingConfig
from retinalogos.generators.text.flow import Field, guided, interpolate, solve, straight, target_velocity, unit_gaussian
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.progress import track
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
        # Not the literal type, which diffusers takes for a missing annotation.
        precision: str = "auto",
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
        seeds: int | Sequence[int] | None = None,
        size: int | None = None,
        batch_size: int = 16,
        progress: str | None = None,
        **sampling: Any,
    ) -> np.ndarray:
        """Draws one picture for each prompt.

        Args:
            prompts: text, at most ``token_budget`` tokens each.
            seeds: one for each picture, which depends on its prompt and seed, and on its batch by no more than rounding
                (a grey level); default 0, 1, ….
            size: width in pixels, a multiple of the autoencoder's downscale factor; default as trained.
            batch_size: pictures drawn at once.
            progress: name of a progress line to show.
            sampling: values of :class:`SamplingConfig` in place of the generator's own: ``steps``, ``guidance``,
                ``autoguidance``, ``solver``, ``guidance_interval``, ``renormalise``, …; ``None``: its own.

        Returns:
            uint8 array, n×size×size×3.

        Raises:
            UsageError: there is no prompt or one is over the token budget, the size is no multiple of the downscale
                factor, or ``sampling`` has a name that is not known or a value out of range.
        """
        prompts, seeds = _pairs(prompts, seeds)
        config = self._sampling(sampling)
        if batch_size < 1:
            raise UsageError(f"batch_size {batch_size} is less than 1")
        size = self.config.size if size is None else size
        if size < self._downscale or size % self._downscale:
            below = max(self._downscale, size - size % self._downscale)
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
            drawn.append(self._solve(self._field(prompts[rows], config), noise, config.steps, config))
        return np.concatenate(drawn)

    @torch.inference_mode()
    def edit(
        self,
        images: np.ndarray,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int] | None = None,
        strength: float = 0.6,
        masks: np.ndarray | None = None,
        **sampling: Any,
    ) -> np.ndarray:
        """Redraws pictures by their prompts: image to image (SDEdit, Meng et al., arXiv 2108.01073), or inpainting.

        Where a mask is 0 the picture's latents are kept on their own straight path from noise to data, whatever the
        network says, and its pixels are put back at the end.

        Args:
            images: uint8, n×size×size×3, of the size that the generator draws.
            prompts: one for each picture.
            seeds: one for each picture; default 0, 1, ….
            strength: in (0, 1]: share of the way to noise that a picture is taken back; 1 keeps nothing of it. 0.6
                redraws what is fine and keeps field, tone and the place of the disc.
            masks: uint8 or bool, n×size×size, not 0 where the picture is redrawn; ``None``: everywhere.
            sampling: as in the call; of ``steps``, those of the whole way, a weaker edit spends its share.

        Returns:
            uint8 array of the shape of ``images``.

        Raises:
            UsageError: pictures of another kind or number, strength out of range, masks of another size than the
                pictures, and as in the call.
        """
        prompts, seeds = _pairs(prompts, seeds)
        config = self._sampling(sampling)
        wanted = f"a numpy array of uint8, {len(prompts)}×height×width×3, is wanted for {len(prompts)} prompts"
        if not isinstance(images, np.ndarray):
            raise UsageError(f"images are a {type(images).__name__}: {wanted}")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[::3] != (len(prompts), 3):
            raise UsageError(f"images are {images.dtype} of shape {images.shape}: {wanted}")
        if not 0 < strength <= 1:
            raise UsageError(f"strength {strength} is not above 0 and at most 1")
        if masks is not None and masks.shape != images.shape[:3]:
            raise UsageError(f"masks of shape {masks.shape} for pictures of shape {images.shape[:3]}")
        data = as_autoencoder(self.autoencoder).encode(to_model_range(images).to(self.device))
        noise = starting_noise(seeds, self._latent_channels, data.shape[-1]).to(self.device)
        field, begin = self._field(prompts, config), 1 - strength
        x = interpolate(data, noise, data.new_full((len(data),), begin))
        count = max(2, math.ceil(config.steps * strength))
        if masks is None:
            return self._solve(field, x, count, config, begin)
        redrawn = torch.from_numpy(masks != 0).to(self.device)
        # A latent is free as soon as one of its pixels is.
        free = max_pool2d(redrawn[:, None].float(), self._downscale)
        drawn = self._solve(straight(target_velocity(data, noise)).mixed(field, free), x, count, config, begin)
        return np.where(masks[..., None] != 0, drawn, images)

    @torch.inference_mode()
    def between(self, first: str, second: str, shares: Sequence[float], *, seed: int, **sampling: Any) -> np.ndarray:
        """Draws one eye on the way from one prompt to another: the velocities of both, mixed.

        Args:
            first: prompt at share 0.
            second: prompt at share 1.
            shares: of the second prompt, in [0, 1], one for each picture.
            seed: of all of them: it is the same eye.
            sampling: as in the call; ``steps`` are those of each prompt.

        Returns:
            uint8 array, n×size×size×3.

        Raises:
            UsageError: a share out of range, and as in the call.
        """
        config = self._sampling(sampling)
        if not shares or not all(0 <= share <= 1 for share in shares):
            raise UsageError(f"shares {list(shares)}: expected numbers from 0 (the first prompt) to 1 (the second)")
        n, width = len(shares), self.config.size // self._downscale
        noise = starting_noise([seed] * n, self._latent_channels, width).to(self.device)
        fields = [self._field([prompt] * n, config) for prompt in (first, second)]
        share = torch.tensor(list(shares), device=self.device, dtype=noise.dtype).view(-1, 1, 1, 1)
        return self._solve(fields[0].mixed(fields[1], share), noise, config.steps, config)

    def _sampling(self, asked: Mapping[str, Any]) -> SamplingConfig:
        """What was asked for, over what the generator was given.

        Raises:
            UsageError: a name that is not known, or a value out of range.
        """
        values = {name: self.config[name] for name in SamplingConfig.model_fields}
        try:
            return SamplingConfig(**values | {name: value for name, value in asked.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            known = ", ".join(SamplingConfig.model_fields)
            raise UsageError(
                f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']} (known are {known})"
            ) from None

    def _field(self, prompts: Sequence[str], config: SamplingConfig) -> Field:
        """The guided velocity of a batch with these prompts; known of it is what the prior says of the prompt."""
        text, mask = self.text_encoder.encode([*prompts, ""])
        text, mask = text.to(self.device), mask.to(self.device)
        tokens, pooled = self.conditioning(text, mask)
        n = len(prompts)
        empty = [part[n:].expand(n, *part.shape[1:]) for part in (tokens, mask, pooled)]
        with_empty = zip((tokens, mask, pooled), empty, strict=True)
        both = tuple(torch.cat([part[:n], nothing]) for part, nothing in with_empty)
        earliest, latest = config.guidance_interval
        dtype = compute_dtype(config.precision, self.device)

        def predicted(x: Tensor, t: Tensor, texts: Tensor, masks: Tensor, vectors: Tensor) -> Tensor:
            with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
                away = config.autoguidance
                return velocity(self.backbone, self.prior, x, t, texts, masks, vectors, away)[0].float()

        def field(x: Tensor, t: Tensor) -> Tensor:
            if config.guidance == 1 or not earliest <= float(t[0]) <= latest:
                return predicted(x, t, tokens[:n], mask[:n], pooled[:n])
            conditional, unconditional = predicted(torch.cat([x, x]), torch.cat([t, t]), *both).chunk(2)
            return guided(conditional, unconditional, config.guidance, config.renormalise)

        return unit_gaussian(field) if self.prior is None else self.prior.field(field, pooled[:n].float())

    def _solve(
        self, field: Field, start_bchw: Tensor, steps: int, config: SamplingConfig, start_time: float = 0.0
    ) -> np.ndarray:
        latents = solve(field, start_bchw, steps, config.time_shift, config.solver, start_time)
        return to_uint8(as_autoencoder(self.autoencoder).decode(latents))

    @property
    def _latent_channels(self) -> int:
        return as_autoencoder(self.autoencoder).latent_channels

    @property
    def _downscale(self) -> int:
        return as_autoencoder(self.autoencoder).downscale


def _pairs(prompts: str | Sequence[str], seeds: int | Sequence[int] | None) -> tuple[list[str], list[int]]:
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise UsageError('there is no prompt; describe an eye, for example "left eye, healthy"')
    seeds = list(range(len(prompts))) if seeds is None else [seeds] if isinstance(seeds, int) else list(seeds)
    if len(prompts) != len(seeds):
        raise UsageError(f"{len(prompts)} prompts but {len(seeds)} seeds: give each picture its own")
    return prompts, seeds


def starting_noise(seeds: Sequence[int], channels: int, size: int) -> Tensor:
    """N(0, I) of n×channels×size×size, each picture's own generator, on the CPU so that every device draws the same."""
    return torch.stack(
        [torch.randn(channels, size, size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
