"""What the step ``train_vqgan`` takes and gives."""

from pydantic import Field

from components.launcher import LaunchedParams, launched
from components.step import Port, Step, later
from retinalogos.generators.hyperspectral.configuration import (
    AdversaryConfig,
    AutoencoderConfig,
    CodebookConfig,
    PerceptualConfig,
)


class TrainVqganParams(LaunchedParams):
    """Parameters of ``train_vqgan``."""

    autoencoder: AutoencoderConfig
    codebook: CodebookConfig
    perceptual: PerceptualConfig
    adversary: AdversaryConfig
    crop: int | None = Field(ge=16, description="pixels of the square that is shown of a cube; null: all of it")


STEP = Step(
    name="train_vqgan",
    summary="train the vector-quantised autoencoder of hyperspectral cubes, with an adversary or without",
    params=TrainVqganParams,
    run=launched("train_vqgan", later("components.train_vqgan.run")),
    inputs={"cohort": Port("cohort of cubes", "Dataset")},
    outputs={
        "autoencoder": Port("diffusers-layout folder", "Model"),
        "log": Port("log.jsonl with codebook use and perplexity, and sample pictures"),
    },
)
