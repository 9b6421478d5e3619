"""Trains one of the three diffusion models of vessel maps."""

from pathlib import Path

from components.step import Metrics, Paths
from components.train_vessel_map.step import TrainVesselMapParams
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.vessel_map.training import train_part


def run(params: TrainVesselMapParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    return train_part(
        params.part,
        Cohort(inputs["cohort"]),
        size=params.size,
        factor=params.factor,
        crop=params.crop,
        most_noise=params.most_noise,
        map_factor=params.map_factor,
        text=params.text,
        config=params.network,
        training=params,
        seed=params.seed,
        checkpoints=Path(params.checkpoints),
        model=outputs["model"],
        log=outputs["log"],
    )
