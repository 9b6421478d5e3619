"""What the step `classify` takes and gives."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.step import Params, Port, Step, later
from retinalogos.classifiers import mixes
from retinalogos.classifiers.configuration import GraderConfig, Suspects
from retinalogos.cohort.external import External
from retinalogos.segmenters.configuration import SegmenterConfig

Task = Literal["dr_grade", "referable_dr", "glaucoma", "findings", "vessels", "lesions", "disc_cup"]
# Those of them that segmenters learn from maps.
SEGMENTATION = ("vessels", "lesions", "disc_cup")


class ClassifyParams(Params):
    """Parameters of the step; defaults and their sources stand in ``params.yaml``."""

    seed: int
    runs: Annotated[int, Field(ge=2, description="trainings of each mix, with seeds seed, seed + 1, …")]
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    finding_images: Annotated[int, Field(ge=1, description="training images with a finding, and without, to learn it")]
    structure_images: Annotated[int, Field(ge=1, description="training images that show a structure, to learn it")]
    mixes: Annotated[tuple[str, ...], Field(description="what is trained on, see retinalogos/classifiers/mixes.py")]
    external: tuple[External, ...]
    suspects: Annotated[Suspects, Field(description="what a glaucoma suspect counts as")]
    specificity: Annotated[float, Field(gt=0, lt=1, description="at which the sensitivity is told")]
    resamples: Annotated[int, Field(ge=0, description="bootstrap resamples behind each interval and test")]
    workers: Annotated[int, Field(ge=1, description="trainings at a time, each on one CPU thread")]
    grader: GraderConfig
    segmenter: SegmenterConfig

    @field_validator("mixes")
    @classmethod
    def _with_references(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or mixes.REAL not in names:
            raise ValueError(f"{list(names)} should name `real`, and no mix twice")
        for name in names:
            reference = mixes.parse(name).reference
            if reference is not None and reference not in names:
                raise ValueError(f"{name} is compared with {reference}, which is missing: add it")
        return names

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        titles = [entry.title for entry in self.external]
        if len(set(titles)) < len(titles):
            raise ValueError(f"external: two sets of one name among {', '.join(titles)}: give each a `name`")
        return self


STEP = Step(
    name="classify",
    summary="classifiers and segmenters trained on mixes of real and synthetic eyes, all judged on the same real eyes",
    params=ClassifyParams,
    run=later("components.classify.run"),
    inputs={
        "cohort": Port("real cohort with training, validation and test images", "Dataset"),
        "synthetic": Port("synthetic cohort; its labels and maps are what is learnt from", "Dataset"),
    },
    outputs={"classification": Port("results.json, figures as PNG, predictions.parquet")},
)
