"""What captioning a cohort would take, before it is started: calls, tokens, hours and money.

    python -m retinalogos.captions.estimate --cohort data/cohort --seconds 6 --concurrency 64 --hour-price 4

No engine is asked: the records of the cohort are counted with a tokenizer, the other figures are given.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from retinalogos.captions.shards import requests_of
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError

# Records whose length is counted; a standard deviation of half the mean gives the mean to 3 %.
_SAMPLE = 300


@dataclass(frozen=True)
class Rates:
    """Of an engine; what a person or a price list says.

    Attributes:
        prompt_tokens: of a call: instruction, record and image.
        answer_tokens: of a call.
        seconds: a call takes, from request to answer.
        concurrency: calls at a time.
        prompt_price, answer_price: of a million tokens, in any currency.
        hour_price: of the machines, an hour.
        repeats: share of calls that are made once more (broken answers).
    """

    prompt_tokens: float
    answer_tokens: float
    seconds: float
    concurrency: int
    prompt_price: float = 0.0
    answer_price: float = 0.0
    hour_price: float = 0.0
    repeats: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """Calls, tokens of prompts and answers, hours on the wall and money."""

    calls: int
    prompt_tokens: int
    answer_tokens: int
    hours: float
    money: float


def estimate(captions: int, rates: Rates, finished: int = 0) -> Estimate:
    """The formula of docs/captions.md.

    calls = (captions - finished) · (1 + repeats); tokens = calls · tokens a call; hours = calls · seconds /
    concurrency / 3600; money = tokens · prices / 10⁶ + hours · price of an hour.

    Args:
        captions: to be written.
        rates: of the engine.
        finished: captions that an earlier run has paid for.
    """
    calls = round(max(captions - finished, 0) * (1 + rates.repeats))
    prompt, answer = round(calls * rates.prompt_tokens), round(calls * rates.answer_tokens)
    hours = calls * rates.seconds / rates.concurrency / 3600
    tokens = (prompt * rates.prompt_price + answer * rates.answer_price) / 1e6
    return Estimate(calls, prompt, answer, hours, tokens + hours * rates.hour_price)


def lines(captions: int, finished: int, found: Estimate) -> Iterable[str]:
    """The estimate as it is printed."""
    yield f"captions to write   {captions:,}, of which finished {finished:,}"
    yield f"calls               {found.calls:,}"
    yield f"prompt tokens       {found.prompt_tokens:,}"
    yield f"answer tokens       {found.answer_tokens:,}"
    yield f"hours               {found.hours:,.2f}"
    yield f"money               {found.money:,.2f}"


def record_tokens(cohort: Cohort, tokenizer: str) -> float:
    """Mean number of tokens of a record as JSON, as an engine is given it, over the first records of each shard."""
    each = -(-_SAMPLE // len(cohort.shards))
    texts = [
        json.dumps({name: value for name, value in request.record.items() if value is not None})
        for shard in cohort.shards
        for request in itertools.islice(requests_of(shard, {"fine": 1}, 0), each)
    ]
    counts = TokenBudget(tokenizer, sys.maxsize).count_all(texts)
    return sum(counts) / len(counts)


def finished_captions(work: Path) -> int:
    """Captions that lie in a work folder (``run/captions/<key>``): of finished shards and of journals."""
    parts = sum(pq.read_metadata(part).num_rows for part in work.glob("shard-*/captions.parquet"))
    for journal in work.glob("*.jsonl"):
        with journal.open("rb") as lines:
            parts += sum(b'"error": null' in line and line.endswith(b"}\n") for line in lines)
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the estimate; 0 done, 1 the cohort is unfit, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m retinalogos.captions.estimate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--coarse", type=int, default=1, help="captions of an image; as caption.wordings")
    parser.add_argument("--fine", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder of a run that was cut off: what it has is not paid again")
    parser.add_argument("--tokenizer", default="minilm", help="counts the records: of the model, or one like it")
    parser.add_argument("--instruction-tokens", type=int, default=600, help="of the prompt without record and image")
    # Gemma 3 and MedGemma: 256 tokens an image (arXiv 2503.19786); Qwen2.5-VL: (side / 28)², 334 at 512 pixels.
    parser.add_argument("--image-tokens", type=int, default=256, help="of an image; 0: from text alone")
    # The longest prompts that RetinaLogos releases have 213 words, about 280 tokens; JSON says it once more.
    parser.add_argument("--answer-tokens", type=int, default=560)
    parser.add_argument("--seconds", type=float, required=True, help="of a call, from request to answer; measure it")
    parser.add_argument("--concurrency", type=int, required=True, help="calls at a time, over all shards")
    parser.add_argument("--repeats", type=float, default=0.05, help="share of calls made once more: broken answers")
    parser.add_argument("--prompt-price", type=float, default=0.0, help="of a million tokens")
    parser.add_argument("--answer-price", type=float, default=0.0, help="of a million tokens")
    parser.add_argument("--hour-price", type=float, default=0.0, help="of the machines, an hour")
    options = parser.parse_args(arguments)
    try:
        cohort = Cohort(options.cohort)
        prompt = options.instruction_tokens + options.image_tokens + record_tokens(cohort, options.tokenizer)
    except (UsageError, DataError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    captions = len(cohort) * (options.coarse + options.fine)
    finished = finished_captions(options.work) if options.work else 0
    rates = Rates(
        prompt,
        options.answer_tokens,
        options.seconds,
        options.concurrency,
        options.prompt_price,
        options.answer_price,
        options.hour_price,
        options.repeats,
    )
    print("\n".join(lines(captions, finished, estimate(captions, rates, finished))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
