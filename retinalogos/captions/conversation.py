"""What the engines with a model have in common: one question for an eye, asked again where the answer is broken."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

from retinalogos.captions.engine import CaptionRequest, CaptionResult
from retinalogos.captions.prompts import Prompt
from retinalogos.captions.structured import Answer, write_prose
from retinalogos.captions.tokens import TokenBudget


@dataclass(frozen=True)
class Question:
    """One question to a model; every caption of this wording of the image, coarse and fine, is made of its answer.

    Attributes:
        request: the first of the captions.
        seed: of the sampling; a function of the request alone.
    """

    request: CaptionRequest
    seed: int

    def seed_of(self, attempt: int) -> int:
        """Another seed for each time the question is asked, from 0; below 2**31, which every server takes."""
        return seed_of(self.seed, attempt)


@dataclass(frozen=True)
class Reply:
    """The answer to a question, or why there is none."""

    answer: Answer | None
    error: str | None = None


class ModelEngine(ABC):
    """Asks a model about each eye and writes captions of its structured answers.

    An eye is asked about once for each wording, and once in all where the model does not sample, since it would give
    the same answer again.

    Args:
        model: name, kept with the captions.
        prompt: what is asked.
        budget: of the text encoder; every caption keeps it.
        look: whether the model is shown the picture.
        temperature: of the sampling; 0: the likeliest answer.
        attempts: times a question is asked until an answer can be used.
    """

    name: str

    def __init__(
        self, model: str, prompt: Prompt, budget: TokenBudget, *, look: bool, temperature: float, attempts: int
    ):
        self.model, self.prompt, self.budget, self.look = model, prompt, budget, look
        self.temperature, self.attempts = temperature, attempts
        self.prompt_version = prompt.identity

    @abstractmethod
    def replies(self, questions: Iterator[Question]) -> Iterator[Reply]:
        """The reply to each question, in their order; questions are drawn as far as the engine works ahead."""

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionResult]:
        """One result for every request, in their order; an eye without a usable answer gives errors.

        The requests of an image are to follow each other.
        """
        images: deque[tuple[list[CaptionRequest], list[int]]] = deque()

        def questions() -> Iterator[Question]:
            for _, group in groupby(requests, key=lambda request: request.image_id):
                wanted = list(group)
                first = {self._asked(request): request for request in reversed(wanted)}
                asked = sorted(first)
                images.append((wanted, asked))
                for wording in asked:
                    request = first[wording]
                    yield Question(request, seed_of(request.seed, request.image_id, wording))

        replies: list[Reply] = []
        for reply in self.replies(questions()):
            replies.append(reply)
            wanted, asked = images[0]
            if len(replies) == len(asked):
                of = dict(zip(asked, replies, strict=True))
                yield from (self._result(request, of[self._asked(request)]) for request in wanted)
                images.popleft()
                replies = []

    def _asked(self, request: CaptionRequest) -> int:
        return request.wording if self.temperature > 0 else 0

    def _result(self, request: CaptionRequest, reply: Reply) -> CaptionResult:
        text, tokens, said = "", 0, ""
        if reply.answer is not None:
            said = reply.answer.model_dump_json()
            caption = write_prose(
                reply.answer,
                identity=request.image_id,
                granularity=request.granularity,
                wording=request.wording,
                seed=request.seed,
                budget=self.budget,
            )
            text, tokens = caption.text, caption.tokens
        return CaptionResult(
            request.image_id,
            request.granularity,
            request.wording,
            text,
            tokens,
            self.name,
            self.prompt_version,
            request.seed,
            reply.error,
            self.model,
            said,
        )


def seed_of(*parts: object) -> int:
    """A seed below 2**31 that is a function of ``parts``."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest(), "big") >> 1
