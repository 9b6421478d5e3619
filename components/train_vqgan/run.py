"""Trains the vector-quantised autoencoder on the training split."""

from pathlib import Path

from components.step import Metrics, Paths
from components.train_vqgan.step import TrainVqganParams
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.quantised_training import train_autoencoder


def run(params: TrainVqganParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    work = Path(params.checkpoints)
    return train_autoencoder(
        CubeFile(cohort, "train", work),
        CubeFile(cohort, "validation", work),
        autoencoder=params.autoencoder,
        codebook=params.codebook,
        perceptual=params.perceptual,
        adversary=params.adversary,
        training=params,
        crop=params.crop,
        seed=params.seed,
        checkpoints=work,
        folder=outputs["autoencoder"],
        log=outputs["log"],
        what="train_vqgan",
    )
