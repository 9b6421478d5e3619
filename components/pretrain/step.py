"""What the step ``pretrain`` takes and gives."""

from pydantic import Field

from components.launcher import LaunchedParams, launched
from components.step import Port, Step, later
from retinalogos.generators.text.configuration import BackboneConfig, FlowConfig, SamplingConfig


class PretrainParams(LaunchedParams):
    """Parameters of ``pretrain``."""

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


STEP = Step(
    name="pretrain",
    summary="stage 1: train the generator on all captioned images at low resolution",
    params=PretrainParams,
    run=launched("pretrain", later("components.pretrain.run")),
    inputs={
        "latents": Port("latents and text features", "Dataset"),
        "autoencoder": Port("autoencoder that the latents are of", "Model"),
    },
    outputs={
        "generator": Port("diffusers-layout folder, averaged weights", "Model"),
        "log": Port("log.jsonl and sample pictures"),
    },
)
