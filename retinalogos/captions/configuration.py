"""What the contrastive model of captions and pictures is told; the values stand in params.yaml."""

from pydantic import BaseModel, ConfigDict, Field


class ContrastiveConfig(BaseModel):
    """Settings of :mod:`retinalogos.captions.contrastive`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(ge=2, description="models that are trained, each without the patients that it judges")
    dimension: int = Field(ge=2, description="of the sphere that pictures and captions are mapped to")
    hidden: int = Field(ge=2, description="width of each tower")
    dropout: float = Field(ge=0, lt=1)
    steps: int = Field(ge=1, description="optimiser steps of each model")
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(ge=0)
