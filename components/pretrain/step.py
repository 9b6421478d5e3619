"""Stage 1: the generator learns from every captioned image, at low resolution."""

from pathlib import Path

from pydantic import Field

from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.stages import (
    BackboneConfig,
    FlowConfig,
    SamplingConfig,
    new_backbone,
    new_conditioning,
    new_prior,
    train_stage,
)
from retinalogos.training.configuration import TrainingConfig


class PretrainParams(Params, TrainingConfig):
    """Parameters of ``pretrain``."""

    seed: int
    backbone: BackboneConfig
    standardise_text: bool = Field(
        description="fit the scale of text features; false for weights pre-trained on raw ones"
    )
    prior_components: int = Field(
        ge=0, description="principal components of the latents' prior; 0: none, for weights pre-trained without"
    )
    flow: FlowConfig
    sampling: SamplingConfig
    prompts: list[str] = Field(description="drawn as training goes")
    checkpoints: str = Field(
        exclude=True, description="folder for checkpoints, kept between runs so that a killed stage goes on"
    )


def run(params: PretrainParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    latents = Latents(inputs["latents"])
    conditioning = new_conditioning(latents, params.standardise_text)
    return train_stage(
        new_backbone(params.backbone, latents, params.seed, prior=params.prior_components > 0),
        conditioning,
        new_prior(latents, conditioning, params.prior_components) if params.prior_components else None,
        latents,
        inputs["autoencoder"],
        flow=params.flow,
        training=params,
        sampling=params.sampling,
        prompts=params.prompts,
        seed=params.seed,
        checkpoints=Path(params.checkpoints),
        generator=outputs["generator"],
        log=outputs["log"],
        what="pretrain",
    )


STEP = Step(
    name="pretrain",
    summary="stage 1: train the generator on all captioned images at low resolution",
    params=PretrainParams,
    run=run,
    inputs={
        "latents": Port("latents and text features", "Dataset"),
        "autoencoder": Port("autoencoder that the latents are of", "Model"),
    },
    outputs={
        "generator": Port("diffusers-layout folder, averaged weights", "Model"),
        "log": Port("log.jsonl and sample pictures"),
    },
)
