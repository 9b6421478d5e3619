"""What the training of a grader is told; the values stand in params.yaml."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# What a glaucoma suspect counts as.
Suspects = Literal["exclude", "no", "glaucoma"]


class GraderConfig(BaseModel):
    """Settings of one grader; the values stand in params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = Field(description="small, or hub name or folder of an image model of transformers")
    size: int = Field(ge=32, description="side of the input in pixels")
    widths: tuple[int, ...] = Field(
        min_length=1, description="channels per stage of the small backbone, multiples of 8"
    )
    features: int = Field(ge=8, description="dimension of the penultimate layer; the small backbone needs two a class")
    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(ge=0)
    validate_every: int = Field(ge=1, description="steps between looks at the validation images")
    rotation: float = Field(ge=0, le=180, description="largest rotation of the augmentation, degrees")
    zoom: float = Field(ge=0, lt=1, description="largest relative change of scale")
    brightness: float = Field(ge=0, lt=1, description="largest relative change of brightness")
    colour: float = Field(ge=0, lt=1, description="largest relative change of one channel's gain")
    flip_swaps: dict[str, tuple[int, ...]] = Field(
        description="task → class that each class becomes in a mirror image; a task left out is unchanged by it"
    )
