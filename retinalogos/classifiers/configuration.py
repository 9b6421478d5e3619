"""What the training of a grader is told; the values stand in params.yaml."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# What a glaucoma suspect counts as.
Suspects = Literal["exclude", "no", "glaucoma"]


class Augmentation(BaseModel):
    """How training images are varied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation: float = Field(ge=0, le=180, description="largest rotation of the augmentation, degrees")
    zoom: float = Field(ge=0, lt=1, description="largest relative change of scale")
    brightness: float = Field(ge=0, lt=1, description="largest relative change of brightness")
    colour: float = Field(ge=0, lt=1, description="largest relative change of one channel's gain")
    mirror: bool = Field(default=True, description="mirror half of the images in training")


class GraderConfig(Augmentation):
    """Settings of one grader; the values stand in params.yaml."""

    backbone: str = Field(
        description="small, hub name or folder of an image model of transformers, timm:NAME (extra `timm`), or "
        "retfound:FILE (its published checkpoint)"
    )
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
    flip_swaps: dict[str, tuple[int, ...]] = Field(
        description="task → class that each class becomes in a mirror image; a task left out is unchanged by it"
    )
    # Parts of the recipe that a training may do without; left out, they are as the judge of `assess` has them.
    pretrained: bool = Field(
        default=True, description="start from published weights; `small`: from a regression on its moments"
    )
    balanced: bool = Field(default=True, description="balanced softmax; false: cross entropy, corrected afterwards")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of a label given to all classes alike")
    averaging: float = Field(default=0.0, ge=0, lt=1, description="decay of the mean of the weights; 0: the last ones")
    backbone_rate: float = Field(default=1.0, gt=0, le=1, description="learning rate of the backbone ÷ learning_rate")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="learning rate of a block of the backbone ÷ that of the next; 1: all alike"
    )


# The part of the recipe that varies the training images.
AUGMENTATION = "augmentation"
# Part of the recipe → what a training without it is told: its ablation.
PARTS: dict[str, dict[str, Any]] = {
    AUGMENTATION: {"rotation": 0.0, "zoom": 0.0, "brightness": 0.0, "colour": 0.0, "mirror": False},
    "pretraining": {"pretrained": False, "backbone_rate": 1.0, "layer_decay": 1.0},
    "balance": {"balanced": False},
    "smoothing": {"label_smoothing": 0.0},
    "averaging": {"averaging": 0.0},
}
