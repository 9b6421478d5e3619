"""An engine that counts what it is paid for, and a process that captions with it until it is killed."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from retinalogos.captions.engine import CaptionRequest, CaptionResult
from retinalogos.captions.shards import Captioning, caption_shards


class SlowEngine:
    """Answers after ``seconds`` and writes down each call; an image in ``failing`` gets an error."""

    name, prompt_version = "slow", "1"

    def __init__(self, calls: Path, seconds: float = 0.0, failing: tuple[str, ...] = ()):
        self.calls, self.seconds, self.failing = calls, seconds, failing

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionResult]:
        for request in requests:
            time.sleep(self.seconds)
            yield self.answer(request)

    def answer(self, request: CaptionRequest) -> CaptionResult:
        with self.calls.open("a") as file:
            file.write(f"{request.image_id} {request.granularity} {request.wording}\n")
        failed = request.image_id in self.failing
        text = (
            "" if failed else f"A {request.granularity} caption of the {request.record['eye']} eye {request.wording}."
        )
        return CaptionResult(
            request.image_id, request.granularity, request.wording, text, len(text.split()), self.name, "1",
            request.seed, "the server said no" if failed else None,
        )  # fmt: skip


class BlockedEngine(SlowEngine):
    """Has all answers at once but the first, which never comes: what a server with many requests in flight may do."""

    finished = None

    def caption(self, requests: Iterable[CaptionRequest]) -> Iterator[CaptionResult]:
        first, *others = requests
        for request in others:
            self.finished(self.answer(request))
        Path(f"{self.calls}.blocked").touch()
        time.sleep(600)
        yield self.answer(first)


def captioning(cohort: Path, calls: Path, kind: type[SlowEngine] = SlowEngine, **options) -> Captioning:
    """Two captions of each image by a slow engine."""
    return Captioning(
        cohort, partial(kind, calls, **options), {"coarse": 1, "fine": 1}, seed=0, token_budget=64,
        text_encoder="minilm", of_model=True,
    )  # fmt: skip


if __name__ == "__main__":
    cohort, calls, work, kind = sys.argv[1:]
    job = captioning(Path(cohort), Path(calls), globals()[kind], seconds=0.01)
    print(os.getpid(), flush=True)
    list(caption_shards(job, Path(work), [0, 1, 2], jobs=1))
