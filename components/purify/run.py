"""Stage 2: three filters, each with its own score, and a page on what each of them drops."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.purify import page
from components.purify.agreement import JUDGES, Rows
from components.purify.filters import AGREEMENT, IMAGE, TEXT, Filter
from components.purify.step import PurifyParams
from components.step import Metrics, Paths
from retinalogos.captions.rules import check_all
from retinalogos.captions.table import CaptionWriter, read_captions, read_captions_meta
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.schema import TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort
from retinalogos.progress import track

# Captions whose tokens are counted, and which are read back, together.
_AT_ONCE = 512

SCORES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("granularity", pa.string(), nullable=False),
        pa.field("wording", pa.int16(), nullable=False),
        ("broken_rules", pa.int32()),  # text: 0 passes; null where the filter is off
        ("agreement", pa.float32()),  # of captions of training images; null for others, and where the filter is off
        ("quality", pa.float32()),  # of the picture, 0-1; null where not known, and where the filter is off
        ("copy_of", pa.string()),  # image_id of the first of its group of near duplicates; null for none
        ("dropped_by", pa.string()),  # text, agreement or image, the first that drops it; null: it stays
    ]
)


def run(params: PurifyParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    rows = read_captions(inputs["captions"]).to_pylist()
    meta = read_captions_meta(inputs["captions"])
    cohort = Cohort(inputs["cohort"])
    records = {row["image_id"]: row for row in cohort.table(TABLE_COLUMNS).to_pylist()}
    filters = [
        _text(params, rows, records, TokenBudget(meta["text_encoder"], meta["token_budget"])),
        _image(params, rows, records),
        _agreement(params, rows, inputs),
    ]
    dropped: dict[int, tuple[str, str]] = {}
    by: dict[int, str] = {}
    for one in filters:
        for number, reason in one.drops.items():
            if number not in dropped:
                dropped[number], by[number] = reason, one.name
    of_model = bool(rows) and "model" in rows[0]
    with CaptionWriter(outputs["curated"], meta["token_budget"], meta["text_encoder"], of_model) as writer:
        for number, row in enumerate(rows):
            if number in dropped:
                writer.drop(row["image_id"], row["granularity"], row["wording"], *dropped[number])
            else:
                writer.add(row)
    columns = {name: value for one in filters for name, value in one.columns.items()}
    table = [
        {name: row[name] for name in ("image_id", "granularity", "wording")}
        | {name: values.get(number) for name, values in columns.items()}
        | {"dropped_by": by.get(number)}
        for number, row in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table, schema=SCORES), outputs["curated"] / "scores.parquet")
    outputs["page"].mkdir(parents=True)
    html = page.render(cohort, rows, records, filters, by, params.examples)
    (outputs["page"] / "index.html").write_text(html, encoding="utf-8")
    reasons = [rule for rule, _ in dropped.values()]
    values = np.array(list(columns["agreement"].values())) if columns["agreement"] else np.zeros(1)
    return {
        "captions": len(rows),
        "kept": len(rows) - len(dropped),
        "dropped": len(dropped),
        "agreement_median": float(np.median(values)),
        "agreement_positive_share": float((values > 0).mean()),
        **{f"found_by_{one.name}": len(one.drops) for one in filters},
        **{f"dropped_{rule}": reasons.count(rule) for rule in sorted(set(reasons))},
    }


def _text(params: PurifyParams, rows: Rows, records: dict[str, dict[str, Any]], budget: TokenBudget) -> Filter:
    """The rules that each caption breaks."""
    broken: dict[int, int] = {}
    drops: dict[int, tuple[str, str]] = {}
    starts = range(0, len(rows) if params.text else 0, _AT_ONCE)
    for start in track(starts, "purify: rules", unit="batch"):
        part = rows[start : start + _AT_ONCE]
        checked = check_all([row["text"] for row in part], [records[row["image_id"]] for row in part], budget)
        for number, violations in enumerate(checked, start):
            broken[number] = len(violations)
            if violations:
                drops[number] = (violations[0].rule, violations[0].detail)
    return dataclasses.replace(
        TEXT, on=params.text, limit="no broken rule", columns={"broken_rules": broken}, drops=drops
    )


def _agreement(params: PurifyParams, rows: Rows, inputs: Paths) -> Filter:
    """How well each caption of a training image agrees with it; the least agreeing share is dropped."""
    on = params.agreement != "none"
    scores = JUDGES[params.agreement](params, rows, inputs) if on else {}
    least = float(np.quantile(list(scores.values()), params.agreement_quantile)) if scores else float("-inf")
    return dataclasses.replace(
        AGREEMENT,
        on=on,
        judge=params.agreement,
        limit=f"at least {least:.4f}, the quantile {params.agreement_quantile:g} of this cohort" if scores else "",
        columns={"agreement": scores},
        drops={
            number: ("agreement", f"{score:.4f} < {least:.4f}") for number, score in scores.items() if score < least
        },
    )


def _image(params: PurifyParams, rows: Rows, records: dict[str, dict[str, Any]]) -> Filter:
    """Captions of poor pictures, and of pictures that are near duplicates of an earlier one."""
    quality: dict[int, float] = {}
    copies: dict[int, str] = {}
    drops: dict[int, tuple[str, str]] = {}
    for number, row in enumerate(rows if params.image else ()):
        record = records[row["image_id"]]
        if record["quality"] is not None:
            quality[number] = record["quality"]
            if record["quality"] < params.min_quality:
                drops[number] = ("quality", f"{record['quality']:.3f} < {params.min_quality:g}")
        if record["duplicate_group"] not in (None, row["image_id"]):
            copies[number] = record["duplicate_group"]
            drops.setdefault(number, ("duplicate", "near duplicate of an earlier picture"))
    return dataclasses.replace(
        IMAGE,
        on=params.image,
        limit=f"at least {params.min_quality:g}, and no copy of another picture",
        columns={"quality": quality, "copy_of": copies},
        drops=drops,
    )
