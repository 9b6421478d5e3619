"""Captions of every eye of a cohort: several wordings, coarse and fine, within the text encoder's budget."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.captions.engine import CaptionRequest, TemplateEngine
from retinalogos.captions.statistics import CaptionStatistics
from retinalogos.captions.table import CaptionWriter
from retinalogos.captions.template import GRANULARITIES, MAX_WORDINGS, Granularity
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.schema import TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.progress import track


class Wordings(BaseModel):
    """How many captions an image gets of each granularity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coarse: int = Field(ge=0, le=MAX_WORDINGS)
    fine: int = Field(ge=0, le=MAX_WORDINGS)

    @model_validator(mode="after")
    def _some(self) -> "Wordings":
        if self.coarse + self.fine == 0:
            raise ValueError("at least one of coarse and fine must be 1 or more")
        return self

    def of(self, granularity: Granularity) -> int:
        """Number of wordings of one granularity."""
        return self.coarse if granularity == "coarse" else self.fine


class CaptionParams(Params):
    """Parameters of ``caption``."""

    seed: int
    engine: Literal["template"]
    text_encoder: str = Field(description="minilm, a folder or a hub name: whose tokens are counted")
    token_budget: int = Field(ge=8, description="most tokens of a caption, special tokens included")
    wordings: Wordings


def run(params: CaptionParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    require_passed(inputs["validation"])
    cohort = Cohort(inputs["cohort"])
    engine = TemplateEngine(TokenBudget(params.text_encoder, params.token_budget))
    total = len(cohort) * (params.wordings.coarse + params.wordings.fine)
    statistics = CaptionStatistics()
    with CaptionWriter(outputs["captions"], params.token_budget, params.text_encoder) as writer:
        for result in track(engine.caption(_requests(cohort, params)), "caption", total, "caption"):
            if result.error is not None:
                writer.drop(result.image_id, result.granularity, result.wording, "engine", result.error)
                continue
            writer.add(vars(result))
            statistics.add(result.granularity, result.text, result.tokens)
    return {"images": len(cohort), "dropped": writer.dropped, **statistics.metrics()}


def require_passed(validation: Path) -> None:
    """Refuses data that was not found fit.

    Raises:
        DataError: the folder holds no verdict, or one that is not a pass.
    """
    verdict = validation / "verdict.json"
    if not verdict.is_file():
        raise DataError(f"{validation} holds no verdict.json; run `validate`")
    if json.loads(verdict.read_text(encoding="utf-8")).get("passed") is not True:
        raise DataError(f"{verdict}: the data did not pass validation; see data_docs/index.html beside it")


def _requests(cohort: Cohort, params: CaptionParams) -> Iterator[CaptionRequest]:
    for record in cohort.rows(TABLE_COLUMNS):
        for granularity in GRANULARITIES:
            for wording in range(params.wordings.of(granularity)):
                yield CaptionRequest(record["image_id"], record, granularity, wording, params.seed)


STEP = Step(
    name="caption",
    summary="captions of every eye, several wordings, within the text encoder's token budget",
    params=CaptionParams,
    run=run,
    inputs={
        "cohort": Port("cohort to caption", "Dataset"),
        "validation": Port("verdict on the cohort: it must have passed"),
    },
    outputs={"captions": Port("captions.parquet and captions.json", "Dataset")},
)
