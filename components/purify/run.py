"""Stage 2: filters, each with its own score, and a page on what each of them drops."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.purify import page
from components.purify.agreement import JUDGES, Rows
from components.purify.filters import AGREEMENT, IMAGE, JUDGE, TEXT, Filter
from components.purify.judge import judged
from components.purify.step import PurifyParams
from components.step import Metrics, Paths
from retinalogos.captions.rules import check_all
from retinalogos.captions.table import CaptionWriter, of_model, read_captions, read_captions_meta
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.schema import TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.progress import track

# Captions whose tokens are counted, and which are read back, together.
_AT_ONCE = 512

SCORES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("granularity", pa.string(), nullable=False),
        pa.field("wording", pa.int16(), nullable=False),
        ("broken_rules", pa.int32()),  # text: 0 passes; null where the filter is off
        ("contradiction", pa.float32()),  # 0-1, by the language model; null without answer, and where it is off
        ("agreement", pa.float32()),  # of captions of training images; null for others, and where the filter is off
        ("quality", pa.float32()),  # of the picture, 0-1, the least of its measures; null where the filter is off
        ("copy_of", pa.string()),  # image_id of the first of its group of near duplicates; null for none
        ("dropped_by", pa.string()),  # text, judge, image or agreement, the first that drops it; null: it stays
    ]
)


def run(params: PurifyParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    _require(params, inputs)
    rows = read_captions(inputs["captions"]).to_pylist()
    meta = read_captions_meta(inputs["captions"])
    cohort = Cohort(inputs["cohort"])
    records = {row["image_id"]: row for row in cohort.table(TABLE_COLUMNS).to_pylist()}
    budget = TokenBudget(meta["text_encoder"], meta["token_budget"])
    filters = [
        _text(params, rows, records, budget),
        _judge(params, rows, records, budget),
        _image(params, rows, records, cohort),
        _agreement(params, rows, inputs),
    ]
    dropped: dict[int, tuple[str, str]] = {}
    by: dict[int, str] = {}
    for one in filters:
        for number, reason in one.drops.items():
            if number not in dropped:
                dropped[number], by[number] = reason, one.name
    with CaptionWriter(
        outputs["curated"], meta["token_budget"], meta["text_encoder"], of_model(inputs["captions"])
    ) as writer:
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
        "judge_unanswered": len(rows) - len(columns["contradiction"]) if params.judge.engine != "none" else 0,
        **{f"found_by_{one.name}": len(one.drops) for one in filters},
        **{f"dropped_{rule}": reasons.count(rule) for rule in sorted(set(reasons))},
    }


def _require(params: PurifyParams, inputs: Paths) -> None:
    """Refuses to judge agreement without what its judge looks at, before anything is judged or paid for."""
    needed = {"generator": ("latents", "generator"), "statements": ("latents",), "contrastive": ("latents",)}
    for port in needed.get(params.agreement, ()):
        if port not in inputs:
            raise UsageError(
                f"purify.agreement {params.agreement} needs the input {port!r}; or set purify.agreement to none"
            )


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


def _judge(params: PurifyParams, rows: Rows, records: dict[str, dict[str, Any]], budget: TokenBudget) -> Filter:
    """How sure the language model is that each caption contradicts its record."""
    judge = params.judge
    on = judge.engine != "none"
    verdicts = judged(judge, rows, records, budget, params.seed) if on else {}
    return dataclasses.replace(
        JUDGE,
        on=on,
        judge=getattr(judge, judge.engine).model if on else "",
        limit=f"at most {judge.max_contradiction:g}",
        columns={"contradiction": {number: verdict.contradiction for number, verdict in verdicts.items()}},
        drops={
            number: ("contradiction", verdict.reason)
            for number, verdict in verdicts.items()
            if verdict.contradiction > judge.max_contradiction
        },
    )


def _agreement(params: PurifyParams, rows: Rows, inputs: Paths) -> Filter:
    """How well each caption of a training image agrees with it; what is improbable or agrees least is dropped."""
    on = params.agreement != "none"
    scores = JUDGES[params.agreement](params, rows, inputs) if on else {}
    if params.agreement == "statements":
        least = params.statements.min_probability
        limit = f"a probability of at least {least:g}"
    else:
        least = float(np.quantile(list(scores.values()), params.agreement_quantile)) if scores else float("-inf")
        limit = f"at least {least:.4g}, the quantile {params.agreement_quantile:g} of this cohort" if scores else ""
    return dataclasses.replace(
        AGREEMENT,
        on=on,
        judge=params.agreement,
        limit=limit,
        columns={"agreement": scores},
        drops={
            number: ("agreement", f"{score:.4g} < {least:.4g}") for number, score in scores.items() if score < least
        },
    )


def _image(params: PurifyParams, rows: Rows, records: dict[str, dict[str, Any]], cohort: Cohort) -> Filter:
    """Captions of poor pictures, and of pictures that are near duplicates of an earlier one."""
    measured = _least_measures(cohort) if params.image else {}
    quality: dict[int, float] = {}
    copies: dict[int, str] = {}
    drops: dict[int, tuple[str, str]] = {}
    for number, row in enumerate(rows if params.image else ()):
        record = records[row["image_id"]]
        name, quality[number] = measured[row["image_id"]]
        if quality[number] < params.min_measure:
            drops[number] = ("quality", f"{name} {quality[number]:.3f} < {params.min_measure:g}")
        elif record["quality"] is not None and record["quality"] < params.min_quality:
            drops[number] = ("quality", f"{record['quality']:.3f} < {params.min_quality:g}")
        if record["duplicate_group"] not in (None, row["image_id"]):
            copies[number] = record["duplicate_group"]
            drops.setdefault(number, ("duplicate", "near duplicate of an earlier picture"))
    return dataclasses.replace(
        IMAGE,
        on=params.image,
        limit=f"at least {params.min_measure:g}, {params.min_quality:g} in the mean, and no copy of another picture",
        columns={"quality": quality, "copy_of": copies},
        drops=drops,
    )


def _least_measures(cohort: Cohort) -> dict[str, tuple[str, float]]:
    """image_id → the poorest of a picture's measures, its name and value.

    The score of a row is the mean of all measures: a picture in which no vessel can be seen may still have a fair one,
    for its light is even.
    """
    least = {}
    for image_id, image in track(cohort.images(), "purify: quality", sum(cohort.meta["splits"].values()), "image"):
        found = assess_quality(image, coverage=1.0)  # how much of the field is lit, the row's score knows
        measures = {name: getattr(found, name) for name in ("sharpness", "contrast", "illumination")}
        least[image_id] = min(measures.items(), key=lambda item: item[1])
    return least
