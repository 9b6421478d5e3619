"""Training of the vector-quantised autoencoder, with or without an adversary, in the project's one loop.

Autoencoder and adversary take their steps together: the loss is the sum of both, and each is frozen in the other's
part, so that one backward pass gives both gradients and one optimiser moves both.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.cohort.cubes import FULL_SCALE, render_rgb
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.configuration import (
    AdversaryConfig,
    AutoencoderConfig,
    CodebookConfig,
    PerceptualConfig,
)
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.discriminator import PatchDiscriminator
from retinalogos.generators.hyperspectral.perceptual import PerceptualDistance
from retinalogos.metrics.spectral import field_angle
from retinalogos.training import distributed
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.loop import train

# Validation is on this many cubes, so that curves compare.
_VALIDATION_CUBES = 32
# Cubes side by side on a sample picture.
_SHOWN = 4
# Cubes whose squares the linear maps begin from, about so many, and pixels of them: bounds memory, 200 MB of 16 bands.
_LOOKED_AT, _LOOKED_AT_PIXELS = 64, 64 * 224**2
# Encoded at once for K-means and validation: bounds memory.
_ENCODED = 8


class Trained(nn.Module):
    """What is trained: the autoencoder, its adversary, and the moving averages behind an averaged codebook."""

    uses: Tensor
    sums: Tensor

    def __init__(self, autoencoder: CubeAutoencoder, adversary: PatchDiscriminator | None):
        super().__init__()
        self.autoencoder, self.adversary = autoencoder, adversary
        depth, codes, channels = autoencoder.codebook.shape
        self.register_buffer("uses", torch.ones(depth, codes))
        self.register_buffer("sums", torch.zeros(depth, codes, channels))


def new_trained(
    config: AutoencoderConfig, adversary: AdversaryConfig, wavelengths: list[float], scale: list[float], seed: int
) -> Trained:
    """New networks; no adversary where both of its weights are 0."""
    torch.manual_seed(seed)
    autoencoder = CubeAutoencoder(wavelengths=wavelengths, scale=scale, **config.model_dump())
    wanted = adversary.weight > 0 or adversary.feature_weight > 0
    return Trained(
        autoencoder, PatchDiscriminator(len(wavelengths), adversary.channels, adversary.layers) if wanted else None
    )


@dataclass
class QuantisedReconstruction:
    """The loss of a step, a function of its number alone, and what follows it: the codebook.

    Mean absolute error, commitment, perceptual distance, and once it begins the adversary: hinge loss and matching of
    its features (Esser et al., CVPR 2021; weights are fixed, as in Medical Diffusion). The validation loss is the mean
    absolute error alone, so that autoencoders of all kinds compare.

    Args:
        cubes: training cubes.
        validation: cubes that are only measured.
        crop: pixels of the square that is shown of each cube; None for all of it.
        batch_size: cubes of a step.
        seed: of order, crops and mirrors.
        codebook: how it learns.
        perceptual: distance beyond pixels.
        adversary: its weights and beginning.
    """

    cubes: CubeFile
    validation: CubeFile
    crop: int | None
    batch_size: int
    seed: int
    codebook: CodebookConfig
    perceptual: PerceptualConfig
    adversary: AdversaryConfig
    # Uses and sums of encoder outputs by code, of the pieces of the step at hand, by the first row of each piece.
    _seen: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.crop is not None and self.crop > self.cubes.values.shape[-1]:
            raise UsageError(f"crop {self.crop} is larger than the cubes, {self.cubes.values.shape[-1]} pixels")
        named = self.perceptual.name != "none" and self.perceptual.weight > 0
        self._distance = PerceptualDistance(self.perceptual, self.cubes.wavelengths, self.seed) if named else None
        stride = max(1, len(self.validation) // _VALIDATION_CUBES)
        self._validated = list(range(0, len(self.validation), stride))[:_VALIDATION_CUBES]

    def __call__(self, model: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Loss over ``rows`` of a training step's batch, or of the fixed validation cubes where ``step`` is None."""
        assert isinstance(model, Trained)
        autoencoder = model.autoencoder
        where = autoencoder.codebook.device
        if step is None:
            errors = [
                (self._rebuilt(autoencoder, x) - x).abs().mean((1, 2, 3)) for x in self._validation_batches(autoencoder)
            ]
            return torch.cat(errors).mean()
        x = autoencoder.to_model(self.batch(step)["cubes"][rows]).to(where)
        z = autoencoder.encode(x)
        q, _ = autoencoder.quantise(z)
        y = autoencoder.decode(z + (q - z).detach()).float()
        total = (y - x).abs().mean() + self.codebook.commitment * F.mse_loss(z.float(), q.detach().float())
        if self.codebook.learning == "kmeans":
            total = total + F.mse_loss(q.float(), z.detach().float())
        else:
            self._seen[rows.start or 0] = _counted(autoencoder, z.detach())
        if self._distance is not None:
            total = total + self.perceptual.weight * self._distance(y, x, step)
        if model.adversary is not None and step >= self.adversary.from_step:
            total = total + self._adversarial(model.adversary, x, y)
        return total

    def _adversarial(self, adversary: PatchDiscriminator, x: Tensor, y: Tensor) -> Tensor:
        score, features = adversary(y, frozen=True)
        with torch.no_grad():
            _, wanted = adversary(x, frozen=True)
        matching = sum((F.l1_loss(a, b) for a, b in zip(features, wanted, strict=True)), start=y.new_zeros(()))
        deceiving = -self.adversary.weight * score.mean() + self.adversary.feature_weight * matching
        real, rebuilt = adversary(x)[0], adversary(y.detach())[0]
        telling = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + rebuilt).mean())
        return deceiving + telling

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """What a training step shows: ``cubes``, uint16 B×bands×size×size, and their places in the split."""
        n = len(self.cubes)
        places = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, n)
            places.append(int(np.random.default_rng([self.seed, epoch]).permutation(n)[place]))
        rng = np.random.default_rng([self.seed, 1, step])
        chosen = self.cubes[places]
        if self.crop is not None:
            room = chosen.shape[-1] - self.crop + 1
            corners = rng.integers(0, room, (len(chosen), 2))
            chosen = np.stack(
                [cube[:, t : t + self.crop, s : s + self.crop] for cube, (t, s) in zip(chosen, corners, strict=True)]
            )
        mirrored = rng.random(len(chosen)) < 0.5
        chosen[mirrored] = chosen[mirrored][..., ::-1]
        return {"cubes": chosen, "places": np.array(places)}

    def first_codebook(self, model: Trained) -> None:
        """Puts the codes to K-means centres of the encoder's first outputs."""
        rows = self._encoded(model.autoencoder, epoch=0)
        self._cluster(model, rows, start=None)

    def after(self, model: nn.Module, step: int) -> None:
        """What no gradient does: K-means where an epoch begins, or the moving averages and new places of dead codes."""
        assert isinstance(model, Trained)
        if self.codebook.learning == "kmeans":
            n = len(self.cubes)
            epoch = (step + 1) * self.batch_size // n
            if epoch > step * self.batch_size // n:
                # From the codes as they are: a code keeps its meaning for the decoder.
                rows = self._encoded(model.autoencoder, epoch)
                self._cluster(model, rows, start=model.autoencoder.codebook.detach().float().cpu().numpy())
            return
        parts = [self._seen[first] for first in sorted(self._seen)]
        self._seen.clear()
        uses = torch.stack([part[0] for part in parts]).sum(0)
        sums = torch.stack([part[1] for part in parts]).sum(0)
        distributed.average([uses, sums])
        model.uses.lerp_(uses * distributed.count(), 1 - self.codebook.decay)
        model.sums.lerp_(sums * distributed.count(), 1 - self.codebook.decay)
        codebook = model.autoencoder.codebook
        alive = model.uses >= self.codebook.dead_below
        codebook[alive] = (model.sums / model.uses.clamp(min=1e-8)[..., None])[alive].to(codebook)
        if alive.all():
            return
        # The same in every process: the batch's first cubes are encoded anew.
        x = model.autoencoder.to_model(self.batch(step)["cubes"][:_ENCODED]).to(codebook.device)
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        for level, (outputs, _) in enumerate(model.autoencoder.nearest(model.autoencoder.encode(x))):
            dead = (~alive[level]).nonzero().flatten()
            chosen = outputs[torch.randint(len(outputs), (len(dead),), generator=draw).to(outputs.device)]
            codebook[level, dead] = chosen.to(codebook)
            model.uses[level, dead] = 1.0
            model.sums[level, dead] = chosen

    def measure(self, model: nn.Module) -> dict[str, float]:
        """On the validation cubes: share of the codes used, perplexity, signal-to-noise ratio, spectral angle.

        Of several codebooks the mean share and the mean perplexity.
        """
        assert isinstance(model, Trained)
        autoencoder = model.autoencoder
        counts = torch.zeros(autoencoder.codebook.shape[:2])
        ratios, angles = [], []
        for x in self._validation_batches(autoencoder):
            q, index = autoencoder.quantise(autoencoder.encode(x))
            counts += torch.stack([torch.bincount(level, minlength=counts.shape[1]) for level in index.cpu().T])
            y = autoencoder.decode(q).float()
            # The range from −1 to 1 is 2 wide.
            ratios.append((10 * torch.log10(4 / (y - x).square().mean((1, 2, 3)).clamp(min=1e-12))).mean())
            one, other = (autoencoder.from_model(part) / FULL_SCALE for part in (x, y))
            angles.append(field_angle(np.moveaxis(one, 1, -1), np.moveaxis(other, 1, -1)))
        share = counts / counts.sum(1, keepdim=True)
        entropy = -(share * share.clamp(min=1e-12).log()).sum(1)
        return {
            "codes_used": float((counts > 0).float().mean()),
            "perplexity": float(entropy.exp().mean()),
            "psnr": float(torch.stack(ratios).mean()),
            "spectral_angle": float(np.mean(angles)),
        }

    def show(self, model: nn.Module, path: Path) -> None:
        """Writes validation cubes above what is rebuilt of them, in colour."""
        assert isinstance(model, Trained)
        x = next(iter(self._validation_batches(model.autoencoder)))[:_SHOWN]
        pair = [model.autoencoder.from_model(part) for part in (x, self._rebuilt(model.autoencoder, x))]
        if distributed.rank() != distributed.FIRST:
            return
        rows = [
            np.concatenate([render_rgb(cube / FULL_SCALE, self.cubes.wavelengths) for cube in part], 1) for part in pair
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(path)

    def _validation_batches(self, autoencoder: CubeAutoencoder) -> list[Tensor]:
        where = autoencoder.codebook.device
        places = [self._validated[i : i + _ENCODED] for i in range(0, len(self._validated), _ENCODED)]
        return [autoencoder.to_model(self.validation[some]).to(where) for some in places]

    @staticmethod
    def _rebuilt(autoencoder: CubeAutoencoder, x: Tensor) -> Tensor:
        return autoencoder.decode(autoencoder.quantise(autoencoder.encode(x))[0]).float()

    @torch.no_grad()
    def _encoded(self, autoencoder: CubeAutoencoder, epoch: int) -> np.ndarray:
        """Encoder outputs of training cubes drawn for this epoch: n × channels."""
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.cubes))
        chosen = order[: self.codebook.kmeans_cubes]
        where = autoencoder.codebook.device
        found = []
        for start in range(0, len(chosen), _ENCODED):
            some = [int(place) for place in chosen[start : start + _ENCODED]]
            z = autoencoder.encode(autoencoder.to_model(self.cubes[some]).to(where)).float()
            found.append(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def _cluster(self, model: Trained, rows: np.ndarray, start: np.ndarray | None) -> None:
        """Level by level, each on what those before it leave; ``start`` holds the codes to begin at."""
        depth, codes, _ = model.autoencoder.codebook.shape
        if len(rows) < codes:
            raise DataError(
                f"K-means has {len(rows)} encoder outputs for {codes} codes: raise codebook.kmeans_cubes, or "
                "lower autoencoder.codes"
            )
        for level in range(depth):
            clustering = KMeans(
                codes,
                init="random" if start is None else start[level],
                n_init=1,
                max_iter=self.codebook.kmeans_rounds,
                random_state=self.seed,
            ).fit(rows)
            rows = rows - clustering.cluster_centers_[clustering.labels_]
            uses = np.bincount(clustering.labels_, minlength=codes).astype(np.float32)
            centres = torch.from_numpy(clustering.cluster_centers_.astype(np.float32)).to(model.sums)
            model.autoencoder.codebook[level] = centres.to(model.autoencoder.codebook)
            model.uses[level] = torch.from_numpy(uses / uses.mean()).to(model.uses)
            model.sums[level] = model.uses[level, :, None] * centres


def _counted(autoencoder: CubeAutoencoder, z_bchw: Tensor) -> tuple[Tensor, Tensor]:
    """Uses, depth × codes, and sums of what used them, depth × codes × channels."""
    codes = autoencoder.codebook.shape[1]
    uses, sums = [], []
    for left, index in autoencoder.nearest(z_bchw):
        uses.append(torch.bincount(index, minlength=codes).float())
        sums.append(torch.zeros(codes, left.shape[1], device=left.device).index_add_(0, index, left))
    return torch.stack(uses), torch.stack(sums)


def train_autoencoder(
    cubes: CubeFile,
    validation: CubeFile,
    *,
    autoencoder: AutoencoderConfig,
    codebook: CodebookConfig,
    perceptual: PerceptualConfig,
    adversary: AdversaryConfig,
    training: TrainingConfig,
    crop: int | None,
    seed: int,
    checkpoints: Path,
    folder: Path,
    log: Path,
    what: str,
) -> dict[str, float]:
    """Trains, writes the autoencoder's folder and its log, and returns the metrics.

    Checkpoints are kept, and used again, as :func:`retinalogos.generators.text.stages.train_stage` does.

    Raises:
        UsageError: the model is to be sharded, which a codebook that is moved as a whole cannot be.
    """
    if training.sharded:
        raise UsageError(f"{what}.sharded: the codebook is moved as a whole; set it to false")
    settings = [part.model_dump(mode="json") for part in (autoencoder, codebook, perceptual, adversary, training)]
    key = hashlib.sha256(json.dumps([settings, crop, seed, cubes.path.name], sort_keys=True).encode()).hexdigest()[:16]
    model = new_trained(autoencoder, adversary, cubes.wavelengths, cubes.scale(seed), seed)
    objective = QuantisedReconstruction(
        cubes, validation, crop, training.batch_size, seed, codebook, perceptual, adversary
    )
    looked_at = max(1, min(_LOOKED_AT, _LOOKED_AT_PIXELS // cubes.values[0, 0].size))
    model.autoencoder.begin(model.autoencoder.to_model(cubes[range(0, len(cubes), max(1, len(cubes) // looked_at))]))
    objective.first_codebook(model)
    trained = train(
        model,
        objective,
        training,
        log,
        checkpoints / key,
        what,
        objective.show,
        objective.batch,
        objective.after,
        objective.measure,
    )
    if distributed.rank() != distributed.FIRST:
        return {}
    assert isinstance(trained, Trained)
    trained.autoencoder.save_pretrained(folder)
    shutil.rmtree(checkpoints / key, ignore_errors=True)
    last = json.loads((log / "log.jsonl").read_text().splitlines()[-1])
    return {
        "steps": training.steps,
        "parameters": sum(weight.numel() for weight in trained.autoencoder.parameters()),
        **{name: value for name, value in last.items() if name not in ("step", "learning_rate", "gradient_norm")},
    }
