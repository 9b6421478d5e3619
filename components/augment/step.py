"""What the step ``augment`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.captions.template import Granularity


class AugmentParams(Params):
    """Parameters of ``augment``."""

    seed: int
    per_grade: int = Field(ge=0, description="pictures wanted of each ICDR grade that occurs in training")
    per_glaucoma: int = Field(ge=0, description="pictures wanted of each of: glaucoma, no glaucoma")
    granularity: Granularity = Field(description="wording of the prompts")
    surplus: float = Field(
        ge=0, description="drawn beyond what is wanted, as a share, to replace what the filters drop"
    )
    quality_quantile: float = Field(
        ge=0, lt=1, description="a picture below this quantile of real training quality is dropped"
    )
    duplicate_distance: int = Field(ge=0, description="bits of the perceptual hash within which a picture is a copy")
    steps: int | None = Field(ge=1, description="network evaluations; null for the generator's own")
    guidance: float | None = Field(ge=1, description="classifier-free guidance; null for the generator's own")
    autoguidance: float | None = Field(ge=1, description="away from the prior; null for the generator's own")
    batch_size: int = Field(ge=1)


STEP = Step(
    name="augment",
    summary="draw the class-balanced synthetic cohort, filtered by quality and for copies",
    params=AugmentParams,
    run=later("components.augment.run"),
    inputs={
        "cohort": Port("real cohort: its training split says what is asked for and what must not be copied", "Dataset"),
        "generator": Port("generator of stage 3", "Model"),
    },
    outputs={"synthetic": Port("synthetic cohort", "Dataset")},
)
