"""The structured answer of a model: its schema, how it is read from what a model writes, and the prose made of it.

A model is asked for JSON rather than prose, so that every statement has its field: it can be checked one by one, and
captions of any length and granularity are made of one answer. The prose keeps the order of the paper.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from retinalogos.captions.description import Description
from retinalogos.captions.reading import sentences
from retinalogos.captions.template import OPENING, Caption, Granularity, Sentence, fit, opening
from retinalogos.captions.tokens import TokenBudget
from retinalogos.errors import DataError

# Longest texts, in characters: several times a sentence of 20 words; what is longer is a loop.
_LONGEST, _LONGEST_PHRASE = 600, 200
# An answer has an object for each lesion, 30 at most, and four brackets besides.
_MOST_BRACKETS = 40
# What models write in a field that has nothing to say.
_NOTHING = {"", "unknown", "none", "n/a", "na", "not stated", "not specified", "not available", "not mentioned", "null"}
_EYES = {"od": "right", "os": "left", "right eye": "right", "left eye": "left"}
# Typographic quotes, and comments as JavaScript has them: YAML knows neither.
_QUOTES = str.maketrans("“”„", '"""')
_COMMENT = re.compile(r"(?m)(^|[,{\[\]}])[ \t]*//.*$")
# Places where an object may begin that are tried, where the first brace belongs to chatter.
_MOST_STARTS = 20
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.S | re.I)
_THINKING = re.compile(r"<think>.*?</think>", re.S)


