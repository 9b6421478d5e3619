"""What the step ``purify`` takes and gives."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.caption.step import ServerParams, TransformersParams
from components.step import Params, Port, Step, later
from retinalogos.captions.configuration import ClipConfig, ContrastiveConfig, StatementsConfig


class JudgeParams(BaseModel):
    """A language model that says of each caption whether it contradicts its record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["none", "transformers", "server"]
    prompt: str = Field(description="name of a judge's prompt in retinalogos/captions/prompts, or a YAML file")
    max_contradiction: float = Field(ge=0, le=1, description="captions that the model is surer to be wrong are dropped")
    attempts: int = Field(ge=1, description="times the model is asked until its answer can be used")
    max_tokens: int = Field(ge=32, description="longest answer, tokens of the model")
    transformers: TransformersParams
    server: ServerParams
    work: str = Field(exclude=True, description="folder for verdicts, kept so that a killed step asks for none twice")


class PurifyParams(Params):
    """Parameters of ``purify``; each filter is left out by its own parameter."""

    seed: int
    text: bool = Field(description="drop captions that break a rule")
    judge: JudgeParams
    agreement: Literal["none", "generator", "statements", "contrastive", "clip"] = Field(
        description="drop the captions that agree least with their picture, and by what: the generator of stage 1, "
        "readers of what captions state or a contrastive model, both trained here on the cohort, or the model of clip"
    )
    image: bool = Field(description="drop the captions of poor pictures and of copies of others")
    agreement_quantile: float = Field(
        ge=0,
        lt=1,
        description="share of training captions that agree least, dropped; statements has a limit of its own",
    )
    agreement_draws: int = Field(ge=1, description="times and noises over which the generator's agreement is averaged")
    statements: StatementsConfig
    contrastive: ContrastiveConfig
    clip: ClipConfig
    min_quality: float = Field(ge=0, le=1, description="pictures of a lower score of quality are poor")
    min_measure: float = Field(ge=0, le=1, description="pictures with a lower sharpness, contrast or evenness are poor")
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
        "latents": Port(
            "latents and text features of stage 1, where agreement is by what is trained here", "Dataset", optional=True
        ),
        "generator": Port("generator of stage 1, where it judges agreement", "Model", optional=True),
    },
    outputs={
        "curated": Port(
            "captions that stay, dropped.csv, and scores.parquet: what each filter says of every caption", "Dataset"
        ),
        "page": Port("folder with index.html: each filter's counts, scores and examples"),
    },
)
