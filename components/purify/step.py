"""What the step ``purify`` takes and gives."""

from typing import Literal

from pydantic import Field

from components.step import Params, Port, Step, later
from retinalogos.captions.configuration import ContrastiveConfig


class PurifyParams(Params):
    """Parameters of ``purify``; each filter is left out by its own parameter."""

    seed: int
    text: bool = Field(description="drop captions that break a rule")
    agreement: Literal["none", "generator", "contrastive", "clip"] = Field(
        description="drop the captions that agree least with their picture, and by what: the generator of stage 1, a "
        "contrastive model trained here on the cohort, or clip_model"
    )
    image: bool = Field(description="drop the captions of poor pictures and of copies of others")
    agreement_quantile: float = Field(ge=0, lt=1, description="share of training captions that agree least, dropped")
    agreement_draws: int = Field(ge=1, description="times and noises over which the generator's agreement is averaged")
    contrastive: ContrastiveConfig
    clip_model: str = Field(description="folder or hub name of a CLIP-type model; agreement clip only")
    min_quality: float = Field(ge=0, le=1, description="pictures below it are poor")
    examples: int = Field(ge=0, description="captions on the page that each filter kept, and dropped")
    batch_size: int = Field(ge=1)


STEP = Step(
    name="purify",
    summary="stage 2: drop captions that break a rule, do not agree with their image, or are of a poor one",
    params=PurifyParams,
    run=later("components.purify.run"),
    inputs={
        "cohort": Port("cohort", "Dataset"),
        "captions": Port("captions", "Dataset"),
        "latents": Port("latents and text features of stage 1", "Dataset"),
        "generator": Port("generator of stage 1, a judge of agreement", "Model"),
    },
    outputs={
        "curated": Port(
            "captions that stay, dropped.csv, and scores.parquet: what each filter says of every caption", "Dataset"
        ),
        "page": Port("folder with index.html: each filter's counts, scores and examples", "HTML"),
    },
)
