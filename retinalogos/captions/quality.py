"""A report on captions: how they read, and how far they and their records agree, both ways.

    python -m retinalogos.captions.quality --captions data/captions --cohort data/cohort --expert FILE

It looks at a sample by lot: of the others nothing is held in memory but eight bytes each.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retinalogos.captions.description import Description, describe
from retinalogos.captions.engine import TemplateEngine
from retinalogos.captions.reading import Mention, Statements, read_statements
from retinalogos.captions.rules import CUP_TOLERANCE
from retinalogos.captions.style import (
    DISTINCT_WORDS,
    KINDS,
    SELF_BLEU_TEXTS,
    Experts,
    Style,
    content_of,
    read_experts,
    words_of,
)
from retinalogos.captions.table import read_captions_meta
from retinalogos.captions.template import GRANULARITIES
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError

# Image ids read at a time where records are looked for: about 2 MB.
_IDS_AT_ONCE = 2**16
# More exact findings that say a general one.
_MORE_EXACT = {"amd": ("dry_amd", "wet_amd")}
_RETINOPATHY = ("diabetic_retinopathy", "suspected_diabetic_retinopathy")

_WORDS_SHOWN = 40  # of each list

Row = Mapping[str, Any]


@dataclass
class Tally:
    """Agreement on one attribute, counted in captions (of findings: in findings and mentions).

    Attributes:
        known: records that know it.
        told: those of them whose caption says the same.
        stated: captions that state it.
        supported: those of them whose record supports it.
    """

    known: int = 0
    told: int = 0
    stated: int = 0
    supported: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def told_share(self) -> float:
        """Of what records know; nan where they know nothing."""
        return self.told / self.known if self.known else math.nan

    @property
    def supported_share(self) -> float:
        """Of what captions state; nan where they state nothing."""
        return self.supported / self.stated if self.stated else math.nan


@dataclass
class Agreement:
    """How far captions and records agree.

    Attributes:
        attributes: by name: eye, side of the disc, grade, glaucoma, cup-to-disc ratio.
        findings: of the records, and mentions of them; a finding that is ruled out is none.
        ruled_out: mentions of findings as absent.
        ruled_out_wrongly: those of them that the record has.
        by_finding: code → its records and those of them whose caption tells it.
        words_of_finding: code → roots of the content words of the captions that tell it.
    """

    attributes: dict[str, Tally]
    findings: Tally = field(default_factory=Tally)
    ruled_out: int = 0
    ruled_out_wrongly: int = 0
    by_finding: dict[str, Tally] = field(default_factory=dict)
    words_of_finding: dict[str, set[str]] = field(default_factory=dict)

    @property
    def all(self) -> Tally:
        """Attributes and findings together."""
        return sum(self.attributes.values(), self.findings)


def _same(known: Any, stated: Any) -> bool:
    return bool(known == stated)


def _near(known: float, stated: float) -> bool:
    return abs(known - stated) <= CUP_TOLERANCE


# Name → what the record knows (None: nothing), what the caption states, and when the two are the same.
_ATTRIBUTES: Mapping[
    str, tuple[Callable[[Description], Any], Callable[[Statements], frozenset[Any]], Callable[[Any, Any], bool]]
] = {
    "eye": (lambda eye: eye.eye, lambda said: said.eyes, _same),
    "side of the disc": (lambda eye: eye.disc_side, lambda said: said.disc_sides, _same),
    "grade": (lambda eye: eye.grade, lambda said: said.grades, _same),
    "glaucoma": (lambda eye: eye.glaucoma, lambda said: said.glaucoma, _same),
    "cup-to-disc ratio": (lambda eye: eye.vcdr, lambda said: said.cup_ratios, _near),
}


def agreement(texts: Sequence[str], records: Sequence[Row]) -> Agreement:
    """Holds each caption against its record.

    Args:
        texts: captions.
        records: the cohort row of each, or the columns of it that are known.

    Raises:
        DataError: a record holds a value outside the vocabulary.
    """
    found = Agreement({name: Tally() for name in _ATTRIBUTES})
    for text, record in zip(texts, records, strict=True):
        eye, said = describe(record), read_statements(text)
        for name, (knows, states, same) in _ATTRIBUTES.items():
            known, stated, tally = knows(eye), states(said), found.attributes[name]
            right = known is not None and any(same(known, value) for value in stated)
            tally.known += known is not None
            tally.told += right
            tally.stated += bool(stated)
            tally.supported += right and all(same(known, value) for value in stated)
        _findings(found, text, eye, said)
    return found


def _findings(found: Agreement, text: str, eye: Description, said: Statements) -> None:
    recorded, supported = _recorded(eye), eye.supports()
    for code in sorted(recorded):
        told = _tells(said, code)
        tally = Tally(known=1, told=int(told))
        found.findings += tally
        found.by_finding[code] = found.by_finding.get(code, Tally()) + tally
        if told:
            found.words_of_finding.setdefault(code, set()).update(content_of([words_of(text)]))
    found.findings += Tally(
        stated=len(said.present), supported=sum(bool(supported.intersection(codes)) for codes in said.present)
    )
    found.ruled_out += len(said.absent)
    found.ruled_out_wrongly += sum(_denies(codes, recorded) for codes in said.absent)


def _recorded(eye: Description) -> set[str]:
    """The findings of a record, less those that its grade or a more exact one says."""
    codes = set(eye.findings or ())
    if eye.dme:
        codes.add("macular_oedema")
    if eye.grade:
        codes -= set(_RETINOPATHY)
    return {code for code in codes if not codes.intersection(_MORE_EXACT.get(code, ()))}


def _tells(said: Statements, code: str) -> bool:
    if code in _RETINOPATHY:
        return said.unstaged_retinopathy
    return any(code in codes for codes in said.present)


def _denies(codes: Mention, recorded: set[str]) -> bool:
    return bool(recorded.intersection(codes) or (codes == ("*",) and recorded))


@dataclass(frozen=True)
class Report:
    """What is known of a set of captions.

    Attributes:
        captions: in the set.
        engines: that wrote them, as in captions.json.
        sample: captions looked at.
        styles: granularity → how its captions read.
        agreements: granularity → agreement with the records; empty without a cohort.
        experts: texts to hold the captions against; None: not given.
    """

    captions: int
    engines: Sequence[Mapping[str, str]]
    sample: int
    styles: Mapping[str, Style]
    agreements: Mapping[str, Agreement]
    experts: Experts | None

    def metrics(self) -> dict[str, float]:
        """A few figures of each granularity, as the step tells them; those that are not defined are nan."""
        found: dict[str, float] = {"quality_sample": self.sample}
        for name, style in self.styles.items():
            found[f"distinct_2_{name}"] = style.distinct(2)
            found[f"self_bleu_{name}"] = style.self_bleu
        for name, agreed in self.agreements.items():
            found[f"findings_told_{name}"] = agreed.findings.told_share
            found[f"record_told_{name}"] = agreed.all.told_share
            found[f"caption_supported_{name}"] = agreed.all.supported_share
        return found

    @cached_property
    def columns(self) -> dict[str, Style]:
        """Heading → how those texts read; the experts last."""
        return {**self.styles, **({"experts": self.experts.style} if self.experts else {})}

    def table(self) -> list[tuple[str, list[str]]]:
        """Measures, each with a value for every column: how texts read, and what captions share with experts."""
        styles = self.columns.values()
        rows: list[tuple[str, Callable[[Style], str]]] = [
            ("texts looked at", lambda one: str(len(one.texts))),
            ("words: mean", lambda one: shown(one.mean_length, 1)),
            (
                "words: 10th, 50th, 90th percentile",
                lambda one: ", ".join(str(one.length(share)) for share in (0.1, 0.5, 0.9)),
            ),
            ("sentences: mean", lambda one: shown(one.mean_sentences, 1)),
            ("vocabulary: distinct words", lambda one: str(one.vocabulary)),
            *(
                (f"distinct-{order} in {DISTINCT_WORDS} words", lambda one, order=order: shown(one.distinct(order)))
                for order in (1, 2, 3)
            ),
            (f"self-BLEU of {SELF_BLEU_TEXTS} texts", lambda one: shown(one.self_bleu)),
            *((f"in 100 words: of {kind}", lambda one, kind=kind: shown(one.per_hundred(kind), 1)) for kind in KINDS),
            ("pairs of topics in the paper's order", lambda one: _of_pairs(*one.order)),
        ]
        if self.experts is not None:
            theirs = self.experts.style.content
            rows += [
                ("experts' content words that occur", lambda one: percent(_share(theirs.keys(), one.content.keys()))),
                (
                    "running content words that experts use",
                    lambda one: percent(_weighted(one.content, theirs)),
                ),
            ]
        return [(name, [value(style) for style in styles]) for name, value in rows]

    def tallies(self) -> dict[str, list[Tally]]:
        """Name of an attribute, "findings" and "all" → its tally for each granularity of ``agreements``."""
        agreed = list(self.agreements.values())
        return {
            **{name: [one.attributes[name] for one in agreed] for name in _ATTRIBUTES},
            "findings": [one.findings for one in agreed],
            "all": [one.all for one in agreed],
        }

    def words_of_experts_alone(self, most: int) -> list[str]:
        """Roots of content words that experts use and no caption of the sample does, the most frequent first."""
        theirs = self.experts.style.content if self.experts else Counter[str]()
        return _frequent(theirs, self._content, most)

    def words_of_captions_alone(self, most: int, least: int = 1) -> list[str]:
        """Roots of content words that captions use, ``least`` times or more, and no expert does."""
        often = Counter({word: count for word, count in self._content.items() if count >= least})
        return _frequent(often, self.experts.style.content if self.experts else Counter[str](), most)

    @cached_property
    def _content(self) -> Counter[str]:
        return sum((style.content for style in self.styles.values()), Counter[str]())

    def descriptions(self) -> list[tuple[str, str, list[str], list[str]]]:
        """Findings that experts describe and the sample tells: code, their texts, their words found, and not found.

        Found is a word that stands in any caption which tells the finding.
        """
        rows = []
        for code, texts in sorted(self.experts.by_code.items() if self.experts else ()):
            used: set[str] = set()
            for agreed in self.agreements.values():
                used |= agreed.words_of_finding.get(code, set())
            if used:
                theirs = content_of([words_of(text) for text in texts])
                words = sorted(theirs, key=lambda word: (-theirs[word], word))
                rows.append(
                    (code, "; ".join(texts), [w for w in words if w in used], [w for w in words if w not in used])
                )
        return rows


def shown(value: float, places: int = 2) -> str:
    """A number for a reader; a dash where it is not defined."""
    return "–" if math.isnan(value) else f"{value:.{places}f}"


def percent(share: float) -> str:
    """A share for a reader; a dash where it is not defined."""
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def _of_pairs(kept: int, total: int) -> str:
    return f"{percent(kept / total)} of {total}" if total else "–"


def _share(words: Any, among: Any) -> float:
    return len(words & among) / len(words) if words else math.nan


def _weighted(words: Counter[str], among: Counter[str]) -> float:
    return sum(count for word, count in words.items() if word in among) / words.total() if words else math.nan


def _frequent(words: Counter[str], without: Counter[str], most: int) -> list[str]:
    left = [word for word in words if word not in without]
    return sorted(left, key=lambda word: (-words[word], word))[:most]


def report(captions: Path, cohort: Cohort | None, sample: int, seed: int, experts: Experts | None = None) -> Report:
    """Looks at a sample of captions.

    Args:
        captions: a captions folder.
        cohort: of its records; None: agreement with the records is left out.
        sample: captions, drawn by lot without repetition; all where there are fewer.
        seed: of the lot.
        experts: texts to hold the captions against.

    Raises:
        UsageError: the folder is no finished captions folder.
        DataError: a caption has no record in the cohort, or its record holds a value outside the vocabulary.
    """
    meta = read_captions_meta(captions)
    rows = draw_captions(captions, sample, seed)
    records = {} if cohort is None else find_records(cohort, {row["image_id"] for row in rows})
    styles: dict[str, Style] = {}
    agreements: dict[str, Agreement] = {}
    for granularity in GRANULARITIES:
        chosen = [row for row in rows if row["granularity"] == granularity]
        if chosen:
            texts = [row["text"] for row in chosen]
            styles[granularity] = Style(texts)
            if cohort is not None:
                agreements[granularity] = agreement(texts, [records[row["image_id"]] for row in chosen])
    return Report(meta["captions"], meta["engines"], len(rows), styles, agreements, experts)


def draw_captions(folder: Path, size: int, seed: int, granularity: str | None = None) -> list[dict[str, Any]]:
    """Captions by lot, in the order drawn: image_id, granularity, wording, text. A row group is in memory at a time.

    Args:
        folder: captions folder.
        size: captions drawn, without repetition; all where there are fewer.
        seed: of the lot.
        granularity: of the captions; None: of all.

    Raises:
        UsageError: the folder is no finished captions folder.
    """
    read_captions_meta(folder)
    file = pq.ParquetFile(Path(folder) / "captions.parquet")
    numbers = np.arange(file.metadata.num_rows)
    if granularity is not None:
        numbers = np.flatnonzero(pc.equal(file.read(["granularity"])["granularity"], granularity))
    numbers = np.random.default_rng(seed).choice(numbers, min(size, len(numbers)), replace=False)
    found: dict[int, dict[str, Any]] = {}
    start, wanted = 0, np.sort(numbers)
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, end)]
        if len(here):
            table = file.read_row_group(group, columns=["image_id", "granularity", "wording", "text"])
            found.update(zip(here.tolist(), table.take(here - start).to_pylist(), strict=True))
        start = end
    return [found[number] for number in numbers.tolist()]


def find_records(
    cohort: Cohort, image_ids: set[str], columns: Sequence[str] = TemplateEngine.columns
) -> dict[str, dict[str, Any]]:
    """Rows of images by image_id; of all others only the image_id is read.

    Raises:
        DataError: an image is not in the cohort.
    """
    wanted = pa.array(sorted(image_ids), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for shard in cohort.shards if image_ids else ():
        file = pq.ParquetFile(shard)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        rows: list[int] = []
        start = 0
        for batch in file.iter_batches(_IDS_AT_ONCE, columns=["image_id"]):
            rows.extend((np.flatnonzero(pc.is_in(batch["image_id"], value_set=wanted)) + start).tolist())
            start += batch.num_rows
        for group in np.unique(np.searchsorted(np.cumsum(sizes), rows, side="right")).tolist():
            table = file.read_row_group(group, columns=list(columns))
            for row in table.filter(pc.is_in(table["image_id"], value_set=wanted)).to_pylist():
                found[row["image_id"]] = row
    missing = sorted(image_ids - found.keys())
    if missing:
        raise DataError(
            f"{cohort.folder} has no image {missing[0]}, which is captioned: name the cohort that the captions are of"
        )
    return found


def lines(found: Report) -> list[str]:
    """The report as Markdown tables."""
    columns = list(found.columns)
    told = [f"{found.sample} of {found.captions} captions", ""]
    told += _markdown(["", *columns], [[name, *values] for name, values in found.table()])
    if found.agreements:
        heads = [f"{name}: {way}" for name in found.agreements for way in ("record told", "caption supported")]
        rows = [
            [
                name,
                *(percent(share) for tally in tallies for share in (tally.told_share, tally.supported_share)),
            ]
            for name, tallies in found.tallies().items()
        ]
        told += ["", *_markdown(["", *heads], rows)]
    if found.experts is not None:
        told += ["", f"words of experts alone: {', '.join(found.words_of_experts_alone(_WORDS_SHOWN))}"]
        told += ["", f"words of captions alone: {', '.join(found.words_of_captions_alone(_WORDS_SHOWN))}"]
        described = [
            [code, texts, ", ".join(used), ", ".join(left)] for code, texts, used, left in found.descriptions()
        ]
        told += ["", *_markdown(["finding", "experts", "their words in captions of it", "not in them"], described)]
    return told


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report; 0 done, 1 the data is unfit, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="python -m retinalogos.captions.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=Path, required=True, help="captions folder")
    parser.add_argument("--cohort", type=Path, help="of their records; without it agreement is left out")
    parser.add_argument("--expert", type=Path, help='JSON of expert texts, {"definitions": {finding: [text, …]}}')
    parser.add_argument("--sample", type=int, default=2000, help="captions looked at, by lot (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the lot (default 0)")
    options = parser.parse_args(arguments)
    if options.sample < 1:
        parser.error(f"--sample {options.sample}: at least one caption is looked at")
    try:
        experts = read_experts(options.expert) if options.expert else None
        cohort = Cohort(options.cohort) if options.cohort else None
        print("\n".join(lines(report(options.captions, cohort, options.sample, options.seed, experts))))
    except (UsageError, DataError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
