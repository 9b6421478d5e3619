"""What the step ``train_layout`` takes and gives."""

from pydantic import Field

from components.launcher import LauncherConfig, launched
from components.step import Params, Port, Step, later
from retinalogos.generators.lesion_map.configuration import AdversarialConfig, LayoutConfig, LayoutLossConfig


class TrainLayoutParams(Params):
    """Parameters of ``train_layout``."""

    seed: int
    network: LayoutConfig
    loss: LayoutLossConfig
    training: AdversarialConfig
    checkpoints: str = Field(
        exclude=True, description="folder for checkpoints, kept between runs so that a killed stage goes on"
    )
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")


STEP = Step(
    name="train_layout",
    summary="train the network that draws lesion maps by ICDR grade",
    params=TrainLayoutParams,
    run=launched("train_layout", later("components.train_layout.run")),
    inputs={"cohort": Port("cohort; its training eyes with `lesions` maps are learnt from", "Dataset")},
    outputs={
        "layout": Port("layout network: config.json, model.safetensors", "Model"),
        "training": Port("log.jsonl, curves.json and sample pictures"),
    },
)
