"""What the training of a segmenter is told; the values stand in params.yaml."""

from pydantic import Field

from retinalogos.classifiers.configuration import Augmentation


class SegmenterConfig(Augmentation):
    """Settings of one segmenter."""

    size: int = Field(ge=32, description="side of the images in pixels")
    widths: tuple[int, ...] = Field(min_length=1, description="channels per level of the U-Net, multiples of 8")
    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(ge=0)
    validate_every: int = Field(ge=1, description="steps between looks at the validation images")
