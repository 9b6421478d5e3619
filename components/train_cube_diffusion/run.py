"""Trains the diffusion in the latents of the training split."""

from pathlib import Path

from components.step import Metrics, Paths
from components.train_cube_diffusion.step import TrainCubeDiffusionParams
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.diffusion import train_diffusion


def run(params: TrainCubeDiffusionParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    work = Path(params.checkpoints)
    return train_diffusion(
        CubeAutoencoder.from_pretrained(str(inputs["autoencoder"])),
        CubeFile(cohort, "train", work),
        CubeFile(cohort, "validation", work),
        cohort.table(("eye",), split="train").column("eye").to_pylist(),
        diffusion=params.diffusion,
        sampling=params.sampling,
        training=params,
        seed=params.seed,
        checkpoints=work,
        generator=outputs["generator"],
        log=outputs["log"],
        what="train_cube_diffusion",
    )
