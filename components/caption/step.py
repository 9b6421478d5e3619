"""Captions of every eye of a cohort: several wordings, coarse and fine, within the text encoder's budget."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.captions.engine import CaptionEngine, TemplateEngine
from retinalogos.captions.shards import Captioning, caption_shards, merge, remove_parts, work_key
from retinalogos.captions.table import read_captions_meta
from retinalogos.captions.template import MAX_WORDINGS
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError


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


class CaptionParams(Params):
    """Parameters of ``caption``."""

    seed: int
    engine: Literal["template"]
    text_encoder: str = Field(description="minilm, a folder or a hub name: whose tokens are counted")
    token_budget: int = Field(ge=8, description="most tokens of a caption, special tokens included")
    wordings: Wordings
    shard: int | None = Field(ge=0, description="of the cohort, to caption it alone; null: all shards")
    jobs: int = Field(
        ge=0, exclude=True, description="shards side by side; 0: as many as cores, one where a model is loaded"
    )
    work: str = Field(exclude=True, description="folder for finished captions, kept so that a killed step goes on")


def run(params: CaptionParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    require_passed(inputs["validation"])
    cohort = Cohort(inputs["cohort"])
    job = captioning(params, inputs["cohort"])
    settings = params.model_dump(exclude={"shard"})
    work = Path(params.work) / work_key(cohort, settings)
    numbers = range(len(cohort.shards)) if params.shard is None else [params.shard]
    jobs = params.jobs or (1 if job.durable else len(os.sched_getaffinity(0)))
    parts = caption_shards(job, work, numbers, jobs)
    statistics = merge(
        parts, outputs["captions"], params.token_budget, params.text_encoder, may_be_empty=params.shard is not None
    )
    remove_parts(cohort, work, numbers)
    images = sum(pq.read_metadata(cohort.shards[number]).num_rows for number in numbers)
    return {"images": images, "dropped": read_captions_meta(outputs["captions"])["dropped"], **statistics.metrics()}


def captioning(params: CaptionParams, cohort: Path) -> Captioning:
    """What the parameters ask for."""
    return Captioning(
        cohort,
        partial(make_engine, params),
        params.wordings.model_dump(),
        params.seed,
        params.token_budget,
        params.text_encoder,
        durable=params.engine != "template",
    )


def make_engine(params: CaptionParams) -> CaptionEngine:
    """The engine that the parameters name."""
    return TemplateEngine(TokenBudget(params.text_encoder, params.token_budget))


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
