"""Captions of every eye of a cohort: several wordings, coarse and fine, within the text encoder's budget."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.caption.page import render
from components.step import Metrics, Params, Paths, Port, Step
from retinalogos.captions.engine import CaptionEngine, TemplateEngine
from retinalogos.captions.quality import report
from retinalogos.captions.shards import Captioning, caption_shards, merge, remove_parts, work_key
from retinalogos.captions.style import Experts, read_experts
from retinalogos.captions.table import read_captions_meta
from retinalogos.captions.template import MAX_WORDINGS, PROMPT_VERSION
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.training.configuration import Precision

# Settings of the engines that change nothing in an answer: it may be taken up with others where it was cut off.
_REACHED = ("batch_size", "concurrency", "timeout_s", "retries", "max_wait_s", "allow_remote", "key_variable")


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


class TransformersParams(BaseModel):
    """Settings of the engine ``transformers``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="hub name or folder; any image-text-to-text model, or a language model for text only"
    )
    revision: str | None = Field(description="of the hub name; null: the newest")
    batch_size: int = Field(ge=1, description="eyes at a time")
    precision: Precision


class ServerParams(BaseModel):
    """Settings of the engine ``server``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Where the server stands changes nothing in the captions.
    endpoint: str = Field(exclude=True, description="address of an OpenAI-compatible server, up to /v1")
    model: str = Field(description="as the server names it")
    concurrency: int = Field(ge=1, le=10_000, description="questions at the server at a time")
    timeout_s: float = Field(gt=0, description="seconds that one request may take")
    retries: int = Field(ge=0, description="times a request is sent again after a failure")
    max_wait_s: float = Field(ge=0, description="seconds a question may wait because the server told it to")
    allow_remote: bool = Field(description="whether records may leave the own network")
    key_variable: str = Field(description="environment variable that holds the key; unset: none is sent")
    constrain: bool = Field(description="ask the server to keep to the JSON schema while it writes")


class CaptionParams(Params):
    """Parameters of ``caption``."""

    seed: int
    engine: Literal["template", "transformers", "server"]
    prompt: str = Field(description="name of a prompt in retinalogos/captions/prompts, or a YAML file")
    look: bool = Field(description="engines with a model: show it the picture; false: captions from the record alone")
    temperature: float = Field(ge=0, le=2, description="of the model's sampling; 0: its likeliest answer")
    attempts: int = Field(ge=1, description="times a model is asked until its answer can be used")
    max_tokens: int = Field(ge=64, description="longest answer, tokens of the model")
    transformers: TransformersParams
    server: ServerParams
    text_encoder: str = Field(description="minilm, a folder or a hub name: whose tokens are counted")
    token_budget: int = Field(ge=8, description="most tokens of a caption, special tokens included")
    wordings: Wordings
    quality_sample: int = Field(ge=1, description="captions that the page on their quality looks at, drawn by lot")
    # What is left to compare with changes no caption.
    expert_texts: str = Field(
        exclude=True, description="JSON of texts by experts to hold captions against; empty: none"
    )
    shards: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        min_length=1, description="numbers of the cohort's shards, to caption them alone; null: all"
    )
    jobs: int = Field(
        ge=0, exclude=True, description="shards side by side; 0: as many as cores, one where a model is loaded"
    )
    pods: int = Field(ge=1, exclude=True, description="Kubeflow: pods side by side, each with its share of the shards")
    work: str = Field(exclude=True, description="folder for finished captions, kept so that a killed step goes on")


def run(params: CaptionParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    require_passed(inputs["validation"])
    experts = _experts(params)  # before anything is paid for: a wrong file is told at once
    cohort = Cohort(inputs["cohort"])
    job = captioning(params, inputs["cohort"])
    numbers = range(len(cohort.shards)) if params.shards is None else params.shards
    jobs = params.jobs or (1 if job.of_model else len(os.sched_getaffinity(0)))
    parts = caption_shards(job, work_of(params, cohort), numbers, jobs)
    metrics = _join(params, cohort, parts, numbers, experts, outputs)
    if params.shards is None:
        remove_parts(cohort, work_of(params, cohort))
    return metrics


def joining(parts: Sequence[Path]) -> Step[CaptionParams]:
    """The step where others have captioned the shards: it asks no engine and writes the same bytes as :func:`run`.

    The work of those others is removed only now: had it gone with each of them, one whose output was lost on its way
    here would pay again.

    Args:
        parts: their outputs, in the order of the shards.
    """

    def run(params: CaptionParams, inputs: Paths, outputs: Paths) -> Metrics:
        cohort = Cohort(inputs["cohort"])
        metrics = _join(params, cohort, parts, range(len(cohort.shards)), _experts(params), outputs)
        meta = read_captions_meta(outputs["captions"])
        wanted = len(cohort) * sum(params.wordings.model_dump().values())
        if meta["captions"] + meta["dropped"] != wanted:
            raise DataError(
                f"{len(parts)} parts hold {meta['captions']} captions and {meta['dropped']} dropped ones of {wanted}: "
                "give the output of every shard"
            )
        remove_parts(cohort, work_of(params, cohort))
        return metrics

    return replace(STEP, run=run)


def _experts(params: CaptionParams) -> Experts | None:
    return read_experts(params.expert_texts) if params.expert_texts else None


def _join(
    params: CaptionParams,
    cohort: Cohort,
    parts: Iterable[Path],
    numbers: Sequence[int],
    experts: Experts | None,
    outputs: Paths,
) -> Metrics:
    statistics = merge(
        parts, outputs["captions"], params.token_budget, params.text_encoder, may_be_empty=params.shards is not None
    )
    found = report(outputs["captions"], cohort, params.quality_sample, params.seed, experts)
    outputs["page"].mkdir(parents=True)
    html = render(found, cohort.meta["name"], _asked(params), Path(params.expert_texts) if experts else None)
    (outputs["page"] / "index.html").write_text(html, encoding="utf-8")
    images = sum(pq.read_metadata(cohort.shards[number]).num_rows for number in numbers)
    dropped = read_captions_meta(outputs["captions"])["dropped"]
    return {"images": images, "dropped": dropped, **statistics.metrics(), **found.metrics()}


def _asked(params: CaptionParams) -> dict[str, str] | None:
    """The words of the prompt, for the page; None where no model is asked."""
    if params.engine == "template":
        return None
    from retinalogos.captions.prompts import load_prompt

    prompt = load_prompt(params.prompt)
    left_out = {"text_only" if params.look else "with_image"}
    return {"identity": prompt.identity, **prompt.model_dump(exclude=left_out)}


def work_of(params: CaptionParams, cohort: Cohort) -> Path:
    """Where the work on these captions of this cohort lies while it is not finished."""
    return Path(params.work) / work_key(cohort, decisive(params))


def captioning(params: CaptionParams, cohort: Path) -> Captioning:
    """What the parameters ask for."""
    return Captioning(
        cohort,
        partial(make_engine, params),
        params.wordings.model_dump(),
        params.seed,
        params.token_budget,
        params.text_encoder,
        of_model=params.engine != "template",
    )


def decisive(params: CaptionParams) -> dict[str, Any]:
    """All that decides on the texts: what an earlier run wrote with the same is taken from it.

    The parameters, without those of engines that are not asked and those of how a model is reached and fed; and the
    versions of the template, of whose openings and order every caption is made, and of the prompt.

    Raises:
        UsageError: there is no such prompt.
    """
    versions = [PROMPT_VERSION]
    if params.engine != "template":
        from retinalogos.captions.prompts import load_prompt

        versions.append(load_prompt(params.prompt).identity)
    others = {"transformers", "server"} - {params.engine}
    found = params.model_dump(exclude={"shards", "prompt", "quality_sample", *others})
    asked = {name: value for name, value in found.get(params.engine, {}).items() if name not in _REACHED}
    return {**found, params.engine: asked, "versions": versions}


def make_engine(params: CaptionParams) -> CaptionEngine:
    """The engine that the parameters ask for.

    Raises:
        UsageError: there is no such prompt, model or server, or the server is not local.
    """
    budget = TokenBudget(params.text_encoder, params.token_budget)
    if params.engine == "template":
        return TemplateEngine(budget)
    # Needed by engines with a model alone, whose libraries take seconds to import.
    from retinalogos.captions.prompts import load_prompt

    asking: dict[str, Any] = params.model_dump(include={"look", "temperature", "attempts", "max_tokens"})
    prompt = load_prompt(params.prompt)
    if params.engine == "server":
        from retinalogos.captions.server import ServerEngine

        return ServerEngine(prompt=prompt, budget=budget, **asking, **dict(params.server))
    from retinalogos.captions.vision_language import TransformersEngine

    return TransformersEngine(prompt=prompt, budget=budget, **asking, **dict(params.transformers))


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
    outputs={
        "captions": Port("captions.parquet and captions.json", "Dataset"),
        "page": Port("folder with index.html: how the captions read, and how far they and their records agree"),
    },
)
