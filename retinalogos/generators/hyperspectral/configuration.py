"""What the hyperspectral generator is told; the values stand in workflows/hyperspectral/params.yaml."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AutoencoderConfig(BaseModel):
    """The autoencoder's networks: see :class:`~retinalogos.generators.hyperspectral.autoencoder.CubeAutoencoder`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    compression: Literal[4, 8, 16] = Field(description="pixels of a side that become one latent")
    latent_channels: int = Field(ge=1)
    codes: int = Field(ge=2, description="vectors of a codebook")
    depth: int = Field(ge=1, description="codebooks: a latent is the sum of a code of each, coarse to fine")
    base_channels: int = Field(
        ge=8, multiple_of=8, description="of the finest level; doubled at each, at most fourfold"
    )
    layers: int = Field(ge=1, description="residual blocks of a level")
    unshuffle: Literal[1, 2, 4] = Field(description="pixels of a side that are made channels before the first level")
    shortcut: bool = Field(
        description="fixed linear maps beside the networks: the principal components of squares of pixels"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.compression % self.unshuffle:
            raise ValueError(f"compression {self.compression} is no multiple of unshuffle {self.unshuffle}")
        return self


class CodebookConfig(BaseModel):
    """How the codebook learns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning: Literal["kmeans", "ema"] = Field(
        description="kmeans: by gradient, and by K-means on encoder outputs at the start of each epoch; ema: by moving "
        "averages of the encoder outputs of each code, and dead codes are put to new ones"
    )
    commitment: float = Field(ge=0, description="weight with which encoder outputs are drawn to their codes")
    kmeans_cubes: int = Field(ge=1, description="training cubes whose encoder outputs K-means is run on")
    kmeans_rounds: int = Field(ge=1, description="of Lloyd's algorithm")
    decay: float = Field(gt=0, lt=1, description="ema: of the moving averages")
    dead_below: float = Field(ge=0, description="ema: average uses a step below which a code is put to a new place")


class PerceptualConfig(BaseModel):
    """Which difference beyond that of pixels is made small."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["none", "per_band", "projected"] = Field(
        description="per_band: each band as a grey picture; projected: the rendering in colour"
    )
    network: str = Field(description="random (seeded convolutions), or a ResNet of transformers by name or folder")
    weight: float = Field(ge=0)
    bands: int = Field(ge=1, description="per_band: bands compared at a step, drawn anew each time")


class AdversaryConfig(BaseModel):
    """The network that tells real cubes from rebuilt ones; both weights 0 make the autoencoder a plain VQ-VAE."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(ge=0)
    feature_weight: float = Field(ge=0, description="of matching the adversary's features")
    from_step: int = Field(ge=0, description="step at which it begins")
    channels: int = Field(ge=8, multiple_of=8)
    layers: int = Field(ge=1, description="halvings of the resolution")


class DiffusionConfig(BaseModel):
    """The diffusion process and its network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_channels: int = Field(ge=8, multiple_of=8, description="of the first of three levels")
    multipliers: tuple[int, int, int] = Field(description="of the base channels, by level")
    layers: int = Field(ge=1, description="residual blocks of a level")
    attention: tuple[bool, bool, bool] = Field(description="by level")
    timesteps: int = Field(ge=2)
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = Field(
        description="of the noise, in diffusers; not of flow"
    )
    prediction: Literal["epsilon", "v_prediction", "flow"] = Field(
        description="what the network tells: the noise, v (Salimans and Ho), or the velocity of a straight path"
    )
    prior_components: int = Field(
        ge=0, description="principal components, at most, of the prior that it refines (prediction flow); 0: no prior"
    )
    loss: Literal["l1", "l2"]
    mirror: bool = Field(description="show mirrored cubes too: left eyes as right ones")

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        if self.prior_components and self.prediction != "flow":
            raise ValueError(
                f"prior_components {self.prior_components} need the prediction flow, not {self.prediction}: the prior "
                "is one of straight paths"
            )
        return self


class CubeSamplingConfig(BaseModel):
    """How the trained generator samples unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1, description="network evaluations")
    autoguidance: float = Field(
        ge=0, description="times what the network adds to its prior is drawn; 1 as learned, 0 the prior alone"
    )
    tile: int | None = Field(
        ge=16,
        description="pixels of the side of the squares that are encoded and decoded one by one, which bounds memory; "
        "null: whole cubes",
    )
