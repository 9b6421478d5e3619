"""How a set of texts reads: length, variety, kinds of words, order of topics; and texts of experts beside it."""

import itertools
import json
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from retinalogos.captions.reading import Mention, read_statements, sentences
from retinalogos.captions.statistics import WORD
from retinalogos.errors import UsageError

# Distinct-n falls with the number of words and self-BLEU rises with the number of texts, so both are taken over as much
# of every set: the expert texts published with FLAIR are 163, with 623 words.
DISTINCT_WORDS = 500
SELF_BLEU_TEXTS = 100
_ORDERS = 4  # of BLEU: Papineni et al., ACL 2002


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that carry no content of their own.
_FUNCTION_WORDS = _words(
    "a also an and are as at be been being but by can does for from has have in into is it its may no nor not of on or "
    "other out over that the their there these this to under up was were which than one with within without"
)

# What a word of a description tells.
KINDS: Mapping[str, frozenset[str]] = {
    "amount": _words("few many multiple numerous only several single some extensive diffuse patchy scattered"),
    "size": _words(
        "small large medium-sized medium tiny wide narrow narrowing enlarged size caliber calibre diameter radius"
    ),
    "colour": _words(
        "red orange yellow yellowish white whitish yellow-white yellowish-white grey gray greyish grayish pale dark "
        "darkly bright black brown burgundy pink pigment pigmented discoloration pallor"
    ),
    "shape and edge": _words(
        "round oval linear serpentine dot dots blot flame flame-shaped shaped cloud-like sharp sharply outlined "
        "margin margins edges ill-defined blurred blurrier dense uniform elevated elevation fimbriated "
        "semi-translucent tortuous segmental generalized thickening loops branching"
    ),
    "place": _words(
        "left right near outside centre center centrally central around posterior periphery peripheral superior "
        "inferior nasal temporal quadrant quadrants area region pole toward macula macular fovea disc disk"
    ),
    "caution": _words(
        "appears appear apparent looks suggestive suggests suspected suspicious probable likely possible possibly "
        "features signs keeping consistent evidence evident presence"
    ),
}

