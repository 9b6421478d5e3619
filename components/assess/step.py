"""What the step ``assess`` takes and gives."""

from typing import Annotated

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.classifiers.configuration import GraderConfig


class AssessParams(Params):
    """Parameters of the step; defaults and their sources stand in ``params.yaml``."""

    seed: int
    size: Annotated[int, Field(ge=16)]  # pixels at which images are looked at
    feature_space: str  # cohort, random_conv, or a vision backbone by hub name or folder
    judge_images: Annotated[int, Field(ge=2)]
    judge: GraderConfig
    resamples: Annotated[int, Field(ge=0)]
    distance_resamples: Annotated[int, Field(ge=0)]
    kernel_subsets: Annotated[int, Field(ge=1)]
    kernel_subset_size: Annotated[int, Field(ge=2)]
    neighbours: Annotated[int, Field(ge=1)]
    ms_ssim_pairs: Annotated[int, Field(ge=1)]
    descriptor_side: Annotated[int, Field(ge=4)]
    memorised_neighbours: Annotated[int, Field(ge=2)]
    memorised_quantile: Annotated[float, Field(gt=0, lt=1)]
    closest_pairs: Annotated[int, Field(ge=1)]
    grid_columns: Annotated[int, Field(ge=1)]


STEP = Step(
    name="assess",
    summary="realism, diversity, memorisation and control of synthetic eyes, each beside what real eyes score",
    params=AssessParams,
    run=later("components.assess.run"),
    inputs={
        "cohort": Port("real cohort with training and test images", "Dataset"),
        "synthetic": Port("synthetic cohort; its label columns say what was asked for", "Dataset"),
        "generator": Port("generator that made the synthetic cohort; not read", "Model", optional=True),
    },
    outputs={"assessment": Port("results.json with every figure, its interval and n, and PNG figures")},
)
