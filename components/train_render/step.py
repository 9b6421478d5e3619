"""What the step ``train_render`` takes and gives."""

from pydantic import Field

from components.launcher import LauncherConfig, launched
from components.step import Params, Port, Step, later
from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.generators.lesion_map.configuration import AdversarialConfig, RenderConfig, RenderLossConfig


class TrainRenderParams(Params):
    """Parameters of ``train_render``."""

    seed: int
    network: RenderConfig
    loss: RenderLossConfig
    features: GraderConfig = Field(description="classifier of the cohort behind the perceptual network `cohort`")
    training: AdversarialConfig
    checkpoints: str = Field(
        exclude=True, description="folder for checkpoints, kept between runs so that a killed stage goes on"
    )
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")


STEP = Step(
    name="train_render",
    summary="train the network that turns a lesion map into a photograph",
    params=TrainRenderParams,
    run=launched("train_render", later("components.train_render.run")),
    inputs={"cohort": Port("cohort; its training eyes with `lesions` maps are learnt from", "Dataset")},
    outputs={
        "render": Port("renderer: config.json, model.safetensors", "Model"),
        "training": Port("log.jsonl, curves.json and sample pictures"),
    },
)
