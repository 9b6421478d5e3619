"""What the step ``try_lesion_maps`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.generators.lesion_map.configuration import SegmenterConfig


class TryLesionMapsParams(Params):
    """Parameters of ``try_lesion_maps``."""

    seed: int
    folds: int = Field(ge=3, description="of patients, and runs: each leaves one out and has a seed of its own")
    resamples: int = Field(ge=0, description="bootstrap resamples behind each interval")
    grader: GraderConfig
    segmenter: SegmenterConfig


STEP = Step(
    name="try_lesion_maps",
    summary="train graders and segmenters with and without synthetic eyes on folds of patients, judge on test eyes",
    params=TryLesionMapsParams,
    run=later("components.try_lesion_maps.run"),
    inputs={
        "cohort": Port("real cohort", "Dataset"),
        "synthetic": Port("synthetic cohort of draw_lesion_maps", "Dataset"),
    },
    outputs={"trial": Port("results.json")},
)
