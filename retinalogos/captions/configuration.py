"""What models that judge captions are told; the values stand in params.yaml."""

from typing import Literal

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


class StatementsConfig(BaseModel):
    """Settings of :mod:`retinalogos.captions.statements`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folds: int = Field(ge=2, description="readers of each statement, each without the patients that it judges")
    inverse_penalty: float = Field(gt=0, description="C of the logistic regressions; less holds weights smaller")
    least_error: float = Field(gt=0, lt=1, description="share of statements taken to be wrong, at least")
    min_probability: float = Field(ge=0, le=1, description="captions less probably right are dropped")


class ClipConfig(BaseModel):
    """Which model :mod:`retinalogos.captions.clip` loads, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loader: Literal["transformers", "open_clip", "flair", "retizero"] = Field(description="whose layout the model has")
    model: str = Field(description="file, folder or hub name; open_clip also architecture/tag")
    text_model: str = Field(
        description="flair and retizero: folder or hub name of the text tower's configuration and words"
    )
