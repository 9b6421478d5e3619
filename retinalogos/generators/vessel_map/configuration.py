"""What the three diffusion models of vessel maps are told; the values stand in workflows/vessel_map/params.yaml."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retinalogos.training.configuration import Precision

Part = Literal["masks", "paint", "enlarge"]
Prediction = Literal["epsilon", "v_prediction", "flow"]
Conditioning = Literal["concatenate", "control"]


class DiffusionConfig(BaseModel):
    """The process that is learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prediction: Prediction = Field(
        description="what the network tells: the noise, v (Salimans and Ho), or the velocity of a straight path (flow)"
    )
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = Field(description="not of flow")
    train_timesteps: int = Field(ge=2)


class SamplerConfig(BaseModel):
    """How a trained model draws unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheduler: Literal["ddim", "dpm_solver", "flow"] = Field(description="flow for the prediction flow, and only there")
    steps: int = Field(ge=1, description="network evaluations")
    guidance: float = Field(ge=1, description="classifier-free guidance towards the condition; 1 for none")
    autoguidance: float = Field(
        ge=0, description="times what the network adds to its prior is drawn; 1 as learned, 0 the prior alone"
    )
    precision: Precision = Field(description="of the network; auto: bfloat16 where the device multiplies it natively")


class DenoiserConfig(BaseModel):
    """The network of one of the three models, what it learns and how it draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conditioning: Conditioning = Field(
        description="how maps and pictures enter: beside the noisy channels, or through a ControlNet (arXiv 2302.05543)"
    )
    unet: dict[str, Any] = Field(description="arguments of diffusers' UNet2DConditionModel")
    diffusion: DiffusionConfig
    sampling: SamplerConfig
    condition_dropout: float = Field(ge=0, lt=1, description="share of examples shown without their condition")
    prior_components: int = Field(
        ge=0,
        description="of the prior that it refines (prediction flow): principal components, at most; of enlarge, "
        "classes of places; 0: no prior",
    )

    @model_validator(mode="after")
    def _one_process(self) -> Self:
        if (self.diffusion.prediction == "flow") != (self.sampling.scheduler == "flow"):
            raise ValueError(
                f"prediction {self.diffusion.prediction} cannot be drawn by scheduler {self.sampling.scheduler}: "
                "flow goes with flow, the others with ddim or dpm_solver"
            )
        if self.sampling.guidance > 1 and not self.condition_dropout:
            raise ValueError("guidance above 1 needs a condition_dropout above 0")
        if self.prior_components and self.diffusion.prediction != "flow":
            raise ValueError(
                f"prior_components {self.prior_components} need the prediction flow, not {self.diffusion.prediction}: "
                "the prior is one of straight paths"
            )
        return self


class TextConfig(BaseModel):
    """Captions as a further condition of the painter: the template engine's, seen through a frozen text encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field(description="as `encode.text_encoder` of the main line")
    layer: int = Field(description="as `encode.text_layer` of the main line")
    token_budget: int = Field(ge=8, description="most tokens of a caption")
    wordings: int = Field(ge=1, description="captions of each eye, coarse and fine ones each")


class SegmenterConfig(BaseModel):
    """The network and the size at which it looks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=16, description="pixels of the side of the photographs it sees")
    unet: dict[str, Any] = Field(description="arguments of diffusers' UNet2DModel")
