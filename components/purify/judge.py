"""The language model's verdict on each caption: does it contradict its record?"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.purify.agreement import Rows
from components.purify.step import JudgeParams
from retinalogos.captions.conversation import ModelEngine, Question, seed_of
from retinalogos.captions.engine import CaptionRequest
from retinalogos.captions.journal import Journal
from retinalogos.captions.prompts import JudgePrompt, Verdict, load_judge_prompt
from retinalogos.captions.tokens import TokenBudget
from retinalogos.errors import UsageError
from retinalogos.progress import track


def judged(
    params: JudgeParams, rows: Rows, records: Mapping[str, dict[str, Any]], budget: TokenBudget, seed: int
) -> dict[int, Verdict]:
    """Number of a caption → verdict; captions without a usable answer are left out.

    Verdicts lie in ``params.work`` until all are there: a killed step that is started again asks for none twice.

    Args:
        params: which model, and how it is reached.
        rows: the captions.
        records: cohort row by image_id.
        budget: of the text encoder; engines ask for one.
        seed: of the model.

    Raises:
        UsageError: there is no such prompt, model or server, or the server is not local.
    """
    prompt = load_judge_prompt(params.prompt)

    def requests() -> Iterator[CaptionRequest]:
        for row in rows:
            record = records[row["image_id"]] | {"caption": row["text"]}
            yield CaptionRequest(row["image_id"], record, row["granularity"], row["wording"], seed)

    work = Path(params.work) / _key(params, prompt, requests())
    try:
        engine = _engine(params, prompt, budget)
        with Journal(work / "judged.jsonl") as journal:
            engine.finished = journal.add
            answers = engine.answered(_open(requests(), journal))
            for _ in track(answers, "purify: judge", len(rows) - len(journal), "caption"):
                pass
            verdicts = {
                number: Verdict.model_validate_json(result.answer)
                for number, result in enumerate(journal.results(map(_place, requests())))
                if result.error is None
            }
    except UsageError as error:
        # The engines speak of the step that they were made for.
        raise UsageError(re.sub(r"\bcaption\.(?=server|transformers)", "purify.judge.", str(error))) from error
    shutil.rmtree(work)
    return verdicts


def _place(request: CaptionRequest) -> tuple[str, str, int]:
    return request.image_id, request.granularity, request.wording


def _open(requests: Iterator[CaptionRequest], journal: Journal) -> Iterator[Question]:
    for request in requests:
        if _place(request) not in journal:
            yield Question((request,), seed_of(request.seed, *_place(request)))


def _key(params: JudgeParams, prompt: JudgePrompt, requests: Iterator[CaptionRequest]) -> str:
    """Name of the work: the same for the same questions to the same model."""
    asked = getattr(params, params.engine)
    model = f"{asked.model}@{getattr(asked, 'revision', None)}"
    digest = hashlib.sha256(f"{params.engine} {model} {params.max_tokens} {prompt.identity}".encode())
    for request in requests:
        digest.update(json.dumps([*_place(request), request.record], default=str, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _engine(params: JudgeParams, prompt: JudgePrompt, budget: TokenBudget) -> ModelEngine:
    # A verdict is the model's likeliest answer; another picture is no matter of the record.
    asking: dict[str, Any] = {
        "look": False,
        "temperature": 0.0,
        "attempts": params.attempts,
        "max_tokens": params.max_tokens,
    }
    if params.engine == "server":
        from retinalogos.captions.server import ServerEngine

        return ServerEngine(prompt=prompt, budget=budget, **asking, **dict(params.server))
    from retinalogos.captions.vision_language import TransformersEngine

    return TransformersEngine(prompt=prompt, budget=budget, **asking, **dict(params.transformers))
