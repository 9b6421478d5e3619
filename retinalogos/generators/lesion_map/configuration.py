"""What networks and trainings of lesion maps are told; the values stand in workflows/lesion_map/params.yaml."""

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_widths(size: int, widths: tuple[int, ...]) -> None:
    if size != 4 * 2 ** (len(widths) - 1):
        raise ValueError(f"size {size} needs a width for each of 4, 8, … {size} pixels, and widths are {list(widths)}")


class LayoutConfig(_Config):
    """The networks that draw lesion maps."""

    size: int = Field(ge=8, description="side of the map in pixels, a power of two")
    latent: int = Field(ge=8, description="dimension of z and of the styles")
    mapping_layers: int = Field(ge=1)
    widths: tuple[int, ...] = Field(description="channels of the generator at 4, 8, … size pixels")
    discriminator_widths: tuple[int, ...] = Field(description="channels of the discriminator at 4, 8, … size pixels")
    prior: bool = Field(description="start from how often each class occurs at each place and in each grade")

    @model_validator(mode="after")
    def _one_width_a_scale(self) -> Self:
        _check_widths(self.size, self.widths)
        _check_widths(self.size, self.discriminator_widths)
        return self


class LayoutLossConfig(_Config):
    """What the training of a layout network adds to the adversarial loss."""

    mixing: float = Field(ge=0, le=1, description="share of maps with two styles: arXiv 1812.04948, section 3.1")
    penalty: float = Field(ge=0, description="weight γ of the gradient penalty R1: arXiv 1801.04406")
    penalty_every: int = Field(ge=1, description="steps between gradient penalties, weighted accordingly")
    balanced: bool = Field(description="grades are drawn equally often, instead of as often as they occur")
    augment_target: float = Field(
        ge=0, lt=1, description="mean sign of the discriminator on real maps that augmentation is adapted to; 0: none"
    )
    augment_images: int = Field(ge=1, description="images in which the strength of augmentation can go from 0 to 1")


class RenderConfig(_Config):
    """The networks that turn a map into a photograph."""

    size: int = Field(ge=8, description="side of map and photograph in pixels, a power of two")
    latent: int = Field(ge=2, description="dimension of the style")
    widths: tuple[int, ...] = Field(description="channels of the generator at 4, 8, … size pixels")
    modulation: int = Field(ge=4, description="channels in which a map is read before it scales and shifts features")
    encoder_widths: tuple[int, ...] = Field(description="channels of the style encoder at size, size/2, … 8 pixels")
    discriminator_widths: tuple[int, ...] = Field(min_length=1, description="channels, halving the side each time")
    discriminator_scales: int = Field(ge=1, description="discriminators, each at half the side of the one before")

    @model_validator(mode="after")
    def _one_width_a_scale(self) -> Self:
        _check_widths(self.size, self.widths)
        if len(self.encoder_widths) != len(self.widths) - 1:
            raise ValueError(f"size {self.size} needs {len(self.widths) - 1} encoder_widths, down to 4 pixels")
        least = 2 ** (len(self.discriminator_widths) + self.discriminator_scales)
        if self.size < least:
            raise ValueError(f"size {self.size}: so many discriminator widths and scales need at least {least} pixels")
        return self


class RenderLossConfig(_Config):
    """Weights of the terms of the renderer's loss."""

    feature_matching: float = Field(ge=0)
    perceptual: float = Field(ge=0)
    perceptual_network: str = Field(
        description="cohort: a classifier trained on the training split; else a transformers vision model by name"
    )
    tone: float = Field(ge=0, description="of the mean colours of 8 × 8 fields, absolute difference")
    divergence: float = Field(ge=0, description="of the styles from the standard normal distribution (KL)")
    mirror: bool = Field(description="mirror half of the eyes")


class AdversarialConfig(_Config):
    """Settings of the adversarial loop, independent of what is trained."""

    sharded: ClassVar[bool] = False

    steps: int = Field(ge=1, description="steps of either network")
    batch_size: int = Field(ge=2)
    pieces: int = Field(
        ge=1, description="of a process's rows: side by side on a CPU's cores, else added up one by one"
    )
    generator_rate: float = Field(gt=0, description="learning rate")
    discriminator_rate: float = Field(gt=0, description="learning rate")
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(gt=0, lt=1)
    decay_share: float = Field(ge=0, le=1, description="share of the steps, at the end, in which rates fall to zero")
    ema_decay: float = Field(ge=0, lt=1, description="approached from below: min(decay, (1 + step) / (10 + step))")
    checkpoint_every: int = Field(ge=1, description="steps")
    log_every: int = Field(ge=1, description="steps")
    sample_every: int = Field(ge=1, description="steps")

    @model_validator(mode="after")
    def _whole_pieces(self) -> Self:
        if self.batch_size % self.pieces:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of pieces {self.pieces}")
        return self


class SegmenterConfig(_Config):
    """The small network that finds classes in photographs."""

    widths: tuple[int, ...] = Field(min_length=2, description="channels at full, half, … side; multiples of 8")
    steps: int = Field(ge=2, description="a trial that trains on two kinds of eyes gives half to each")
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(ge=0)


class CopyConfig(_Config):
    """How copies of training eyes are looked for; see :mod:`retinalogos.metrics.memorisation`."""

    side: int = Field(ge=4, description="pixels of the small copies that are compared")
    neighbours: int = Field(ge=2, description="training eyes that a distance is relative to")
    quantile: float = Field(gt=0, lt=1, description="share of unseen real eyes that may be flagged")
