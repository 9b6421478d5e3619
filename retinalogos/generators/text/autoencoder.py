"""Image ↔ latent: a closed-form linear patch autoencoder, or any diffusers ``AutoencoderKL`` by name.

Both are seen through :class:`Autoencoder`: images in [−1, 1], latents of about unit variance.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.errors import UsageError

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# Variance of the error in generated latents, of mean variance 1, for which rebuilding is made robust.
_RIDGE = 1e-3


class Autoencoder(Protocol):
    """What the generator needs of an autoencoder."""

    latent_channels: int
    downscale: int

    def encode(self, images_bchw: Tensor) -> Tensor:
        """Images in [−1, 1], B×3×H×W, to latents B×C×(H/f)×(W/f)."""

    def decode(self, latents_bchw: Tensor) -> Tensor:
        """Latents to images in [−1, 1] (may overshoot: clamp before display)."""


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Principal components of square patches, rebuilt with the help of the patches around: linear, in closed form.

    A patch p (3·s² values) is kept as ``z = scale · W·(p − mean)`` with the leading principal directions W.
    ``scale_i = 1 / std_iᵃ`` with ``whitening`` a: 0 keeps the natural spectrum (leading components carry nearly
    all variance), 1 gives every component unit variance. In between, fine detail is drowned by noise earlier than
    coarse structure, so that the flow settles coarse structure first. All is then scaled to mean variance 1.

    A patch is rebuilt from the latents of its 3×3 neighbourhood by the linear map of least squared error. What the
    left-out components held is partly told by the patches beside: vessels and lesions keep more of their contrast,
    and the borders of patches do not show.

    Args:
        patch: side s of a patch in pixels (the downscale factor).
        components: number of latent channels, at most 3·s².
        whitening: exponent a in [0, 1].
    """

    @register_to_config
    def __init__(self, patch: int = 8, components: int = 32, whitening: float = 0.5):
        super().__init__()
        if components > 3 * patch * patch:
            raise UsageError(f"components={components} is more than the 3·{patch}² values of a patch")
        self.latent_channels = components
        self.downscale = patch
        self.mean = nn.Parameter(torch.zeros(3 * patch * patch), requires_grad=False)
        self.directions = nn.Parameter(torch.eye(components, 3 * patch * patch), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(components), requires_grad=False)
        # 3·s² values of a patch from C latents of each of 3×3 patches.
        self.rebuild = nn.Parameter(torch.zeros(3 * patch * patch, components, 3, 3), requires_grad=False)
        with torch.no_grad():
            self.rebuild[:, :, 1, 1].copy_(self.directions.T)

    def encode(self, images_bchw: Tensor) -> Tensor:
        """Images in [−1, 1], B×3×H×W with H and W multiples of the patch, to latents B×C×(H/s)×(W/s)."""
        if images_bchw.shape[-1] % self.downscale or images_bchw.shape[-2] % self.downscale:
            raise UsageError(f"image size {tuple(images_bchw.shape[-2:])} is no multiple of the patch {self.downscale}")
        patches = F.pixel_unshuffle(images_bchw, self.downscale) - self.mean[:, None, None]
        return torch.einsum("bphw,cp->bchw", patches, self.directions * self.scale[:, None])

    def decode(self, latents_bchw: Tensor) -> Tensor:
        """Latents B×C×h×w to images B×3×(h·s)×(w·s)."""
        patches = F.conv2d(_bordered(latents_bchw), self.rebuild, self.mean)
        return F.pixel_shuffle(patches, self.downscale)

    @classmethod
    def fit(
        cls, batches: Callable[[], Iterable[Tensor]], patch: int, components: int, whitening: float
    ) -> tuple["PatchAutoencoder", float]:
        """Fits to batches of images in [−1, 1], B×3×H×W, in two passes and constant memory.

        Args:
            batches: called for each pass.
            patch: see the class.
            components: see the class.
            whitening: see the class.

        Returns:
            the autoencoder and the share of patch variance that its components keep (0-1).

        Raises:
            UsageError: no image was given.
        """
        d = 3 * patch * patch
        count, total, moment = 0, np.zeros(d), np.zeros((d, d))
        for batch in batches():
            rows = F.pixel_unshuffle(batch, patch).permute(0, 2, 3, 1).reshape(-1, d).double().numpy()
            count += len(rows)
            total += rows.sum(0)
            moment += rows.T @ rows
        if not count:
            raise UsageError("cannot fit an autoencoder: the training split of the cohort is empty")
        mean = total / count
        values, vectors = np.linalg.eigh(moment / count - np.outer(mean, mean))
        values, vectors = values[::-1].clip(min=1e-12), vectors[:, ::-1].T
        # The sign of an eigenvector is arbitrary; fix it, so that equal data give equal files everywhere.
        vectors *= np.sign(vectors[np.arange(d), np.abs(vectors).argmax(1)])[:, None]
        std = np.sqrt(values[:components])
        scale = std**-whitening
        scale /= np.sqrt(np.mean((scale * std) ** 2))
        model = cls(patch, components, whitening)
        with torch.no_grad():
            model.mean.copy_(torch.from_numpy(mean))
            model.directions.copy_(torch.from_numpy(vectors[:components].copy()))
            model.scale.copy_(torch.from_numpy(scale))
            model.rebuild.copy_(model._fit_rebuild(batches()))
        return model, float(values[:components].sum() / values.sum())

    def _fit_rebuild(self, batches: Iterable[Tensor]) -> Tensor:
        """Ridge regression of a patch, less the mean, on the latents of its neighbourhood."""
        d = self.rebuild[0].numel()
        count = 0
        among, across = torch.zeros(d, d).double(), torch.zeros(d, len(self.mean)).double()
        for batch in batches:
            around = F.unfold(_bordered(self.encode(batch)), 3).transpose(1, 2).reshape(-1, d).double()
            patches = F.pixel_unshuffle(batch, self.downscale) - self.mean[:, None, None]
            among += around.T @ around
            across += around.T @ patches.flatten(2).transpose(1, 2).reshape(len(around), -1).double()
            count += len(around)
        solved = torch.linalg.solve(among / count + _RIDGE * torch.eye(d), across / count)
        return solved.T.reshape(self.rebuild.shape).float()


