"""What the step ``purify`` takes and gives."""

from pydantic import Field

from components.step import Params, Port, Step, later


class PurifyParams(Params):
    """Parameters of ``purify``."""

    seed: int
    agreement_quantile: float = Field(ge=0, lt=1, description="share of training captions that agree least, dropped")
    agreement_draws: int = Field(ge=1, description="times and noises over which agreement is averaged")
    batch_size: int = Field(ge=1)


STEP = Step(
    name="purify",
    summary="stage 2: drop captions that break a rule or do not agree with their image",
    params=PurifyParams,
    run=later("components.purify.run"),
    inputs={
        "cohort": Port("cohort", "Dataset"),
        "captions": Port("captions", "Dataset"),
        "latents": Port("latents and text features of stage 1", "Dataset"),
        "generator": Port("generator of stage 1, the judge of agreement", "Model"),
    },
    outputs={"curated": Port("captions that stay, and dropped.csv", "Dataset")},
)