def _text(value: Any) -> Any:
    """One line of plain text; "" where nothing is said."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    # Mark-up, and quotes that a damaged answer leaves behind.
    plain = " ".join(re.sub(r'[*#"]', " ", value).split())
    return "" if plain.lower().strip(" .") in _NOTHING else plain


def _word(value: Any) -> Any:
    """A word of a vocabulary, however it is written."""
    word = _text(value)
    if not isinstance(word, str):
        return word
    return _EYES.get(word.lower(), word.lower()) or "unknown"


def _phrases(value: Any) -> Any:
    """A list of phrases: a single one is a list too, and empty ones say nothing."""
    items = [value] if isinstance(value, str) else value
    return [item for item in items if _text(item) != ""] if isinstance(items, list) else [] if items is None else items


def _ratio(value: Any) -> Any:
    """A number or nothing; "true" is no ratio of 1."""
    if isinstance(value, bool):
        raise ValueError("true and false are no ratio")
    return None if isinstance(value, str) and _text(value) == "" else value


def _lesions_named(value: Any) -> Any:
    """A list of lesions, of which some may be told by their name alone."""
    items = _phrases(value)
    if not isinstance(items, list):
        return items
    return [{"name": item, "place": "", "amount": ""} if isinstance(item, str) else item for item in items]


M = TypeVar("M", bound=BaseModel)
Text = Annotated[str, BeforeValidator(_text), StringConstraints(max_length=_LONGEST)]
Phrase = Annotated[str, BeforeValidator(_text), StringConstraints(max_length=_LONGEST_PHRASE)]


class _Part(BaseModel):
    # Models add keys of their own, which do no harm; a server that keeps to the schema is told to add none.
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_extra={"additionalProperties": False})


class Cup(_Part):
    """The optic cup."""

    ratio: Annotated[float | None, BeforeValidator(_ratio)] = Field(
        ge=0, le=1, description="vertical cup-to-disc ratio, or null"
    )
    description: Text = Field(description="its size in words")


class Lesion(_Part):
    """One kind of lesion."""

    name: Phrase = Field(description="in the plural where there may be several, e.g. hard exudates", min_length=1)
    place: Phrase = Field(description="with its preposition, e.g. in the temporal macula")
    amount: Phrase = Field(description="e.g. a single, a few, several, numerous")


class Answer(_Part):
    """What a model says of one eye; "" and empty lists are not known, and are not said."""

    quality: Annotated[Literal["good", "adequate", "limited", "unknown"], BeforeValidator(_word)]
    laterality: Annotated[Literal["left", "right", "unknown"], BeforeValidator(_word)]
    disc: Text = Field(description="a sentence on the optic disc")
    cup: Cup
    vessels: Text = Field(description="a sentence on the retinal vessels")
    macula: Text = Field(description="a sentence on the macula")
    nerve_fibre_layer: Text = Field(description="a sentence on the retinal nerve fibre layer")
    lesions: Annotated[list[Lesion], BeforeValidator(_lesions_named), Field(max_length=30)]
    diagnosis: Annotated[list[Phrase], BeforeValidator(_phrases), Field(max_length=10)]


@cache
def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """JSON schema of what is to be answered, without the titles, which say nothing new and cost tokens."""

    def bare(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: bare(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
        return [bare(item) for item in node] if isinstance(node, list) else node

    schema: dict[str, Any] = bare(kind.model_json_schema())
    return schema


def answer_schema() -> dict[str, Any]:
    """JSON schema of :class:`Answer`."""
    return schema_of(Answer)


def read_answer(text: str) -> Answer:
    """:func:`read_object` of an :class:`Answer`."""
    return read_object(text, Answer)


def read_object(text: str, kind: type[M]) -> M:
    """The answer in what a model wrote, be it among chatter or in a code fence, and with small damage.

    Repaired are single and typographic quotes, bare keys, trailing commas, comments, line breaks within strings: what
    YAML, of which JSON is a part, allows, and a little more; a missing last bracket is closed. An answer that was cut
    within its fields is not.

    Raises:
        DataError: there is no JSON object in it, or it does not keep to the schema; the message tells the model.
    """
    problem = ""
    for candidate in _candidates(_THINKING.sub("", text)):
        try:
            found = _parsed(candidate)
            if isinstance(found, dict):
                return kind.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise DataError(f"{'.'.join(map(str, first['loc'])) or 'the object'}: {first['msg']}") from None
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            problem = problem or f"the JSON is damaged ({str(error).splitlines()[0]})"
    for start in islice(re.finditer(r"\{", text), _MOST_STARTS):
        # What keeps to the schema is the answer, wherever it begins; of what does not, nothing is to be said.
        with suppress(ValueError, RecursionError):
            return kind.model_validate(json.JSONDecoder(strict=False).raw_decode(text, start.start())[0])
    raise DataError(problem or "it holds no JSON object")


def _candidates(text: str) -> Iterator[str]:
    """Where the object may stand, the likeliest place first."""
    yield from (match.group(1) for match in _FENCE.finditer(text) if "{" in match.group(1))
    start, end = text.find("{"), text.rfind("}")
    if start >= 0:
        # The last brace may belong to chatter after the object, or be that of an inner object where the end is missing.
        if end > start:
            yield text[start : end + 1]
        yield text[start:].rstrip().removesuffix("```") + "}"


def _parsed(candidate: str) -> Any:
    candidate = candidate[candidate.index("{") :]
    try:
        # Reads one object and leaves what follows; line breaks within strings are let pass.
        return json.JSONDecoder(strict=False).raw_decode(candidate)[0]
    except ValueError:
        # A loop of brackets takes the reader of YAML seconds.
        if candidate.count("{") + candidate.count("[") > _MOST_BRACKETS:
            raise
        if '"' not in candidate:
            candidate = candidate.translate(_QUOTES)
        # YAML takes no tab for a space.
        return yaml.safe_load(_COMMENT.sub(r"\1", candidate).replace("\t", " "))


def write_prose(
    answer: Answer, *, identity: str, granularity: Granularity, wording: int, seed: int, budget: TokenBudget
) -> Caption:
    """The caption that an answer gives: coarse, one sentence; fine, prose in the order of the paper.

    Sentences are the model's own, chosen whole by their importance as far as the budget goes; none is ever cut.

    Args:
        answer: of a model.
        identity: of the image; with ``seed``, ``granularity`` and ``wording`` it picks how the caption opens.
        budget: of the text encoder.

    Raises:
        UsageError: the budget is too small to name the eye.
    """
    told = [phrase.rstrip(" .") for phrase in answer.diagnosis]
    if granularity == "coarse":
        told = list(dict.fromkeys([*told, *(_named(lesion, place=False) for lesion in answer.lesions)]))
    plan = [_opening(answer, told, budget, identity, granularity, wording, seed)]
    if granularity == "fine":
        plan += [Sentence(topic, forms, importance) for topic, forms, importance in _body(answer) if forms]
    return fit([plan], budget)[0]


def _opening(
    answer: Answer,
    told: list[str],
    budget: TokenBudget,
    identity: str,
    granularity: Granularity,
    wording: int,
    seed: int,
) -> Sentence:
    """Names the eye and what is told of it: at least the first two phrases, or as many as the budget has room for."""
    eye = Description(eye=None if answer.laterality == "unknown" else answer.laterality)
    room = budget.budget - budget.special_tokens
    for least in (2, 1, 0):
        counts = [n for n in (4, 3, 2, 1, 0) if least <= n <= len(told)]
        seen = [(_series(told[:n]),) * 2 for n in counts]
        first = opening(eye, seen, identity=identity, granularity=granularity, wording=wording, seed=seed)
        lengths = budget.lengths(first.forms)
        forms = tuple(form for form in first.forms if lengths[form] <= room)
        if forms:
            break
    # Where not even the eye's name has room, the budget is refused by `fit`.
    return Sentence(first.topic, forms or first.forms, OPENING)


def _body(answer: Answer) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """(topic, forms, importance) in reading order; the importance is that of the template's sentence on the topic."""
    if answer.quality != "unknown":
        forms = (f"The picture is of {answer.quality} quality.", f"{answer.quality.capitalize()} image quality.")
        yield "quality", forms, 30 if answer.quality == "good" else 60
    yield "disc", _forms(answer.disc), 78
    ratio = "" if answer.cup.ratio is None else f"The vertical cup-to-disc ratio is about {answer.cup.ratio:.1f}."
    # A description with the ratio in it needs no second sentence to say it.
    words = _forms(answer.cup.description)
    if ratio and not re.search(r"\d", answer.cup.description):
        words = tuple(dict.fromkeys([*(f"{form} {ratio}" for form in words), ratio]))
    yield "cup", words, 89
    yield "vessels", _forms(answer.vessels), 70
    yield "macula", _forms(answer.macula), 85
    yield "nerve fibre layer", _forms(answer.nerve_fibre_layer), 72
    yield "lesions", _lesions(answer), 90
    if answer.diagnosis:
        conclusion = _series([phrase.rstrip(" .") for phrase in answer.diagnosis[:3]])
        yield "conclusion", (f"Overall, the picture shows {conclusion}.",), 10


