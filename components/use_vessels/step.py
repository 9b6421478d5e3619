"""What the step ``use_vessels`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.cohort.external import External
from retinalogos.generators.vessel_map.configuration import SegmenterConfig
from retinalogos.training.configuration import TrainingConfig


class UseVesselsParams(Params, TrainingConfig):
    """Parameters of ``use_vessels``."""

    seed: int
    runs: int = Field(ge=2, description="trainings of each set, with seeds seed, seed + 1, …")
    ratios: tuple[float, ...] = Field(description="synthetic eyes for each real one, a training set each")
    segmenter: SegmenterConfig
    external: tuple[External, ...] = Field(description="real sets of other places, judged on alone")
    resamples: int = Field(ge=0, description="bootstrap resamples by patient behind each interval")
    checkpoints: str = Field(exclude=True, description="folder for checkpoints, kept between runs")


STEP = Step(
    name="use_vessels",
    summary="vessel segmenters trained on real, real and synthetic, or synthetic eyes, judged on the same real eyes",
    params=UseVesselsParams,
    run=later("components.use_vessels.run"),
    inputs={
        "cohort": Port("real cohort with vessel maps", "Dataset"),
        "synthetic": Port("synthetic cohort with its vessel maps", "Dataset"),
    },
    outputs={"use": Port("results.json: figures and paired differences with intervals by patient")},
)