# Topics in the order of the paper's captions (docs/captions.md), each by the words that open it.
TOPICS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.I)
    for name, pattern in {
        "kind of picture": r"\b(?:fundus|retinal) (?:photograph|image|picture)|\bno fundus\b",
        "quality": r"\bquality\b|\bblur\b|\bhaz[ey]\b|\bhazy\b|\bglow\b|\bnoisy\b|\bopacit|\bungradable\b",
        "disc": r"\bdis[ck]s?\b|\bnerve head\b|papilloedema|papilledema",
        "vessels": r"\bvessels?\b|\bvascular|\barteri|\bvenul|\bveins?\b|\bvenous\b|\btortuo",
        "macula": r"\bmacula|\bfove",
        "lesions": r"ha?emorrhag|\bexudat|aneurysm|cotton[- ]wool|\bdrusen|\blesions?\b|\bneovascul|\bdeposits?\b"
        r"|\bscars?\b",
        "background": r"\bbackground\b|\btessell|\bchoroidal vessels\b|\bposterior fundus\b",
    }.items()
}


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without numbers; "cotton-wool" is one."""
    return WORD.findall(text.lower())


def root(word: str) -> str:
    """A word without what British and American spelling, and singular and plural, differ by."""
    word = word.replace("haem", "hem").replace("oedem", "edem").replace("greyish", "grayish").replace("grey", "gray")
    word = {"disk": "disc", "centre": "center", "colour": "color", "drusens": "drusen"}.get(word, word)
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def content_of(texts: Sequence[Sequence[str]]) -> Counter[str]:
    """Roots of the words that carry content, with their numbers."""
    return Counter(root(word) for words in texts for word in words if word not in _FUNCTION_WORDS)


def distinct(texts: Sequence[Sequence[str]], order: int, words: int = DISTINCT_WORDS) -> float:
    """Share of distinct ones among all n-grams of the first ``words`` words (Li et al., NAACL 2016, arXiv 1510.03055).

    Args:
        texts: words of each text; no n-gram reaches over the end of one.
        order: n.
        words: looked at; nan where they hold no n-gram.
    """
    seen: set[tuple[str, ...]] = set()
    total, left = 0, words
    for text in texts:
        part = text[:left]
        left -= len(part)
        grams = _grams(part, order)
        total += len(grams)
        seen.update(grams)
        if not left:
            break
    return len(seen) / total if total else math.nan


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """Mean BLEU of each text with all others as its references (Zhu et al., SIGIR 2018, arXiv 1802.01886).

    Args:
        texts: words of each text; those without a word are left out.

    Returns:
        0 (nothing in common) to 1 (all say the same); nan for fewer than two texts.
    """
    texts = [text for text in texts if text]
    return sum(bleu_of_each(texts)) / len(texts) if len(texts) > 1 else math.nan


def bleu_of_each(texts: Sequence[Sequence[str]]) -> list[float]:
    """BLEU of each text against all others.

    Sentence BLEU up to 4-grams, counts of 2-grams and longer ones smoothed by one (Lin and Och, COLING 2004), the
    closest reference deciding on brevity; texts of fewer than four words are compared in the n-grams that they have.

    Args:
        texts: words of each text, one at least; two texts or more.
    """
    counts = [[Counter(_grams(text, order)) for order in range(1, _ORDERS + 1)] for text in texts]
    # Of each n-gram its largest number in a text, that text, and the largest in any other: what a reference may clip.
    largest: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for number, of_text in enumerate(counts):
        for gram, count in itertools.chain.from_iterable(of_order.items() for of_order in of_text):
            first, owner, second = largest.get(gram, (0, -1, 0))
            largest[gram] = (count, number, first) if count > first else (first, owner, max(second, count))
    lengths = sorted(len(text) for text in texts)
    scores = []
    for number, (text, of_text) in enumerate(zip(texts, counts, strict=True)):
        logs = []
        for order in range(1, min(_ORDERS, len(text)) + 1):
            shared = 0
            for gram, count in of_text[order - 1].items():
                first, owner, second = largest[gram]
                shared += min(count, second if owner == number else first)
            extra = order > 1
            share = (shared + extra) / (len(text) - order + 1 + extra)
            logs.append(math.log(share) if share else -math.inf)
        short = min(0.0, 1 - _closest(lengths, len(text)) / len(text))
        scores.append(math.exp(sum(logs) / len(logs) + short))
    return scores


def _grams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def _closest(lengths: list[int], length: int) -> int:
    """Of sorted lengths, without one ``length`` itself, the closest; the shorter of two."""
    place = bisect_left(lengths, length)
    others = lengths[max(0, place - 1) : place] + lengths[place + 1 : place + 2]
    return min(others, key=lambda other: (abs(other - length), other))


@dataclass(frozen=True)
class Style:
    """How texts read.

    Attributes:
        texts: in an order by lot, since some figures are taken over the first of them.
    """

    texts: Sequence[str]

    @cached_property
    def words(self) -> list[list[str]]:
        """Words of each text."""
        return [words_of(text) for text in self.texts]

    @cached_property
    def lengths(self) -> list[int]:
        """Words of each text, sorted by their number."""
        return sorted(len(words) for words in self.words)

    def length(self, share: float) -> int:
        """Words of the text at this share of all, in the order of their length; 0 where there is none."""
        return self.lengths[min(int(share * len(self.lengths)), len(self.lengths) - 1)] if self.lengths else 0

    @cached_property
    def mean_length(self) -> float:
        """Words of a text."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else math.nan

    @cached_property
    def mean_sentences(self) -> float:
        """Sentences of a text."""
        return sum(len(sentences(text)) for text in self.texts) / len(self.texts) if self.texts else math.nan

    @cached_property
    def vocabulary(self) -> int:
        """Distinct words."""
        return len({word for words in self.words for word in words})

    @cached_property
    def content(self) -> Counter[str]:
        """See :func:`content_of`."""
        return content_of(self.words)

    @cached_property
    def self_bleu(self) -> float:
        """See :func:`self_bleu`; of the first SELF_BLEU_TEXTS texts."""
        return self_bleu(self.words[:SELF_BLEU_TEXTS])

    def distinct(self, order: int) -> float:
        """See :func:`distinct`."""
        return distinct(self.words, order)

    def per_hundred(self, kind: str) -> float:
        """Words of a kind (KINDS) in 100 words."""
        told = sum(word in KINDS[kind] for words in self.words for word in words)
        return 100 * told / sum(self.lengths) if any(self.lengths) else math.nan

    @cached_property
    def order(self) -> tuple[int, int]:
        """Pairs of TOPICS that one text tells: those in the paper's order, and all."""
        kept = total = 0
        for text in self.texts:
            places = [found.start() for topic in TOPICS.values() if (found := topic.search(text))]
            pairs = list(itertools.combinations(places, 2))
            kept += sum(first < second for first, second in pairs)
            total += len(pairs)
        return kept, total


