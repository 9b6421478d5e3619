"""What the step ``segment_vessels`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.cohort.external import External
from retinalogos.generators.vessel_map.configuration import SegmenterConfig
from retinalogos.training.configuration import TrainingConfig


class SegmentVesselsParams(Params, TrainingConfig):
    """Parameters of ``segment_vessels``."""

    seed: int
    segmenter: SegmenterConfig
    external: tuple[External, ...] = Field(
        description="further real sets with vessel maps, learned from and judged on beside the cohort"
    )
    train: float = Field(ge=0, le=1, description="share of a further set that is learned from")
    validation: float = Field(ge=0, le=1, description="share of a further set that is validated on; the rest is judged")
    resamples: int = Field(ge=0, description="bootstrap resamples behind each interval")
    checkpoints: str = Field(exclude=True, description="folder for checkpoints, kept between runs")


STEP = Step(
    name="segment_vessels",
    summary="train the artery and vein segmenter and state its quality on real test splits",
    params=SegmentVesselsParams,
    run=later("components.segment_vessels.run"),
    inputs={"cohort": Port("cohort with vessel maps", "Dataset")},
    outputs={
        "segmenter": Port("diffusers-layout folder, averaged weights", "Model"),
        "log": Port("log.jsonl"),
        "quality": Port("results.json: figures of each set's test split with intervals by patient"),
    },
)
