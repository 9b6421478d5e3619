"""What the step ``train_cube_diffusion`` takes and gives."""

from pydantic import Field

from components.launcher import LauncherConfig, launched
from components.step import Params, Port, Step, later
from retinalogos.generators.hyperspectral.configuration import CubeSamplingConfig, DiffusionConfig
from retinalogos.training.configuration import TrainingConfig


class TrainCubeDiffusionParams(Params, TrainingConfig):
    """Parameters of ``train_cube_diffusion``."""

    seed: int
    diffusion: DiffusionConfig
    sampling: CubeSamplingConfig
    checkpoints: str = Field(
        exclude=True, description="folder for checkpoints and unpacked cubes, kept between runs so that a stage goes on"
    )
    launcher: LauncherConfig = Field(exclude=True, description="who starts the processes that train")


STEP = Step(
    name="train_cube_diffusion",
    summary="train the diffusion in the latents of hyperspectral cubes",
    params=TrainCubeDiffusionParams,
    run=launched("train_cube_diffusion", later("components.train_cube_diffusion.run")),
    inputs={
        "cohort": Port("cohort of cubes", "Dataset"),
        "autoencoder": Port("autoencoder of train_vqgan", "Model"),
    },
    outputs={
        "generator": Port("diffusers-layout folder, averaged weights", "Model"),
        "log": Port("log.jsonl and sample pictures"),
    },
)
