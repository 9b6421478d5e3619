"""What the step ``pretrain`` takes and gives."""

from pydantic import Field

from components.launcher import LauncherConfig, launched
from components.step import Params, Port, Step, later
from retinalogos.generators.text.configuration import BackboneConfig, FlowConfig, SamplingConfig
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
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")


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
