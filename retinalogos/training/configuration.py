"""What a training run is told; the values stand in params.yaml."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# See :func:`~retinalogos.training.device.compute_dtype`.
Precision = Literal["auto", "float32", "bfloat16"]


class TrainingConfig(BaseModel):
    """Settings of the loop, independent of what is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(ge=1)
    pieces: int = Field(
        ge=1, description="of a process's rows: side by side on a CPU's cores, else added up one by one"
    )
    learning_rate: float = Field(gt=0, description="peak")
    warmup_steps: int = Field(ge=0, description="linear warm-up; the cosine to zero follows")
    weight_decay: float = Field(ge=0)
    beta2: float = Field(gt=0, lt=1)
    gradient_clip: float = Field(gt=0, description="largest gradient norm")
    ema_decay: float = Field(ge=0, lt=1, description="approached from below: min(decay, (1 + step) / (10 + step))")
    snapshot_every: int = Field(
        ge=0,
        description="steps between snapshots of two further averages, from which others are reconstructed; 0: none",
    )
    sharded: bool = Field(
        description="weights and optimiser lie in shares on the processes of torchrun, for models that one cannot hold"
    )
    checkpoint_activations: bool = Field(description="blocks are computed twice, so that less is kept between")
    compile_blocks: bool = Field(description="torch.compile of each block: minutes at first, faster steps after")
    precision: Precision = Field(description="of autocast; auto: bfloat16 where the device multiplies it natively")
    checkpoint_every: int = Field(ge=1, description="steps")
    log_every: int = Field(ge=1, description="steps")
    validate_every: int = Field(ge=1, description="steps")
    sample_every: int = Field(ge=1, description="steps")

    @model_validator(mode="after")
    def _whole_pieces(self) -> Self:
        if self.batch_size % self.pieces:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of pieces {self.pieces}")
        return self
