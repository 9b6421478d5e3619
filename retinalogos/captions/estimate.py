"""What captioning a cohort would take, before it is started: calls, tokens, hours and money.

    python -m retinalogos.captions.estimate --cohort data/cohort --seconds 6 --concurrency 64 --hour-price 4

No engine is asked: the records of the cohort are counted with a tokenizer, the other figures are given.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from retinalogos.captions.conversation import question_of
from retinalogos.captions.journal import finished
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


def estimate(questions: int, rates: Rates) -> Estimate:
    """The formula of docs/captions.md.

    calls = questions · (1 + repeats); tokens = calls · tokens a call; hours = calls · seconds / concurrency / 3600;
    money = tokens · prices / 10⁶ + hours · price of an hour.

    Args:
        questions: of :func:`open_questions`.
        rates: of the engine.
    """
    calls = round(questions * (1 + rates.repeats))
    prompt, answer = round(calls * rates.prompt_tokens), round(calls * rates.answer_tokens)
    hours = calls * rates.seconds / rates.concurrency / 3600
    tokens = (prompt * rates.prompt_price + answer * rates.answer_price) / 1e6
    return Estimate(calls, prompt, answer, hours, tokens + hours * rates.hour_price)


def lines(images: int, questions: int, found: Estimate) -> Iterable[str]:
    """The estimate as it is printed."""
    yield f"images              {images:,}"
    yield f"questions to ask    {questions:,}"
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


def open_questions(
    cohort: Cohort, wordings: Mapping[str, int], temperature: float = 0.0, work: Path | None = None
) -> int:
    """Questions that an engine with a model asks about a cohort, where every answer can be used.

    Args:
        cohort: to be captioned.
        wordings: granularity → captions of an image.
        temperature: of the model's sampling.
        work: folder of a run that was cut off (``run/captions/<key>``): what its finished shards and its journals hold
            is not asked again.
    """
    wanted = [(granularity, wording) for granularity, number in wordings.items() for wording in range(number)]
    questions = 0
    for shard in cohort.shards:
        if work is not None and (work / shard.stem).exists():
            continue
        journal = None if work is None else work / f"{shard.stem}.jsonl"
        have = finished(journal) if journal is not None and journal.exists() else set()
        for image_id in pq.read_table(shard, columns=["image_id"])["image_id"].to_pylist():
            rest = (wording for granularity, wording in wanted if (image_id, granularity, wording) not in have)
            questions += len({question_of(wording, temperature) for wording in rest})
    return questions


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the estimate; 0 done, 1 the cohort is unfit, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m retinalogos.captions.estimate", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--coarse", type=int, default=1, help="captions of an image; as caption.wordings")
    parser.add_argument("--fine", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.0, help="as caption.temperature; 0: one call an image")
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
    wordings = {"coarse": options.coarse, "fine": options.fine}
    questions = open_questions(cohort, wordings, options.temperature, options.work)
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
    print("\n".join(lines(len(cohort), questions, estimate(questions, rates))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
