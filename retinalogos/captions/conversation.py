"""What the engines with a model have in common: one question for an eye, asked again where the answer is broken."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby

from pydantic import BaseModel

from retinalogos.captions.engine import CaptionRequest, CaptionResult
from retinalogos.captions.prompts import JudgePrompt, Prompt
from retinalogos.captions.structured import Answer, write_prose
from retinalogos.captions.tokens import TokenBudget


@dataclass(frozen=True)
class Question:
    """One question to a model about an image.

    Attributes:
        requests: the captions that are made of its answer, coarse and fine; one at least.
        seed: of the sampling; a function of the requests alone.
    """

    requests: tuple[CaptionRequest, ...]
    seed: int

    @property
    def request(self) -> CaptionRequest:
        """The first of the captions; all are of one record and picture."""
        return self.requests[0]

    def seed_of(self, attempt: int) -> int:
        """Another seed for each time the question is asked, from 0; below 2**31, which every server takes."""
        return seed_of(self.seed, attempt)


@dataclass(frozen=True)
class Reply:
    """The answer to a question, or why there is none."""

    answer: BaseModel | None
    error: str | None = None


class ModelEngine(ABC):
    """Asks a model about each eye and writes captions of its structured answers.

    An eye is asked about once for each wording, and once in all where the model does not sample, since it would give
    the same answer again.

    Args:
        model: name, kept with the captions.
        prompt: what is asked; with one of a judge, results have an answer and no text.
        budget: of the text encoder; every caption keeps it.
        look: whether the model is shown the picture.
        temperature: of the sampling; 0: the likeliest answer.
        attempts: times a question is asked until an answer can be used.

    Attributes:
        finished: called with each caption as soon as it is made, before its turn in the stream; from another thread
            where the engine has one.
    """

    name: str
    finished: Callable[[CaptionResult], None] | None = None

    def __init__(
        self,
        model: str,
        prompt: Prompt | JudgePrompt,
        budget: TokenBudget,
        *,
        look: bool,
        temperature: float,
        attempts: int,
    ):
        self.model, self.prompt, self.budget, self.look = model, prompt, budget, look
        self.temperature, self.attempts = temperature, attempts
        self.prompt_version = prompt.identity

    @abstractmethod
    def answered(self, questions: Iterator[Question]) -> Iterator[list[CaptionResult]]:
        """The captions of each question, by :meth:`written` as soon as its answer is there, in the order of the
        questions; these are drawn as far as the engine works ahead.
        """

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionResult]:
        """One result for every request, in their order; an eye without a usable answer gives errors.

        The requests of an image are to follow each other.
        """
        images: deque[tuple[list[CaptionRequest], int]] = deque()  # under way, with the number of their questions

        def questions() -> Iterator[Question]:
            for _, group in groupby(requests, key=lambda request: request.image_id):
                wanted = list(group)
                asked: dict[int, list[CaptionRequest]] = {}
                for request in wanted:
                    asked.setdefault(question_of(request.wording, self.temperature), []).append(request)
                images.append((wanted, len(asked)))
                for wording, of_one in sorted(asked.items()):
                    seed = seed_of(of_one[0].seed, of_one[0].image_id, wording)
                    yield Question(tuple(of_one), seed)

        found: dict[tuple[str, int], CaptionResult] = {}
        answers = 0
        for results in self.answered(questions()):
            found.update({(result.granularity, result.wording): result for result in results})
            answers += 1
            wanted, number = images[0]
            if answers == number:
                yield from (found[request.granularity, request.wording] for request in wanted)
                images.popleft()
                found, answers = {}, 0

    def written(self, question: Question, reply: Reply) -> list[CaptionResult]:
        """The captions that the answer to a question gives; ``finished`` is told of each."""
        results = [self._result(request, reply) for request in question.requests]
        if self.finished is not None:
            for result in results:
                self.finished(result)
        return results

    def _result(self, request: CaptionRequest, reply: Reply) -> CaptionResult:
        text, tokens, said = "", 0, ""
        if reply.answer is not None:
            said = reply.answer.model_dump_json()
        if isinstance(reply.answer, Answer):
            caption = write_prose(
                reply.answer,
                identity=request.image_id,
                granularity=request.granularity,
                wording=request.wording,
                seed=request.seed,
                budget=self.budget,
            )
            text, tokens = caption.text, caption.tokens
        return request.result(self, text, tokens, reply.error, self.model, said)


def question_of(wording: int, temperature: float) -> int:
    """Which of the questions about an image, from 0, a caption is made of: its coarse and fine captions share one."""
    return wording if temperature > 0 else 0


def seed_of(*parts: object) -> int:
    """A seed below 2**31 that is a function of ``parts``."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=4).digest(), "big") >> 1
