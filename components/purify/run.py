"""Stage 2: drops captions that break a text rule or do not agree with their image, and says which and why."""

from typing import Any

import numpy as np

from components.purify.step import PurifyParams
from components.step import Metrics, Paths
from retinalogos.captions.rules import check
from retinalogos.captions.table import CaptionWriter, read_captions, read_captions_meta
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.schema import TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.agreement import agreement
from retinalogos.generators.text.latents import Latents
from retinalogos.progress import track
from retinalogos.training.device import device


def run(params: PurifyParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    rows = read_captions(inputs["captions"]).to_pylist()
    meta = read_captions_meta(inputs["captions"])
    dropped = _against_rules(rows, Cohort(inputs["cohort"]), TokenBudget(meta["text_encoder"], meta["token_budget"]))
    scores = _agreements(params, rows, inputs)
    least = np.quantile(list(scores.values()), params.agreement_quantile) if scores else float("-inf")
    for number, score in scores.items():
        if score < least and number not in dropped:
            dropped[number] = ("agreement", f"{score:.4f} < {least:.4f}")
    with CaptionWriter(outputs["curated"], meta["token_budget"], meta["text_encoder"]) as writer:
        for number, row in enumerate(rows):
            if number in dropped:
                writer.drop(row["image_id"], row["granularity"], row["wording"], *dropped[number])
            else:
                writer.add(row)
    reasons = [rule for rule, _ in dropped.values()]
    by_rule = {f"dropped_{rule}": reasons.count(rule) for rule in sorted(set(reasons))}
    values = np.array(list(scores.values())) if scores else np.zeros(1)
    return {
        "captions": len(rows),
        "kept": len(rows) - len(dropped),
        "dropped": len(dropped),
        "agreement_median": float(np.median(values)),
        "agreement_positive_share": float((values > 0).mean()),
        **by_rule,
    }


def _against_rules(rows: list[dict[str, Any]], cohort: Cohort, budget: TokenBudget) -> dict[int, tuple[str, str]]:
    """Number of a caption → the first rule it breaks and how."""
    records = {row["image_id"]: row for row in cohort.table(TABLE_COLUMNS).to_pylist()}
    dropped: dict[int, tuple[str, str]] = {}
    for number, row in enumerate(track(rows, "purify: rules", unit="caption")):
        violations = check(row["text"], records[row["image_id"]], budget)
        if violations:
            dropped[number] = (violations[0].rule, violations[0].detail)
    return dropped


def _agreements(params: PurifyParams, rows: list[dict[str, Any]], inputs: Paths) -> dict[int, float]:
    """Number of a caption → its agreement, for every caption of a training image."""
    latents = Latents(inputs["latents"])
    pipeline = TextToFundusPipeline.from_pretrained(inputs["generator"]).to(device())
    images = {row["image_id"]: i for i, row in enumerate(latents.images) if row["split"] == "train"}
    texts = {row["text"]: i for i, row in enumerate(latents.texts)}
    pairs = [
        (number, images[row["image_id"]], texts[row["text"]])
        for number, row in enumerate(rows)
        if row["image_id"] in images and row["text"] in texts
    ]
    scores: dict[int, float] = {}
    for start in track(range(0, len(pairs), params.batch_size), "purify: agreement", unit="batch"):
        numbers, batch_images, batch_texts = zip(*pairs[start : start + params.batch_size], strict=True)
        values = agreement(pipeline, latents, batch_images, batch_texts, params.agreement_draws, params.seed)
        scores.update(zip(numbers, values.tolist(), strict=True))
    return scores