def _forms(text: str) -> tuple[str, ...]:
    """All of its sentences, or fewer of them, the last ones left out first."""
    whole = [_sentence(part) for part in sentences(text)]
    return tuple(" ".join(whole[:n]) for n in range(len(whole), 0, -1))


def _lesions(answer: Answer) -> tuple[str, ...]:
    placed, named = ([_named(lesion, place=place) for lesion in answer.lesions] for place in (True, False))
    counts = range(len(answer.lesions), 0, -1)
    forms = [f"The retina shows {_series(placed)}." for _ in placed[:1]]
    forms += [f"The retina shows {_series(named[:n])}." for n in counts]
    return tuple(dict.fromkeys(forms))


def _named(lesion: Lesion, *, place: bool) -> str:
    name = lesion.name.rstrip(" .")
    amount = lesion.amount.rstrip(" .").lower()
    # Models repeat the amount in the name: "a few a few haemorrhages" helps no one.
    known = f"{amount} {name}" if amount and not name.lower().startswith(amount) else name
    where = lesion.place.rstrip(" .") if place else ""
    if not where or where.lower() in known.lower():
        return known
    return f"{known} {where}" if " " in where else f"{known} ({where})"


def _sentence(text: str) -> str:
    """With a capital and an end."""
    whole = text[0].upper() + text[1:]
    return whole if whole[-1] in ".!?" else f"{whole}."


def _series(phrases: Sequence[str]) -> str:
    """The phrases in one, what is ruled out last, so that its "no" reaches over nothing else."""
    ordered = sorted(phrases, key=lambda phrase: phrase.lower().startswith(("no ", "without ")))
    if any(" and " in phrase or "," in phrase for phrase in ordered):
        return "; ".join(ordered)
    return " and ".join([", ".join(ordered[:-1]), ordered[-1]] if len(ordered) > 1 else ordered)
