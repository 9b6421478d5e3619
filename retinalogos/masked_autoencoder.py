"""The masked autoencoder of He et al., CVPR 2022, in transformers: an encoder of pictures that needs no labels.

Pictures have any number of bands: RGB photographs, or hyperspectral cubes.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.loop import train

_BATCH = 32  # pictures at a time: bounds memory


class MaskedAutoencoderConfig(BaseModel):
    """The network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    patch: int = Field(ge=2, description="pixels of a side of a token")
    width: int = Field(ge=16, multiple_of=16)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    mask: float = Field(gt=0, lt=1, description="share of the tokens that is hidden")


def _evened(pictures: np.ndarray) -> np.ndarray:
    """Square roots of integers, which count light, so that noise is alike at all levels; float32 as it is."""
    return pictures if pictures.dtype == np.float32 else np.sqrt(pictures.astype(np.float32))


class MaskedAutoencoder(nn.Module):
    """The network, with the scaling of the bands.

    Args:
        reference: pictures, n×bands×size×size, whose bands get mean 0 and deviation 1: uint8 or uint16, or float32.
        config: of the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, reference: np.ndarray, config: MaskedAutoencoderConfig):
        super().__init__()
        shown = _evened(reference)
        for name, of in (("mean", shown.mean((0, 2, 3))), ("std", shown.std((0, 2, 3)).clip(1e-3))):
            self.register_buffer(name, torch.tensor(of, dtype=torch.float32).view(-1, 1, 1))
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
        self.side = reference.shape[-1] // config.patch
        self.tokens = self.side**2
        # transformers 5 leaves the positions of a new network at zero, in encoder and decoder: it takes the one for
        # initialised and puts the other to zeros. Without them no hidden patch can be told from another.
        embeddings = self.network.vit.embeddings
        setattr(embeddings.patch_embeddings.projection, "_is_hf_initialized", False)  # noqa: B010 (a module's types)
        embeddings.initialize_weights()
        self.network.decoder.initialize_weights(self.tokens)

    def scaled(self, values: np.ndarray) -> Tensor:
        """What the network sees of pictures, n×bands×size×size."""
        scaled: Tensor = (torch.from_numpy(_evened(values)).to(self.mean.device) - self.mean) / self.std
        return scaled

    @torch.no_grad()
    def patches(self, values: np.ndarray) -> np.ndarray:
        """The encoder's tokens of pictures, nothing hidden, where they lie: float32 n×width×side×side."""
        encoder = self.network.vit
        encoder.config.mask_ratio = encoder.embeddings.config.mask_ratio = 0.0
        parts = []
        for start in range(0, len(values), _BATCH):
            x = self.scaled(values[start : start + _BATCH])
            tokens = encoder(x, noise=torch.zeros(len(x), self.tokens, device=x.device)).last_hidden_state[:, 1:]
            parts.append(tokens.mT.unflatten(2, (self.side, self.side)).cpu().numpy())
        return np.concatenate(parts)

    def features(self, values: np.ndarray) -> np.ndarray:
        """Mean and deviation of the tokens of pictures, n×2·width."""
        tokens = torch.from_numpy(self.patches(values)).flatten(2)
        return torch.cat([tokens.mean(2), tokens.std(2)], 1).numpy()


def pretrained(
    reference: np.ndarray,
    pictures: np.ndarray | None,
    config: MaskedAutoencoderConfig,
    training: TrainingConfig,
    seed: int,
    folder: Path,
    what: str,
) -> MaskedAutoencoder:
    """A masked autoencoder after pre-training on ``pictures``, or as it was drawn where that is None.

    Args:
        reference: pictures that set the scale of the bands.
        pictures: of the same form.
        config: of the network.
        training: of the loop; the same number of steps whatever the number of pictures.
        seed: of weights, order and masks.
        folder: for log and checkpoints.
        what: name shown in the progress line.
    """
    torch.manual_seed(seed)
    model = MaskedAutoencoder(reference, config)
    if pictures is None:
        return model.eval()

    def loss(module: nn.Module, step: int | None, rows: slice) -> Tensor:
        assert isinstance(module, MaskedAutoencoder)
        rng = np.random.default_rng([seed, 0 if step is None else step + 1])
        places = rng.integers(0, len(pictures), training.batch_size)
        noise = torch.from_numpy(rng.random((training.batch_size, module.tokens), np.float32))
        x = module.scaled(pictures[places][rows])
        value: Tensor = module.network(x, noise=noise[rows].to(x.device)).loss
        return value

    trained = train(model, loss, training, folder / "log", folder / "checkpoints", what)
    assert isinstance(trained, MaskedAutoencoder)
    return trained
