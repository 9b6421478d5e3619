"""Planted errors: what each filter of the step ``purify`` finds of them, and what it drops beside them.

    python -m benchmarks.purification --cohort phantom
    python -m benchmarks.purification --cohort phantom --filters text contrastive generator --kinds swap
    python -m benchmarks.purification --cohort data/cohort --limit 1200

Captions of the template engine are right by their making. In a share of them (--share) one kind of error is planted, a
set of captions for each kind, drawn by --seed:

    laterality  the caption of the mirrored record: other eye, disc on the other side
    grade       the caption of the record with another ICDR grade
    finding     the caption of the record with a finding that it does not support
    swap        the caption of another image, of the same granularity, where the engine would say something else of this
                one in the same wording

A planted caption says something else than the right one; records and pictures stay as they are. Each set goes through
the step `purify` itself with one filter on. `text` drops what breaks a rule, and knows the record; `image` looks at
pictures alone and can see none of these errors. The agreement filters judge captions of training images alone, and the
area under the ROC curve tells how well they rank. `statements` has a limit of its own; the others drop a share whatever
their scores are, here the share that was planted (precision and recall are then near each other). Since each filter
looks at all captions for itself, what all of them drop together is what any of them drops; the filters that drop a
share then drop the one that params.yaml has.
`generator` is trained by the step `pretrain` as params.yaml has it, on the set with its errors, as in the workflow;
that takes minutes for each kind.

For `image` two kinds are planted in the pictures, a share of the eyes each, and all go through the step `ingest`, which
judges quality and finds near duplicates:

    copy        another patient's row with the picture of an earlier one: framed and scaled anew, saved at a lower JPEG
                quality, or brighter or darker
    poor        the picture blurred until no vessel is left, taken in the dark, or of an empty field

What `ingest` itself refuses counts as found. Copies that the cohort had before count as wrongly dropped.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import yaml
from sklearn.metrics import roc_auc_score

from benchmarks.pretrain import quietly, run_step
from components import ROOT
from retinalogos.captions.description import describe
from retinalogos.captions.table import CaptionWriter, read_captions, read_captions_meta
from retinalogos.captions.template import Caption, write_captions
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.deidentify import pseudonym_key
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.readers.record import Record
from retinalogos.cohort.schema import ICDR_GRADES, SPLITS, TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort, CohortWriter, decode_image, encode_jpeg, encode_png
from retinalogos.errors import UsageError

KINDS = ("laterality", "grade", "finding", "swap")
FILTERS = ("text", "image", "statements", "contrastive", "generator", "clip")
# Column of scores.parquet that says whom a filter judged; the agreement filters share one.
COLUMNS = {"text": "broken_rules", "image": "quality"}
SHARES = ("contrastive", "generator", "clip")
ENCODED = {"statements", "contrastive", "generator"}  # look at latents
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


def framed(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """The picture in a black frame off its middle, up to 5 % larger or smaller: as another export of one photograph."""
    side = round(image.shape[0] * rng.uniform(0.95, 1.05))
    border = rng.integers(side // 20, side // 8, 4).tolist()
    scaled = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return encode_jpeg(cv2.copyMakeBorder(scaled, *border, cv2.BORDER_CONSTANT), 95)


def recompressed(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """At a JPEG quality of 70 to 90."""
    return encode_jpeg(image, int(rng.integers(70, 91)))


def relit(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """10 to 25 % darker or brighter."""
    gain = 1 + rng.uniform(0.1, 0.25) * rng.choice([-1, 1])
    return encode_png(np.clip(image * gain, 0, 255).astype(np.uint8))


def blurred(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """By a Gaussian of 3 % of the side, wider than any vessel."""
    return encode_png(cv2.GaussianBlur(image, (0, 0), 0.03 * image.shape[0]))


def dark(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """A tenth of the light, and the noise of a sensor."""
    return encode_png(np.clip(0.1 * image + rng.normal(0, 1, image.shape), 0, 255).astype(np.uint8))


def empty(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """The field in its mean tone, with noise: a camera that saw no eye."""
    field = image.max(2, keepdims=True) > 20
    tone = image.mean((0, 1)) / field.mean() + rng.normal(0, 2, image.shape)
    return encode_png(np.clip(np.where(field, tone, 0), 0, 255).astype(np.uint8))


Alteration = Callable[[np.ndarray, np.random.Generator], bytes]
PICTURE_KINDS: Mapping[str, tuple[Alteration, ...]] = {
    "copy": (framed, recompressed, relit),
    "poor": (blurred, dark, empty),
}


def planted_pictures(kind: str, rows: Sequence[Row], share: float, seed: int) -> Iterator[Record]:
    """The cohort as records, a share of them altered in turns; an altered one has its alteration among its labels."""
    rng = np.random.default_rng([seed, list(PICTURE_KINDS).index(kind)])
    chosen = rng.permutation(len(rows))[: round(share * len(rows))].tolist()
    altered = {number: PICTURE_KINDS[kind][i % len(PICTURE_KINDS[kind])] for i, number in enumerate(chosen)}

    def picture(number: int) -> tuple[bytes, dict[str, str]]:
        image = decode_image(rows[number]["image"]["bytes"])
        return altered[number](image, rng), {"planted": altered[number].__name__}

    for number, row in enumerate(rows):
        if kind == "poor" and number in altered:
            yield _record(row, *picture(number))
        else:
            yield _record(row, row["image"]["bytes"], {})
    if kind == "copy":
        for number in sorted(altered):
            yield _record(rows[number] | {"patient_id": None}, *picture(number))


def _record(row: Row, image: bytes, labels: dict[str, str]) -> Record:
    told = ("source", "eye", "age", "sex", "dr_grade", "dme", "glaucoma", "vcdr", "report", "licence", "truth")
    findings = None if row["findings"] is None else tuple(row["findings"])
    known = {name: row[name] for name in told}
    return Record(image=image, patient=row["patient_id"], findings=findings, labels=labels, **known)


@dataclass(frozen=True)
class Judged:
    """What a filter made of a set: number of a caption → its score, lower is worse; and the numbers that it dropped."""

    scores: Mapping[int, float]
    dropped: frozenset[int]


@dataclass(frozen=True)
class Found:
    """Of how many captions that were judged how many were planted, found and wrongly dropped."""

    judged: int
    planted: int
    hits: int
    alarms: int
    area: float | None = None

    def __str__(self) -> str:
        dropped = self.hits + self.alarms
        recall = f"{self.hits / self.planted:.3f}" if self.planted else ""
        precision = f"{self.hits / dropped:.3f}" if dropped else ""
        area = "" if self.area is None else f"{self.area:.3f}"
        return f"{self.judged} | {self.planted} | {dropped} | {recall} | {precision} | {area}"


def defaults(stage: str) -> dict[str, Any]:
    """The section of params.yaml."""
    section: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))[stage]
    return section


def least(scores: Mapping[int, float], share: float) -> set[int]:
    """The numbers of this share of the scores, the lowest, as the step drops them."""
    limit = np.quantile(list(scores.values()), share)
    return {number for number, score in scores.items() if score < limit}


def found(judged: set[int], dropped: Set[int], wrong: set[int], scores: Mapping[int, float] | None) -> Found:
    """Counts; the area under the ROC curve where ``scores`` rank."""
    area = None
    if scores is not None:
        order = sorted(judged)
        truth = [number in wrong for number in order]
        area = float(roc_auc_score(truth, [-scores[number] for number in order])) if len(set(truth)) == 2 else None
    return Found(len(judged), len(judged & wrong), len(dropped & wrong), len(dropped - wrong), area)


def judge(name: str, folder: Path, cohort: Path, captions: Path, options: argparse.Namespace) -> Judged:
    """Runs the step with this filter alone on a set of captions."""
    inputs = {"cohort": cohort, "captions": captions, "latents": captions, "generator": captions}
    if name in ENCODED:
        inputs["latents"] = captions.with_name("latents")
        # Most captions are those of the right set: their features are known.
        known = {"cohort": cohort, "autoencoder": folder / "autoencoder", "known": folder / "latents"}
        if not inputs["latents"].exists():
            run_step("encode", known | {"captions": captions}, {"latents": inputs["latents"]})
    if name == "generator":
        inputs["generator"] = captions.with_name("generator")
        trained = {"latents": inputs["latents"], "autoencoder": folder / "autoencoder"}
        outputs = {"generator": inputs["generator"], "log": captions.with_name("log")}
        run_step("pretrain", trained, outputs, checkpoints=str(captions.with_name("checkpoints")))
    alone = {"text": name == "text", "image": name == "image", "agreement": "none" if name in COLUMNS else name}
    clip = defaults("purify")["clip"] | {"loader": options.clip_loader, "model": options.clip_model}
    settings = {"agreement_quantile": options.share, "clip": clip, "examples": 0, **alone}
    if options.min_measure is not None:
        settings["min_measure"] = options.min_measure
    outputs = {port: captions.with_name(f"{port}-{name}") for port in ("curated", "page")}
    run_step("purify", inputs, outputs, **settings)
    table = pq.read_table(outputs["curated"] / "scores.parquet").to_pydict()
    scores = {n: score for n, score in enumerate(table[COLUMNS.get(name, "agreement")]) if score is not None}
    return Judged(scores, frozenset(n for n, by in enumerate(table["dropped_by"]) if by is not None))


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
    run_step("caption", inputs, {"captions": folder / "captions", "page": folder / "captions-page"})
    if ENCODED & set(options.filters) and set(KINDS) & set(options.kinds):
        run_step("autoencode", inputs, {"autoencoder": folder / "autoencoder"}, judged=1)
        encoded = {port: folder / port for port in ("cohort", "captions", "autoencoder")}
        run_step("encode", encoded, {"latents": folder / "latents"})


def texts_table(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Rows of the errors that are planted in captions."""
    rows, meta = read_captions(folder / "captions").to_pylist(), read_captions_meta(folder / "captions")
    records = {row["image_id"]: row for row in Cohort(folder / "cohort").table(TABLE_COLUMNS).to_pylist()}
    budget = TokenBudget(meta["text_encoder"], meta["token_budget"])
    purify = defaults("purify")
    for kind in (kind for kind in options.kinds if kind in KINDS):
        wrong = plant(kind, rows, records, budget, options.share, options.seed)
        captions = folder / kind / "captions"
        with CaptionWriter(captions, meta["token_budget"], meta["text_encoder"]) as writer:
            for number, row in enumerate(rows):
                text, tokens = wrong.get(number, (row["text"], row["tokens"]))
                writer.add(row | {"text": text, "tokens": tokens})
        by_all: set[int] = set()
        for name in options.filters:
            one = judge(name, folder, folder / "cohort", captions, options)
            ranks = None if name in COLUMNS else one.scores
            by_all |= least(one.scores, purify["agreement_quantile"]) if name in SHARES else one.dropped
            yield f"| {kind} | {name} | {found(set(one.scores), one.dropped, set(wrong), ranks)} |"
        if len(options.filters) > 1:
            yield f"| {kind} | all of them | {found(set(range(len(rows))), by_all, set(wrong), None)} |"


