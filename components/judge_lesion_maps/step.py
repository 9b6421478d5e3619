"""What the step ``judge_lesion_maps`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.generators.lesion_map.configuration import CopyConfig, SegmenterConfig


class JudgeLesionMapsParams(Params):
    """Parameters of ``judge_lesion_maps``."""

    seed: int
    resamples: int = Field(ge=0, description="bootstrap resamples behind each interval")
    feature_space: str = Field(description="of FID and KID, see retinalogos/metrics/features.py")
    grader: GraderConfig = Field(description="classifier that reads grades from maps; of photographs it judges too")
    segmenter: SegmenterConfig = Field(description="network that finds the drawn lesions again")
    copies: CopyConfig
    edits: int = Field(ge=1, description="drawn maps from which a lesion is erased")
    margin: float = Field(ge=0, description="pixels over which an edited picture passes into the old one")
    columns: int = Field(ge=1, description="eyes of each grade in a picture")


STEP = Step(
    name="judge_lesion_maps",
    summary="judge drawn maps and photographs: lesions by grade, grade read back, lesions found again, FID, edits",
    params=JudgeLesionMapsParams,
    run=later("components.judge_lesion_maps.run"),
    inputs={
        "cohort": Port("real cohort", "Dataset"),
        "synthetic": Port("synthetic cohort of draw_lesion_maps", "Dataset"),
        "generator": Port("generator that drew it", "Model"),
    },
    outputs={"judgement": Port("results.json, grid.png and other pictures")},
)
