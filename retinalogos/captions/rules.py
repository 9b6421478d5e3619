"""Text purification: what makes a caption unfit to train on, each rule a pure function with its reason.

Used by the step ``purify``, which drops captions that break a rule, and by the validation of captions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retinalogos.captions.description import Description, describe
from retinalogos.captions.reading import ANY, Statements, read_statements, sentences
from retinalogos.captions.tokens import TokenBudget

# The shortest caption that says anything, "Fundus photograph of the left eye.", has six words.
MIN_WORDS = 5
# English reports carry function words that other languages have not; the tersest template wording has 1 in 10 words
# (measured on 600 phantom eyes and 135 made-up records at budgets of 40 to 256 tokens).
MIN_FUNCTION_WORDS = 1 / 16
# A ratio is told to one decimal: half of that, and a little for the float32 of the record.
CUP_TOLERANCE = 0.051


@dataclass(frozen=True)
class Violation:
    """A broken rule.

    Attributes:
        rule: name in RULES.
        detail: what was found, for a reader of ``dropped.csv``.
    """

    rule: str
    detail: str


@dataclass(frozen=True)
class Reading:
    """What every rule gets: the caption, what it states, what its record supports, and its length."""

    text: str
    states: Statements
    eye: Description
    tokens: int | None
    budget: int | None


@dataclass(frozen=True)
class Rule:
    """A rule: its name, why it is one, and the check, which returns what is wrong, or None."""

    name: str
    reason: str
    find: Callable[[Reading], str | None]


def _over_budget(caption: Reading) -> str | None:
    if caption.tokens is None or caption.budget is None or caption.tokens <= caption.budget:
        return None
    return f"{caption.tokens} tokens, the budget is {caption.budget}"


def _laterality(caption: Reading) -> str | None:
    stated, eye, disc = caption.states.eyes, caption.eye.eye, caption.eye.disc_side
    if len(stated) > 1:
        return "names both eyes"
    if eye is not None and stated and stated != {eye}:
        return f"says {_listed(stated)} eye, the record says {eye}"
    sides = caption.states.disc_sides
    if disc in ("left", "right") and sides - {disc, "centre"}:
        return f"puts the disc on the {_listed(sides)}, the record has it on the {disc}"
    if len(sides & {"left", "right"}) > 1:
        return "puts the disc on both sides"
    return None


def _grade(caption: Reading) -> str | None:
    stated, grade = caption.states.grades, caption.eye.grade
    if len(stated) > 1:
        return f"states grades {_listed(stated)}"
    if grade is None:
        if stated:
            return f"states grade {_listed(stated)}, the record has none"
        if caption.states.unstaged_retinopathy and "diabetic_retinopathy" not in caption.eye.supports():
            return "states diabetic retinopathy, the record has none"
        return None
    if stated and stated != {grade}:
        return f"states grade {_listed(stated)}, the record says {grade}"
    if grade == 0 and caption.states.unstaged_retinopathy:
        return "states diabetic retinopathy, the record says grade 0"
    return None


def _glaucoma(caption: Reading) -> str | None:
    stated, glaucoma = caption.states.glaucoma, caption.eye.glaucoma
    if "no" in stated and len(stated) > 1:
        return f"states glaucoma: {_listed(stated)}"
    if glaucoma is None:
        return f"states glaucoma: {_listed(stated)}, the record has none" if stated else None
    if stated and glaucoma not in stated:
        return f"states glaucoma: {_listed(stated)}, the record says {glaucoma}"
    return None


def _cup(caption: Reading) -> str | None:
    ratio, stated = caption.eye.vcdr, caption.states.cup_ratios
    if ratio is None:
        return f"states a cup-to-disc ratio of {_listed(stated)}, the record has none" if stated else None
    wrong = frozenset(value for value in stated if abs(value - ratio) > CUP_TOLERANCE)
    return f"states a cup-to-disc ratio of {_listed(wrong)}, the record says {ratio:.2f}" if wrong else None


def _unsupported(caption: Reading) -> str | None:
    supported = caption.eye.supports()
    wrong = [codes for codes in caption.states.present if not supported.intersection(codes)]
    return f"states {_mentions(wrong)}" if wrong else None


def _denied(caption: Reading) -> str | None:
    found = set(caption.eye.findings or ())
    wrong = [codes for codes in caption.states.absent if found.intersection(codes)]
    if wrong:
        return f"rules out {_mentions(wrong)}, which the record has"
    if ANY in caption.states.absent and (found or caption.eye.grade or caption.eye.glaucoma == "glaucoma"):
        return "rules out every lesion, and the record has some"
    return None


_DEFINITIVE = re.compile(
    r"\b(?:diagnos(?:is is|es? of|ed (?:with|as))|(?:definite(?:ly)?|certain(?:ly)?|undoubted(?:ly)?|unequivocal(?:ly)?"
    r"|clearly has|no doubt|pathognomonic|prove[sn]?|confirm(?:s|ed|ing)?|conclusive(?:ly)?|guarantee[sd]?)|100 ?%"
    r"|(?:the )?patient (?:has|suffers)|suffers? from|must be treated|requires? (?:surgery|treatment))\b",
    re.I,
)


def _definitive(caption: Reading) -> str | None:
    return _quoted(_DEFINITIVE.search(caption.text))


# Not "a", "an", "in", "no", "on": they are words of other languages too.
_FUNCTION_WORD = re.compile(
    r"\b(?:the|of|at|with(?:out)?|and|or|but|not|is|are|be|was|were|to|for|from|by|as|this|that|there|its?|which|shows?"
    r"|showing|seen|appears?|near|about|overall)\b",
    re.I,
)
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_CODE = re.compile(r"</?[a-z][^>]*>|\{\{|\}\}|\\[a-z]+\{|https?://|```|\[/?INST\]|<\||\|>")
_RUN = re.compile(r"(.)\1{4,}|([^\w\s])\s*(?:\2\s*){3,}")


def _not_english(caption: Reading) -> str | None:
    text = caption.text
    letters = [char for char in text if char.isalpha()]
    foreign = sum(not char.isascii() for char in letters)
    if not letters:
        return "holds no words"
    if foreign > 0.02 * len(letters) or "\ufffd" in text:
        return f"{foreign} of {len(letters)} letters are not English"
    found = _CODE.search(text) or _RUN.search(text)
    if found:
        return _quoted(found)
    words = [word.lower() for word in _WORD.findall(text)]
    odd = [word for word in words if len(word) > 4 and not re.search(r"[aeiouy]", word)]
    if len(odd) > 0.1 * len(words):
        return f"{odd[0]!r} is no word"
    if len(words) >= 8 and len(_FUNCTION_WORD.findall(text)) < MIN_FUNCTION_WORDS * len(words):
        return "reads as no English prose"
    return None


# Words that are said three times running; longer ones make a sentence, and sentences are compared.
_LONGEST_LOOP = 6


def _repeated(caption: Reading) -> str | None:
    seen: set[str] = set()
    for sentence in sentences(caption.text):
        key = " ".join(_WORD.findall(sentence.lower()))
        if key and key in seen:
            return f"repeats {sentence!r}"
        seen.add(key)
    words = [word.lower() for word in _WORD.findall(caption.text)]
    for long in range(1, _LONGEST_LOOP + 1):
        for i in range(len(words) - 3 * long + 1):
            if words[i : i + long] == words[i + long : i + 2 * long] == words[i + 2 * long : i + 3 * long]:
                return f"loops on {' '.join(words[i : i + long])!r}"
    return None


def _too_short(caption: Reading) -> str | None:
    words = len(_WORD.findall(caption.text))
    return f"{words} words, at least {MIN_WORDS} are needed" if words < MIN_WORDS else None


_BOILERPLATE = re.compile(
    r"\b(?:as an? (?:AI|artificial|large|language)|language model"
    r"|I(?:'m| am) (?:sorry|unable|not able|an AI|not a doctor)|I (?:cannot|can't|can not|do not have|don't have)"
    r"|unable to (?:assist|provide|help|comply)|consult (?:an?|your|with)|seek (?:medical|professional)|medical advice"
    r"|here is (?:the|an?)|based on the (?:provided|given|image)"
    r"|the (?:provided|given) (?:image|record|metadata|json))\b"
    r"|\b(?:certainly|of course|sure)[!,]|\b(?:caption|user|assistant):",
    re.I,
)


def _boilerplate(caption: Reading) -> str | None:
    return _quoted(_BOILERPLATE.search(caption.text))


_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_IDENTIFIERS = {
    "a date": re.compile(
        rf"\b\d{{1,4}}[./-]\d{{1,2}}[./-]\d{{1,4}}\b|\b\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}\.?,? \d{{2,4}}\b"
        rf"|\b{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{2,4}}\b|\b(?:19|20)\d\d\b",
        re.I,
    ),
    "an address": re.compile(r"[\w.+-]+@[\w-]+\.\w+|\+?\d[\d ()-]{7,}\d"),
    "a number": re.compile(
        r"(?<![\d.])\d{3,}(?![\d.]*\d?\s*(?:px|pixels?|µm|um|microns?|nm)\b)"
        r"|\b(?:MRN|ID|NHS|record|patient|case)\s*(?:no\.?|number|#|:)\s*\w*\d",
        re.I,
    ),
    "a name": re.compile(
        r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.?\s+[A-Z][a-z]+|\b[Pp]atient(?:'s)? (?:name|named|called)\b"
        r"|(?<=[a-z,] )[A-Z][a-z]{2,} [A-Z][a-z]{2,}\b"
    ),
}


def identifiers(text: str) -> list[str]:
    """Kinds of direct identifiers that ``text`` holds: "a date", "an address", "a number", "a name"."""
    return [kind for kind, pattern in _IDENTIFIERS.items() if pattern.search(text)]


def _identifier(caption: Reading) -> str | None:
    # What was found is not repeated: details are written to files that people read.
    kinds = identifiers(caption.text)
    return f"holds {' and '.join(kinds)}" if kinds else None


def _listed(values: frozenset[str] | frozenset[int] | frozenset[float]) -> str:
    return ", ".join(str(value) for value in sorted(values))


def _mentions(mentions: Sequence[tuple[str, ...]]) -> str:
    return ", ".join(sorted(" or ".join(codes) for codes in mentions))


def _quoted(found: re.Match[str] | None) -> str | None:
    return None if found is None else f"says {found.group(0).strip()!r}"


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("over_budget", "the text encoder cuts what is longer, mid-sentence and unseen", _over_budget),
        Rule("laterality", "teaches the generator the wrong eye: left and right are mirror images", _laterality),
        Rule("grade", "teaches the generator the wrong severity", _grade),
        Rule("glaucoma", "teaches the generator the wrong disc", _glaucoma),
        Rule("cup", "teaches the generator the wrong cup", _cup),
        Rule("unsupported_finding", "a finding that no record supports is a hallucination", _unsupported),
        Rule("denied_finding", "rules out what the record has found", _denied),
        Rule("definitive", "a picture suggests and never proves: readers hedge, and so must captions", _definitive),
        Rule("not_english", "the text encoder reads English; garbage and mark-up carry no image content", _not_english),
        Rule("repetition", "repeated sentences are a language model's loop and spend the token budget", _repeated),
        Rule("too_short", "says too little to condition on", _too_short),
        Rule("boilerplate", "a language model's refusal or chatter says nothing about the eye", _boilerplate),
        Rule("identifier", "dates, numbers and names may identify a person and must not be learnt", _identifier),
    )
}


def check(
    text: str, record: Mapping[str, Any], budget: TokenBudget | None = None, tokens: int | None = None
) -> list[Violation]:
    """The rules that a caption breaks, in the order of RULES.

    Args:
        text: the caption.
        record: its cohort row, or the columns of it that are known: what is null is not supported.
        budget: of the text encoder; None leaves the length unchecked.
        tokens: length of ``text`` where it was counted already.

    Raises:
        DataError: the record holds a value outside the vocabulary.
    """
    if budget is not None and tokens is None:
        tokens = budget.count(text)
    reading = Reading(text, read_statements(text), describe(record), tokens, budget.budget if budget else None)
    return [Violation(rule.name, detail) for rule in RULES.values() if (detail := rule.find(reading)) is not None]


def check_all(
    texts: Sequence[str], records: Sequence[Mapping[str, Any]], budget: TokenBudget | None = None
) -> list[list[Violation]]:
    """:func:`check` of many captions, their tokens counted in one call."""
    tokens: Sequence[int | None] = budget.count_all(texts) if budget else [None] * len(texts)
    return [check(text, record, budget, length) for text, record, length in zip(texts, records, tokens, strict=True)]
