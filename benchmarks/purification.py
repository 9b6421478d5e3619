"""Planted errors: what each filter of the step ``purify`` finds of them, and what it drops beside them.

    python -m benchmarks.purification --cohort phantom
    python -m benchmarks.purification --cohort phantom --filters text contrastive generator
    python -m benchmarks.purification --cohort data/cohort --filters text contrastive --limit 1200

Captions of the template engine are right by their making. In a share of them (--share) one kind of error is planted, a
set of captions for each kind, drawn by --seed:

    laterality  the caption of the mirrored record: other eye, disc on the other side
    grade       the caption of the record with another ICDR grade
    finding     the caption of the record with a finding that it does not support
    swap        the caption of another image, of the same granularity, where the engine would say something else of this
                one in the same wording

A planted caption says something else than the right one; records and pictures stay as they are. Each set goes
through the step `purify` itself with one filter on. `text` drops what breaks a rule. The agreement filters judge
captions of training images alone; they drop the share that was planted (precision and recall are then near each other),
and the area under the ROC curve tells how well they rank. `generator` is trained by the step `pretrain` as params.yaml
has it, on the set with its errors, as in the workflow; that takes minutes for each kind.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from benchmarks.pretrain import run_step
from retinalogos.captions.description import describe
from retinalogos.captions.table import CaptionWriter, read_captions, read_captions_meta
from retinalogos.captions.template import Caption, write_captions
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import ICDR_GRADES, TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.errors import UsageError

KINDS = ("laterality", "grade", "finding", "swap")
FILTERS = ("text", "contrastive", "generator", "clip")
OTHER_EYE = {"left": "right", "right": "left"}

Row = dict[str, Any]


def changed(kind: str, record: Row, pool: Sequence[str], rng: np.random.Generator) -> Row | None:
    """The record with one error of this kind; None where it does not know what would be changed."""
    if kind == "laterality" and record["eye"]:
        truth = json.loads(record["truth"] or "{}")
        sides = {name: 1 - truth[name] for name in ("disc_x", "fovea_x") if name in truth}
        return record | {"eye": OTHER_EYE[record["eye"]], "truth": json.dumps(truth | sides) if truth else None}
    if kind == "grade" and record["dr_grade"] is not None:
        others = [grade for grade in range(len(ICDR_GRADES)) if grade != record["dr_grade"]]
        return record | {"dr_grade": int(rng.choice(others))}
    if kind == "finding" and record["findings"] is not None:
        wrong = [code for code in pool if code not in describe(record).supports()]
        return record | {"findings": [*record["findings"], str(rng.choice(wrong))]} if wrong else None
    return None


def plant(
    kind: str, rows: Sequence[Row], records: dict[str, Row], budget: TokenBudget, share: float, seed: int
) -> dict[int, tuple[str, int]]:
    """Number of a caption → its wrong text and the number of its tokens; ``share`` of all captions.

    Raises:
        UsageError: too few captions can be made wrong in this way.
    """
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    wanted = round(share * len(rows))
    order = rng.permutation(len(rows)).tolist()
    pool = sorted({code for record in records.values() for code in record["findings"] or ()})
    wrong: dict[int, tuple[str, int]] = {}
    for place, number in enumerate(order):
        row = rows[number]
        record = records[row["image_id"]]
        if kind == "swap":
            # The next caption of this granularity, where it says what the template would not say of this eye.
            others = (rows[other] for other in order[place + 1 :] + order[:place])
            other = next(other for other in others if other["granularity"] == row["granularity"])
            if _caption(record | {"image_id": other["image_id"]}, other, budget).text != other["text"]:
                wrong[number] = (other["text"], other["tokens"])
        elif (error := changed(kind, record, pool, rng)) is not None:
            caption = _caption(error, row, budget)
            added = [code for code in error["findings"] or () if code not in (record["findings"] or ())]
            if caption.text != row["text"] and all(_named(code, caption.text) for code in added):
                wrong[number] = (caption.text, caption.tokens)
        if len(wrong) == wanted:
            return wrong
    raise UsageError(f"{kind}: only {len(wrong)} of the {wanted} captions wanted can be made wrong; lower --share")


def _caption(record: Row, row: Row, budget: TokenBudget) -> Caption:
    return write_captions([(record, row["granularity"], row["wording"], row["seed"])], budget)[0]


def _named(code: str, text: str) -> bool:
    """Whether the text has a telling word of the finding's name: a budget may leave a finding unsaid."""
    words = (word.rstrip("s") for word in FINDINGS[code].lower().replace("-", " ").split())
    return any(word in text.lower() for word in words if word not in ("retinal", "optic", "disc", "retinopathy"))


@dataclass(frozen=True)
class Found:
    """What a filter made of a set: of how many captions it judged how many were planted, found and wrongly dropped."""

    judged: int
    planted: int
    hits: int
    alarms: int
    area: float | None

    def __str__(self) -> str:
        dropped = self.hits + self.alarms
        recall = f"{self.hits / self.planted:.3f}" if self.planted else ""
        precision = f"{self.hits / dropped:.3f}" if dropped else ""
        area = "" if self.area is None else f"{self.area:.3f}"
        return f"{self.judged} | {self.planted} | {dropped} | {recall} | {precision} | {area}"


