"""The page of ``purify``: each filter's counts, its scores, and captions with pictures that it kept and dropped."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.purify.filters import Filter
from retinalogos.captions.rules import identifiers
from retinalogos.cohort.schema import ICDR_GRADES
from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.pages import environment, jpeg_uri, spread
from retinalogos.provenance import page_notice, software

Row = Mapping[str, Any]

_BINS = 30  # of the histogram of scores: as many as one tells apart at its width
_SIDE = 128  # pixels of a picture on the page
_HIDDEN = "(not shown: it may identify a person)"


def render(
    cohort: Cohort,
    rows: Sequence[Row],
    records: Mapping[str, Row],
    filters: Sequence[Filter],
    dropped_by: Mapping[int, str],
    examples: int,
) -> str:
    """The page as HTML, complete in itself; no name, no number of a patient or picture, no time.

    Args:
        cohort: of the pictures.
        rows: the captions; their numbers are those of the filters.
        records: cohort row by image_id.
        filters: what each found.
        dropped_by: number of a caption → the filter that dropped it.
        examples: captions shown of each filter that it kept, and that it dropped.
    """
    chosen = {one.name: _examples(one, len(rows), examples) for one in filters}
    wanted = {rows[number]["image_id"] for kinds in chosen.values() for numbers in kinds.values() for number in numbers}
    pictures = _pictures(cohort, wanted)

    def shown(number: int, one: Filter) -> dict[str, Any]:
        row = rows[number]
        score = one.columns.get(one.score, {}).get(number)
        return {
            "picture": pictures[row["image_id"]],
            "record": _described(records[row["image_id"]]),
            "text": _HIDDEN if identifiers(row["text"]) else row["text"],
            "score": "" if score is None else f"{score:.4g}".replace("-", "−"),
            "reason": ": ".join(one.drops[number]) if number in one.drops else "",
        }

    return (
        environment(Path(__file__).parent)
        .get_template("page.html.j2")
        .render(
            notice=page_notice(cohort.meta["sources"]),
            software=software(),
            cohort=cohort.meta["name"],
            size=_SIDE,
            captions=len(rows),
            kept=len(rows) - len(dropped_by),
            filters=[
                {
                    "filter": one,
                    "judged": len(one.columns.get(one.score, {})),
                    "found": len(one.drops),
                    "alone": sum(name == one.name for name in dropped_by.values()),
                    "rules": sorted(
                        Counter(rule for rule, _ in one.drops.values()).items(), key=lambda i: (-i[1], i[0])
                    ),
                    "histogram": _histogram(list(one.columns.get(one.score, {}).values())),
                    "examples": {
                        kind: [shown(number, one) for number in numbers] for kind, numbers in chosen[one.name].items()
                    },
                }
                for one in filters
            ],
        )
    )


def _examples(one: Filter, captions: int, most: int) -> dict[str, list[int]]:
    """Numbers of captions dropped and kept, evenly taken by score; of each rule as many, if it has them."""
    if not one.on:
        return {"dropped": [], "kept": []}
    score = one.columns.get(one.score, {})

    def order(number: int) -> tuple[float, int]:
        return (score.get(number, 0.0), number)

    by_rule: dict[str, list[int]] = {}
    for number in sorted(one.drops, key=order):
        by_rule.setdefault(one.drops[number][0], []).append(number)
    turns = sorted((turn, rule) for rule, numbers in by_rule.items() for turn in range(len(numbers)))
    share = Counter(rule for _, rule in turns[:most])
    dropped = [number for rule in sorted(share) for number in spread(by_rule[rule], share[rule])]
    kept = sorted((number for number in range(captions) if number in score and number not in one.drops), key=order)
    return {"dropped": dropped, "kept": spread(kept, most)}


def _pictures(cohort: Cohort, wanted: set[str]) -> dict[str, str]:
    """Data URIs by image_id, of twice the size on the page."""
    found = {}
    if wanted:
        for row in cohort.rows(("image_id", "image")):
            if row["image_id"] in wanted:
                found[row["image_id"]] = jpeg_uri(decode_image(row["image"]["bytes"]), 2 * _SIDE)
    return found


def _described(record: Row) -> str:
    """What the record knows of the eye, in a line."""
    grade, ratio = record["dr_grade"], record["vcdr"]
    parts = [
        f"{record['eye']} eye" if record["eye"] else None,
        ICDR_GRADES[grade] if grade is not None else None,
        f"glaucoma: {record['glaucoma']}" if record["glaucoma"] else None,
        f"cup-to-disc ratio {ratio:.2f}" if ratio is not None else None,
        ", ".join(code.replace("_", " ") for code in record["findings"] or ()) or None,
    ]
    return "; ".join(part for part in parts if part) or "nothing is recorded"


def _histogram(values: Sequence[float]) -> dict[str, Any] | None:
    """Bars of the scores, heights 0-1, and the ends of the axis; None where there is nothing to see."""
    if len(set(values)) < 2:
        return None
    counts, edges = np.histogram(np.array(values, np.float64), _BINS)
    return {
        "bars": [round(float(count / counts.max()), 4) for count in counts],
        "low": f"{edges[0]:.3g}".replace("-", "−"),
        "high": f"{edges[-1]:.3g}".replace("-", "−"),
    }
