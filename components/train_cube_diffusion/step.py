"""What the step ``train_cube_diffusion`` takes and gives."""

from components.launcher import LaunchedParams, launched
from components.step import Port, Step, later
from retinalogos.generators.hyperspectral.configuration import CubeSamplingConfig, DiffusionConfig


class TrainCubeDiffusionParams(LaunchedParams):
    """Parameters of ``train_cube_diffusion``."""

    diffusion: DiffusionConfig
    sampling: CubeSamplingConfig


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
