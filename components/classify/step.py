"""What the step ``classify`` takes and gives."""

from typing import Annotated

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.classifiers.configuration import GraderConfig, Suspects


class ClassifyParams(Params):
    """Parameters of the step; defaults and their sources stand in ``params.yaml``."""

    seed: int
    runs: Annotated[int, Field(ge=2, description="trainings of each arm, with seeds seed, seed + 1, …")]
    shares: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...],
        Field(min_length=2, description="shares of the synthetic cohort added to the real images, an arm each"),
    ]
    suspects: Annotated[Suspects, Field(description="what a glaucoma suspect counts as")]
    resamples: Annotated[int, Field(ge=0, description="bootstrap resamples behind each interval")]
    workers: Annotated[int, Field(ge=1, description="trainings at a time, each on one CPU thread")]
    grader: GraderConfig


STEP = Step(
    name="classify",
    summary="classifiers trained on real, real and synthetic, and synthetic eyes, judged on the same real eyes",
    params=ClassifyParams,
    run=later("components.classify.run"),
    inputs={
        "cohort": Port("real cohort with training, validation and test images", "Dataset"),
        "synthetic": Port("synthetic cohort; its label columns are what a classifier learns from", "Dataset"),
        "external": Port("real cohort of another place, all of it judged on", "Dataset", optional=True),
    },
    outputs={"classification": Port("results.json, figures as PNG, predictions.parquet")},
)