def pictures_table(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Rows of the errors that are planted in pictures, of all and of each alteration."""
    rows = list(Cohort(folder / "cohort").rows())
    section = defaults("ingest")
    how = Ingestion(
        size=rows[0]["width"],
        jpeg_quality=section["jpeg_quality"],
        fractions={split: section[split] for split in SPLITS},
        seed=section["seed"],
        quarantine_share=1.0,
        near_distance=section["near_distance"],
        key=pseudonym_key(open_source=True),
    )
    for kind in (kind for kind in options.kinds if kind in PICTURE_KINDS):
        home = folder / kind
        records = list(planted_pictures(kind, rows, options.share, options.seed))
        quietly(partial(ingest, records, home / "cohort", kind, how))
        inputs = {"cohort": home / "cohort", "validation": folder / "verdict"}
        run_step("caption", inputs, {"captions": home / "captions", "page": home / "captions-page"})
        captions = read_captions(home / "captions", ["image_id"])["image_id"].to_pylist()
        labels = dict(zip(*Cohort(home / "cohort").table(("image_id", "labels")).to_pydict().values(), strict=True))
        planted = [json.loads(labels[image_id] or "{}").get("planted") for image_id in captions]
        one = judge("image", folder, home / "cohort", home / "captions", options)
        each = len(captions) // len(labels)
        total = Found(0, 0, 0, 0)
        for alteration in (step.__name__ for step in PICTURE_KINDS[kind]):
            here = {number for number, name in enumerate(planted) if name == alteration}
            wanted = each * sum(record.labels.get("planted") == alteration for record in records)
            refused = wanted - len(here)
            of_it = Found(wanted, wanted, len(one.dropped & here) + refused, 0)
            total = Found(0, total.planted + wanted, total.hits + of_it.hits, 0)
            yield f"| {kind}: {alteration} | image | {of_it} |"
        right = {number for number, name in enumerate(planted) if name is None}
        judged, alarms = len(right) + total.planted, len(one.dropped & right)
        yield f"| {kind} | image | {Found(judged, total.planted, total.hits, alarms)} |"


def compare(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table, each as soon as it is known."""
    prepare(folder, options)
    captions = read_captions_meta(folder / "captions")["captions"]
    yield f"{captions} captions of {len(Cohort(folder / 'cohort'))} eyes, {options.share:.0%} planted in each set"
    yield "| error | filter | judged | wrong | dropped | recall | precision | area under ROC |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from texts_table(folder, options)
    if "image" in options.filters:
        yield from pictures_table(folder, options)


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="phantom", help="phantom, or the folder of a cohort (default: phantom)")
    parser.add_argument("--limit", type=int, default=600, help="eyes: drawn, or the first of the folder (default: 600)")
    parser.add_argument("--size", type=int, default=128, help="pixels of a drawn eye (default: 128)")
    parser.add_argument("--share", type=float, default=0.1, help="of captions or eyes that are wrong (default: 0.1)")
    kinds = (*KINDS, *PICTURE_KINDS)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="of errors (default: all)")
    usual = ("text", "image", "statements", "contrastive")
    parser.add_argument("--filters", nargs="+", choices=FILTERS, default=usual, help=f"(default: {' '.join(usual)})")
    parser.add_argument("--min-measure", type=float, help="as purify.min_measure (default: that of params.yaml)")
    parser.add_argument("--clip-model", default="", help="file, folder or hub name, for the filter clip")
    parser.add_argument("--clip-loader", default="transformers", help="as purify.clip.loader (default: transformers)")
    parser.add_argument("--seed", type=int, default=0, help="of the errors (default: 0)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        for line in compare(Path(home), options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