def judge(name: str, folder: Path, captions: Path, wrong: set[int], options: argparse.Namespace) -> Found:
    """Runs the step with this filter alone on a set of captions."""
    inputs = {"cohort": folder / "cohort", "captions": captions, "latents": captions, "generator": captions}
    if name in ("contrastive", "generator"):
        inputs["latents"] = captions.with_name("latents")
        # Most captions are those of the right set: their features are known.
        known = {"cohort": folder / "cohort", "autoencoder": folder / "autoencoder", "known": folder / "latents"}
        if not inputs["latents"].exists():
            run_step("encode", known | {"captions": captions}, {"latents": inputs["latents"]})
    if name == "generator":
        inputs["generator"] = captions.with_name("generator")
        trained = {"latents": inputs["latents"], "autoencoder": folder / "autoencoder"}
        outputs = {"generator": inputs["generator"], "log": captions.with_name("log")}
        run_step("pretrain", trained, outputs, checkpoints=str(captions.with_name("checkpoints")))
    alone = {"text": name == "text", "image": False, "agreement": "none" if name == "text" else name}
    settings = {"agreement_quantile": options.share, "clip_model": options.clip_model, "examples": 0, **alone}
    outputs = {port: captions.with_name(f"{port}-{name}") for port in ("curated", "page")}
    run_step("purify", inputs, outputs, **settings)
    table = pq.read_table(outputs["curated"] / "scores.parquet").to_pydict()
    column = "broken_rules" if name == "text" else "agreement"
    judged = [number for number, score in enumerate(table[column]) if score is not None]
    dropped = {number for number in judged if table["dropped_by"][number] is not None}
    truth = [number in wrong for number in judged]
    ranked = name != "text" and len(set(truth)) == 2
    return Found(
        len(judged),
        sum(truth),
        len(dropped & wrong),
        len(dropped - wrong),
        float(roc_auc_score(truth, [-table[column][number] for number in judged])) if ranked else None,
    )


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """The cohort with right captions, and the autoencoder where a filter looks at latents."""
    if options.cohort == "phantom":
        run_step("ingest", {}, {"cohort": folder / "cohort"}, n=options.limit, size=options.size, workers=1)
    else:
        source = Cohort(Path(options.cohort))
        with CohortWriter(folder / "cohort", source.meta["name"]) as writer:
            for row in islice(source.rows(), options.limit):
                writer.add(row)
    verdict = folder / "verdict"
    verdict.mkdir()
    (verdict / "verdict.json").write_text(json.dumps({"passed": True}))
    inputs = {"cohort": folder / "cohort", "validation": verdict}
    run_step("caption", inputs, {"captions": folder / "captions"})
    if {"contrastive", "generator"} & set(options.filters):
        run_step("autoencode", inputs, {"autoencoder": folder / "autoencoder"}, judged=1)
        encoded = {port: folder / port for port in ("cohort", "captions", "autoencoder")}
        run_step("encode", encoded, {"latents": folder / "latents"})


def compare(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table, each as soon as it is known."""
    prepare(folder, options)
    rows, meta = read_captions(folder / "captions").to_pylist(), read_captions_meta(folder / "captions")
    records = {row["image_id"]: row for row in Cohort(folder / "cohort").table(TABLE_COLUMNS).to_pylist()}
    budget = TokenBudget(meta["text_encoder"], meta["token_budget"])
    yield f"{len(rows)} captions of {len(records)} eyes, {options.share:.0%} of them wrong in each set"
    yield "| error | filter | judged | wrong | dropped | recall | precision | area under ROC |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind in options.kinds:
        wrong = plant(kind, rows, records, budget, options.share, options.seed)
        captions = folder / kind / "captions"
        with CaptionWriter(captions, meta["token_budget"], meta["text_encoder"]) as writer:
            for number, row in enumerate(rows):
                text, tokens = wrong.get(number, (row["text"], row["tokens"]))
                writer.add(row | {"text": text, "tokens": tokens})
        for name in options.filters:
            yield f"| {kind} | {name} | {judge(name, folder, captions, set(wrong), options)} |"


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="phantom", help="phantom, or the folder of a cohort (default: phantom)")
    parser.add_argument("--limit", type=int, default=600, help="eyes: drawn, or the first of the folder (default: 600)")
    parser.add_argument("--size", type=int, default=128, help="pixels of a drawn eye (default: 128)")
    parser.add_argument("--share", type=float, default=0.1, help="of captions that are wrong (default: 0.1)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of errors (default: all)")
    parser.add_argument(
        "--filters", nargs="+", choices=FILTERS, default=("text", "contrastive"), help="(default: text contrastive)"
    )
    parser.add_argument("--clip-model", default="", help="folder or hub name, for the filter clip")
    parser.add_argument("--seed", type=int, default=0, help="of the errors (default: 0)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        for line in compare(Path(home), options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