_ONE_OF_MANY = re.compile(r"\b(?:non?|grade)\b")


@dataclass(frozen=True)
class Experts:
    """Descriptions by experts.

    Attributes:
        descriptions: finding, as they call it → its texts.
    """

    descriptions: Mapping[str, Sequence[str]]

    @cached_property
    def style(self) -> Style:
        """Of all texts, as they stand."""
        return Style([text for texts in self.descriptions.values() for text in texts])

    @cached_property
    def by_code(self) -> dict[str, list[str]]:
        """Code of a finding → the texts that say more of it than its name.

        Of names that mean one code alone, and none that rules out ("non …") or is one of many grades.
        """
        found: dict[str, list[str]] = {}
        for name, texts in self.descriptions.items():
            if _ONE_OF_MANY.search(name):
                continue
            mentions = read_statements(name).present
            if len(mentions) == 1 and len(codes := next(iter(mentions))) == 1:
                known = content_of([words_of(name)])
                more = [text for text in texts if content_of([words_of(text)]) - known]
                if more:
                    found.setdefault(codes[0], []).extend(more)
        return found

    @cached_property
    def names_read(self) -> int:
        """Names that the reader of captions understands: as a finding, grade or status."""
        return sum(_understood(name) for name in self.descriptions)


def _understood(name: str) -> bool:
    said = read_statements(name)
    mentions: frozenset[Mention] = said.present | said.absent
    return bool(mentions or said.grades or said.glaucoma or said.unstaged_retinopathy)


def read_experts(path: Path | str) -> Experts:
    """Texts of experts in the layout of FLAIR's dictionary as JSON: ``{"definitions": {finding: [text, …]}}``.

    FLAIR (Silva-Rodríguez et al., Medical Image Analysis 2025, arXiv 2308.07898) publishes such texts of 109 findings
    in ``flair/modeling/dictionary.py``; other entries of the file are not read.

    Raises:
        UsageError: the file is not there, or not of that layout.
    """
    try:
        definitions = json.loads(Path(path).read_text(encoding="utf-8"))["definitions"]
        texts = {str(name): [str(text) for text in texts if text.strip()] for name, texts in definitions.items()}
        if any(isinstance(given, str) for given in definitions.values()):
            raise TypeError("a finding has a text where a list of texts is wanted")
    except OSError as error:
        raise UsageError(f"expert texts {path}: {error.strerror}; name a JSON file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f'expert texts {path}: not of the layout {{"definitions": {{finding: [text, …]}}}} '
            f"({type(error).__name__}: {error})"
        ) from None
    if not any(texts.values()):
        raise UsageError(f"expert texts {path}: definitions hold no text")
    return Experts(texts)
