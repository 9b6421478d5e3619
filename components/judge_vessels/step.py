"""What the step ``judge_vessels`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later


class JudgeVesselsParams(Params):
    """Parameters of ``judge_vessels``."""

    seed: int
    size: int = Field(ge=16, description="pixels at which photographs are compared; maps, where the segmenter looks")
    feature_spaces: list[str] = Field(min_length=1, description="of the Fréchet and kernel distances; as in `assess`")
    baselines: dict[str, str] = Field(
        exclude=True,
        description="folders of synthetic cohorts of other generators, by name, that realism is told of too",
    )
    resamples: int = Field(ge=0, description="bootstrap resamples behind each interval")
    distance_resamples: int = Field(ge=0, description="the same of Fréchet distances")


STEP = Step(
    name="judge_vessels",
    summary="anatomy of drawn vessels beside real ones, agreement of mask and photograph, realism with its floor",
    params=JudgeVesselsParams,
    run=later("components.judge_vessels.run"),
    inputs={
        "cohort": Port("real cohort with artery and vein maps", "Dataset"),
        "synthetic": Port("synthetic cohort with its vessel maps", "Dataset"),
        "segmenter": Port("segmenter of `segment_vessels`", "Model"),
        "paint": Port("model that paints photographs, whose closed form is a baseline", "Model"),
    },
    outputs={"judgement": Port("results.json and anatomy.png")},
)