def _bordered(latents_bchw: Tensor) -> Tensor:
    """With a border of one patch, a copy of the outermost: all around a fundus is the same black."""
    return F.pad(latents_bchw, (1, 1, 1, 1), mode="replicate")


class VariationalAutoencoder(nn.Module):
    """A pre-trained diffusers ``AutoencoderKL`` with its published scale and shift applied.

    The mean of the posterior is taken, not a sample of it: sampling would only add noise to the target.
    """

    def __init__(self, vae: "AutoencoderKL"):
        super().__init__()
        self.vae = vae
        self.latent_channels = int(vae.config.latent_channels)
        self.downscale = 2 ** (len(vae.config.block_out_channels) - 1)
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(vae.config.shift_factor or 0.0)

    def encode(self, images_bchw: Tensor) -> Tensor:
        """Images in [−1, 1] to ``(mean − shift)·scale``."""
        return (self.vae.encode(images_bchw).latent_dist.mean - self._shift) * self._scale

    def decode(self, latents_bchw: Tensor) -> Tensor:
        """Latents to images in about [−1, 1]."""
        return self.vae.decode(latents_bchw / self._scale + self._shift).sample


def as_autoencoder(model: nn.Module) -> Autoencoder:
    """The :class:`Autoencoder` view of a loaded model."""
    return model if isinstance(model, PatchAutoencoder) else VariationalAutoencoder(model)


def load_autoencoder_model(name: str | Path) -> ModelMixin:
    """Loads a folder written by ``save_pretrained`` or a model of the hub, e.g. ``stabilityai/sdxl-vae``.

    Of a whole pipeline, e.g. ``Alpha-VLLM/Lumina-Image-2.0``, its part ``vae`` is taken.

    Raises:
        UsageError: neither a folder with a ``config.json`` nor a model of the hub that can be reached.
    """
    try:
        part: str | None = None
        try:
            config = PatchAutoencoder.load_config(str(name))
        except OSError:
            part = "vae"
            config = PatchAutoencoder.load_config(str(name), subfolder=part)
        kind: Any = PatchAutoencoder
        if config["_class_name"] != PatchAutoencoder.__name__:
            # Here and not above: it brings all of diffusers' networks with it, seconds that most steps need not spend.
            from diffusers import AutoencoderKL

            kind = AutoencoderKL
        model: ModelMixin = kind.from_pretrained(str(name), subfolder=part)
        return model.eval().requires_grad_(False)
    except OSError as error:
        raise UsageError(f"autoencoder {name}: no such folder and not to be had from the hub ({error})") from None


def to_model_range(images_bhwc: np.ndarray) -> Tensor:
    """uint8 images B×H×W×3 to float32 B×3×H×W in [−1, 1]."""
    return torch.tensor(images_bhwc).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_uint8(images_bchw: Tensor) -> np.ndarray:
    """Float images B×3×H×W in [−1, 1] to uint8 B×H×W×3, clamped."""
    return images_bchw.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
