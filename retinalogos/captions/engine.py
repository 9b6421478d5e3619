"""What writes captions: one protocol for templates, local vision-language models and model servers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from retinalogos.captions.template import PROMPT_VERSION, Granularity, write_captions
from retinalogos.captions.tokens import TokenBudget
from retinalogos.errors import DataError


@dataclass(frozen=True)
class CaptionRequest:
    """One caption to be written.

    Attributes:
        image_id: of the cohort row.
        record: the row without pixels.
        granularity: coarse (one sentence) or fine (prose).
        wording: number of the wording, from 0; wordings of one image differ.
        seed: the same request gives the same text, as far as the engine allows.
        image: gives the encoded image when called, so that only engines that look at it read it; None: text only.
    """

    image_id: str
    record: Mapping[str, Any]
    granularity: Granularity
    wording: int
    seed: int
    image: Callable[[], bytes] | None = None

    def result(
        self,
        engine: "CaptionEngine",
        text: str,
        tokens: int,
        error: str | None = None,
        model: str = "",
        answer: str = "",
    ) -> "CaptionResult":
        """What this engine wrote for it; see :class:`CaptionResult`."""
        of_request = (self.image_id, self.granularity, self.wording, text, tokens)
        return CaptionResult(*of_request, engine.name, engine.prompt_version, self.seed, error, model, answer)


@dataclass(frozen=True)
class CaptionResult:
    """The answer to one request: a text, or the error why there is none; never neither.

    Attributes:
        tokens: length of ``text`` for the text encoder, special tokens included.
        engine, prompt_version: what wrote it.
        model: whose answer it is made of; "" where there is no model.
        answer: what the model said, as JSON by the schema of :mod:`retinalogos.captions.structured`.
    """

    image_id: str
    granularity: Granularity
    wording: int
    text: str
    tokens: int
    engine: str
    prompt_version: str
    seed: int
    error: str | None = None
    model: str = ""
    answer: str = ""


class CaptionEngine(Protocol):
    """Writes captions as a stream: requests are drawn in batches, as many as the engine works on at a time."""

    name: str
    prompt_version: str

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionResult]:
        """One result for every request, in their order; a failure is a result with ``error``."""
        ...


class TemplateEngine:
    """Writes captions from the record alone, without a model: :mod:`retinalogos.captions.template`.

    Args:
        budget: of the text encoder; every caption keeps it.
        batch: captions whose tokens are counted in one call.
    """

    name = "template"
    prompt_version = PROMPT_VERSION
    # Of a record: all that it reads.
    columns = (
        "image_id",
        "eye",
        "dr_grade",
        "dme",
        "glaucoma",
        "vcdr",
        "findings",
        "quality",
        "source",
        "truth",
    )

    def __init__(self, budget: TokenBudget, batch: int = 512):
        self.budget, self.batch = budget, batch

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionResult]:
        """One result for every request, in their order; a record outside the vocabulary gives an error."""
        stream = iter(requests)
        while batch := list(islice(stream, self.batch)):
            try:
                yield from self._write(batch)
            except DataError:  # one record in the batch is unfit: find it by asking for each alone
                for request in batch:
                    yield from self._write_one(request)

    def _write(self, batch: list[CaptionRequest]) -> list[CaptionResult]:
        captions = write_captions([(r.record, r.granularity, r.wording, r.seed) for r in batch], self.budget)
        return [self._result(request, c.text, c.tokens) for request, c in zip(batch, captions, strict=True)]

    def _write_one(self, request: CaptionRequest) -> list[CaptionResult]:
        try:
            return self._write([request])
        except DataError as error:
            return [self._result(request, "", 0, str(error))]

    def _result(self, request: CaptionRequest, text: str, tokens: int, error: str | None = None) -> CaptionResult:
        return request.result(self, text, tokens, error)
