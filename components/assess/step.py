"""What the step ``assess`` takes and gives."""

from typing import Annotated

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.captions.configuration import ContrastiveConfig
from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.segmenters.configuration import SegmenterConfig


class AssessParams(Params):
    """Parameters of the step; defaults and their sources stand in ``params.yaml``."""

    seed: int
    size: Annotated[int, Field(ge=16)]  # pixels at which images are looked at
    # cohort, random_conv, inception, retfound:FILE, or a vision backbone by hub name or folder; gates read the first
    feature_spaces: Annotated[list[str], Field(min_length=1)]
    judge_images: Annotated[int, Field(ge=2)]
    judge: GraderConfig
    finding_images: Annotated[
        int, Field(ge=1)
    ]  # training images with a finding, and without, for the judge to learn it
    pairing: ContrastiveConfig  # the judge of captions; `folds` is not looked at
    pairing_tokens: Annotated[
        int, Field(ge=8)
    ]  # budget of the captions of real images: that of the generator's prompts
    segment: bool  # whether to train a segmenter on the real training images with maps
    segmenter: SegmenterConfig
    structure_images: Annotated[
        int, Field(ge=1)
    ]  # training images that show a structure, for the segmenter to learn it
    resamples: Annotated[int, Field(ge=0)]
    distance_resamples: Annotated[int, Field(ge=0)]
    extrapolation_points: Annotated[int, Field(ge=2)]
    extrapolation_resamples: Annotated[int, Field(ge=0)]
    kernel_subsets: Annotated[int, Field(ge=1)]
    kernel_subset_size: Annotated[int, Field(ge=2)]
    neighbours: Annotated[int, Field(ge=1)]
    counterfactual_pairs: Annotated[int, Field(ge=0)]  # needs the input `generator`; 0 draws none
    ms_ssim_pairs: Annotated[int, Field(ge=1)]
    descriptor_side: Annotated[int, Field(ge=4)]
    memorised_neighbours: Annotated[int, Field(ge=2)]
    memorised_quantile: Annotated[float, Field(gt=0, lt=1)]
    rare_share: Annotated[float, Field(gt=0, lt=1)]
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
        "generator": Port("generator that made the synthetic cohort, for counterfactuals", "Model", optional=True),
    },
    outputs={"assessment": Port("results.json with every figure, its interval and n, and PNG figures")},
)
