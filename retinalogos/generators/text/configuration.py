"""What the generator is told: network, training and sampling; the values stand in params.yaml."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retinalogos.training.configuration import Precision

TimestepLaw = Literal["uniform", "logit_normal"]
LossWeighting = Literal["uniform", "cosmap", "min_snr"]
Solver = Literal["euler", "midpoint", "heun", "multistep", "splitting"]


class FlowConfig(BaseModel):
    """What is learned: see :class:`~retinalogos.generators.text.objective.FlowMatching`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timestep_law: TimestepLaw
    timestep_shift: float = Field(gt=0)
    caption_dropout: float = Field(ge=0, lt=1)
    coarse_share: float = Field(
        ge=0, le=1, description="probability of a coarse caption; among an image's wordings of a kind all are as likely"
    )
    loss_weighting: LossWeighting = Field(description="of the times, in training: uniform, cosmap or min_snr")
    alignment_weight: float = Field(
        ge=0, description="of the alignment to an encoder's features, which `encode` must have stored; 0: none"
    )


class RepresentationConfig(BaseModel):
    """Which encoder's features lie beside the latents, for :mod:`~retinalogos.generators.text.representation`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str | None = Field(
        description="null: none; cohort: a masked autoencoder, trained here; dinov2; retfound:FILE; a vision model of "
        "transformers by folder or name on the hub"
    )
    grid: int = Field(ge=1, description="places along a side at which features are kept, at most")
    pictures: int = Field(ge=1, description="of the training split, at most, that the encoder cohort learns from")
    steps: int = Field(ge=1, description="of the encoder cohort's training")
    mean_of: int = Field(ge=1, description="pictures, about, whose mean features are taken off those of each")


class SamplingConfig(BaseModel):
    """How the trained generator samples unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(ge=1, description="network evaluations")
    guidance: float = Field(ge=0, description="classifier-free guidance, on all latent channels; 1: none")
    time_shift: float = Field(gt=0, description="of the grid of times, towards noise")
    solver: Solver = Field(description="euler, midpoint, heun, multistep or splitting")
    guidance_interval: list[float] = Field(
        min_length=2, max_length=2, description="times between which guidance acts; 0 is noise, 1 data"
    )
    renormalise: bool = Field(description="guidance turns the velocity and keeps its length")
    autoguidance: float = Field(ge=1, description="times what the network adds to the prior is drawn; 1 as learned")
    precision: Precision = Field(description="of the network; auto: bfloat16 where the device multiplies it natively")

    @field_validator("guidance_interval")
    @classmethod
    def _in_order(cls, interval: list[float]) -> list[float]:
        if not 0 <= interval[0] <= interval[1] <= 1:
            raise ValueError(f"{interval} are no two times from 0 to 1, the earlier one first")
        return interval


class AdapterConfig(BaseModel):
    """Low-rank adapters that are trained in place of the whole network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=0, description="width of an adapter; 0: none, all weights are trained")
    alpha: int | None = Field(ge=1, description="an adapter's output is multiplied by alpha / rank; null: by 1")
    target_modules: list[str] = Field(min_length=1, description="names, or ends of names, of the layers adapted")


class BackboneConfig(BaseModel):
    """Which network: a new one, or pre-trained weights by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["next_dit", "unet", "lumina2"]
    pretrained: str | None = Field(description="folder or name on the hub whose weights are the start; null for none")
    next_dit: dict[str, Any] = Field(description="arguments of NextDiT")
    unet: dict[str, Any] = Field(description="arguments of diffusers' UNet2DConditionModel")
    lumina2: dict[str, Any] = Field(description="arguments of diffusers' Lumina2Transformer2DModel")
