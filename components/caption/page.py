"""The page of ``caption``: how the captions read, how far they and their records agree, and what a model was asked."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinalogos.captions.quality import Report, Tally, percent
from retinalogos.captions.style import Style
from retinalogos.cohort.findings import FINDINGS
from retinalogos.pages import environment
from retinalogos.provenance import software

_BINS = 30  # of a histogram: as many as one tells apart at its width
_WORDS = 40  # of each list of words: what one reads at a glance
# A word that occurs less often is not listed: no name of a person comes onto the page by a list of words.
_LEAST = 5


def render(found: Report, cohort: str, prompt: Mapping[str, str] | None, expert_texts: Path | None) -> str:
    """The page as HTML, complete in itself; no caption as a whole, no name, no path, no time.

    Args:
        found: of the captions.
        cohort: its name.
        prompt: what a model was asked: part of the prompt → its words, and "identity"; None: no model was asked.
        expert_texts: file of the texts in ``found.experts``; None: not given.
    """
    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            software=software(),
            cohort=cohort,
            found=found,
            columns=list(found.columns),
            measures=found.table(),
            lengths=_histograms(found.columns),
            granularities=list(found.agreements),
            agreement={name: [_shares(tally) for tally in tallies] for name, tallies in found.tallies().items()},
            ruled_out=[(agreed.ruled_out, agreed.ruled_out_wrongly) for agreed in found.agreements.values()],
            findings=_coverage(found),
            prompt=prompt,
            experts=None if expert_texts is None else hashlib.sha256(expert_texts.read_bytes()).hexdigest()[:12],
            theirs=found.words_of_experts_alone(_WORDS),
            ours=found.words_of_captions_alone(_WORDS, _LEAST),
            least=_LEAST,
            descriptions=found.descriptions(),
        )
    )


def _shares(tally: Tally) -> dict[str, str]:
    return {
        "told": percent(tally.told_share),
        "known": f"{tally.told} of {tally.known}",
        "supported": percent(tally.supported_share),
        "stated": f"{tally.supported} of {tally.stated}",
    }


def _coverage(found: Report) -> list[tuple[str, list[str]]]:
    """Findings with how many captions tell them, of how many whose record has them; the most frequent first."""
    agreed = list(found.agreements.values())
    known = {code: sum(one.by_finding[code].known for one in agreed if code in one.by_finding) for code in FINDINGS}
    codes = sorted((code for code, count in known.items() if count), key=lambda code: (-known[code], code))
    none = Tally()
    return [
        (
            FINDINGS[code],
            [f"{tally.told} of {tally.known}" for one in agreed for tally in [one.by_finding.get(code, none)]],
        )
        for code in codes
    ]


def _histograms(columns: Mapping[str, Style]) -> list[dict[str, Any]]:
    """Lengths of each column's texts on one axis: bars of heights 0-1, each for ``width`` words."""
    longest = max([1, *(style.lengths[-1] for style in columns.values() if style.lengths)])
    width = -(-(longest + 1) // _BINS)
    return [
        {"name": name, "bars": _bars(style.lengths, width), "end": _BINS * width} for name, style in columns.items()
    ]


def _bars(lengths: Sequence[int], width: int) -> list[float]:
    counts = [0] * _BINS
    for length in lengths:
        counts[length // width] += 1
    return [round(count / max(1, *counts), 4) for count in counts]
