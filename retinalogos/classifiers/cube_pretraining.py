"""What cubes without labels are good for: a masked autoencoder learns from them, and tells apart few labelled ones.

The masked autoencoder is that of He et al., CVPR 2022, in transformers, on all bands. Its encoder is frozen, and a
logistic regression on its features is fitted to labelled real cubes: with weights as they were drawn, or after
pre-training on real, on synthetic, or on both kinds of cubes.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from retinalogos.metrics.intervals import Estimate, bootstrap
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.loop import train

NONE, REAL, SYNTHETIC, BOTH = "none", "real", "synthetic", "both"
SOURCES = (NONE, REAL, SYNTHETIC, BOTH)
_BATCH = 32


class MaskedAutoencoderConfig(BaseModel):
    """The network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: int = Field(ge=2, description="pixels of a side of a token")
    width: int = Field(ge=16, multiple_of=16)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    mask: float = Field(gt=0, lt=1, description="share of the tokens that is hidden")


class CubeMasking(nn.Module):
    """The masked autoencoder of cubes, with the scaling of their bands.

    Args:
        reference: real cubes, uint16 n×bands×size×size, whose bands get mean 0 and deviation 1.
        config: of the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, reference: np.ndarray, config: MaskedAutoencoderConfig):
        super().__init__()
        root = np.sqrt(reference.astype(np.float32))
        for name, of in (("mean", root.mean((0, 2, 3))), ("std", root.std((0, 2, 3)))):
            self.register_buffer(name, torch.tensor(of, dtype=torch.float32).clamp(min=1e-3).view(-1, 1, 1))
        self.network = ViTMAEForPreTraining(
            ViTMAEConfig(
                image_size=reference.shape[-1],
                patch_size=config.patch,
                num_channels=reference.shape[1],
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.width,
                decoder_hidden_size=config.width // 2,
                decoder_num_hidden_layers=1,
                decoder_num_attention_heads=config.heads,
                decoder_intermediate_size=2 * config.width,
                mask_ratio=config.mask,
            )
        )
        self.tokens = (reference.shape[-1] // config.patch) ** 2

    def scaled(self, values: np.ndarray) -> Tensor:
        """What the network sees of uint16 cubes."""
        x = torch.from_numpy(values.astype(np.float32)).to(self.mean.device)
        scaled: Tensor = (x.sqrt() - self.mean) / self.std
        return scaled

    @torch.no_grad()
    def features(self, values: np.ndarray) -> np.ndarray:
        """Mean and deviation of the encoder's tokens, nothing hidden: n × 2·width."""
        encoder = self.network.vit
        encoder.config.mask_ratio = encoder.embeddings.config.mask_ratio = 0.0
        parts = []
        for start in range(0, len(values), _BATCH):
            x = self.scaled(values[start : start + _BATCH])
            tokens = encoder(x, noise=torch.zeros(len(x), self.tokens, device=x.device)).last_hidden_state[:, 1:]
            parts.append(torch.cat([tokens.mean(1), tokens.std(1)], 1).cpu().numpy())
        return np.concatenate(parts)


def pretrained(
    reference: np.ndarray,
    cubes: np.ndarray | None,
    config: MaskedAutoencoderConfig,
    training: TrainingConfig,
    seed: int,
    folder: Path,
) -> CubeMasking:
    """A masked autoencoder after pre-training on ``cubes``, or as it was drawn where that is None.

    Args:
        reference: real cubes that set the scale of the bands, the same for all arms.
        cubes: uint16 n×bands×size×size.
        config: of the network.
        training: of the loop; the same number of steps whatever the number of cubes.
        seed: of weights, order and masks.
        folder: for log and checkpoints.
    """
    torch.manual_seed(seed)
    model = CubeMasking(reference, config)
    if cubes is None:
        return model.eval()

    def loss(module: nn.Module, step: int | None, rows: slice) -> Tensor:
        assert isinstance(module, CubeMasking)
        rng = np.random.default_rng([seed, 0 if step is None else step + 1])
        places = rng.integers(0, len(cubes), training.batch_size)
        noise = torch.from_numpy(rng.random((training.batch_size, module.tokens), np.float32))
        x = module.scaled(cubes[places][rows])
        value: Tensor = module.network(x, noise=noise[rows].to(x.device)).loss
        return value

    trained = train(model, loss, training, folder / "log", folder / "checkpoints", "use_cubes")
    assert isinstance(trained, CubeMasking)
    return trained


def scores(model: CubeMasking, cubes: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Probability of the label of ``judged`` cubes, n, by a logistic regression fitted to ``cubes`` and ``labels``."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    probe.fit(model.features(cubes), labels)
    return np.asarray(probe.predict_proba(model.features(judged))[:, 1])


def mean_auc(labels: np.ndarray, by_seed: np.ndarray) -> float:
    """Mean over the seeds of the area under the curve; ``by_seed`` are scores, n × seeds. nan with one class."""
    if len(np.unique(labels)) < 2:
        return float("nan")
    return float(np.mean([roc_auc_score(labels, column) for column in by_seed.T]))


def gain(labels: np.ndarray, by_seed: np.ndarray, without: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean AUC above that without pre-training, with the paired bootstrap interval over the judged cubes."""
    return bootstrap(
        lambda y, one, other: mean_auc(y, one) - mean_auc(y, other),
        labels,
        by_seed,
        without,
        resamples=resamples,
        seed=seed,
    )
