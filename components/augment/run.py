"""Makes the synthetic cohort: class-balanced prompts to pictures, filtered by quality and for copies."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.augment.step import AugmentParams
from components.step import Metrics, Paths
from retinalogos.captions.template import write_caption
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.duplicates import Neighbours, perceptual_hash
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.schema import EYES
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_jpeg
from retinalogos.errors import DataError
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.progress import track
from retinalogos.provenance import generator_hash

# What a prompt asks for; everything else of the record that lent its findings is left behind.
_ASKED = ("eye", "dr_grade", "dme", "glaucoma", "vcdr", "findings")


def run(params: AugmentParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort = Cohort(inputs["cohort"])
    pipeline = TextToFundusPipeline.from_pretrained(inputs["generator"])
    name = f"{type(pipeline.backbone).__name__}:{generator_hash(inputs['generator'])[:16]}"
    budget = TokenBudget(pipeline.config.text_encoder_name, pipeline.config.token_budget)
    training = cohort.table(("image_id", "quality", *_ASKED), split="train").to_pylist()
    plan = list(_plan(params, training, budget))
    if not plan:
        raise DataError(f"{inputs['cohort']}: no training eye has an ICDR grade or a glaucoma status to ask for")
    floor = float(np.quantile([row["quality"] for row in training], params.quality_quantile))
    # Seen from the pictures that are already there: a copy of a training eye, or of a synthetic one, is dropped.
    copies = Neighbours()
    sources = []
    for image_id, image in track(cohort.images(split="train"), "augment: training eyes", total=len(training)):
        copies.add(perceptual_hash(image))
        sources.append(image_id)
    kept: dict[str, int] = {}
    dropped: list[dict[str, str]] = []
    outputs["synthetic"].mkdir(parents=True)
    with CohortWriter(outputs["synthetic"], f"{cohort.meta['name']}-synthetic") as writer:
        for wish, image in _draw(pipeline, plan, kept, params):
            picture = encode_jpeg(image)
            digest = hashlib.sha256(picture).hexdigest()
            quality = assess_quality(image, coverage=1.0).score
            value = perceptual_hash(image)
            near = copies.near(value, params.duplicate_distance)
            reason = "quality" if quality < floor else "copy" if near else None
            if reason:
                detail = f"{quality:.3f} < {floor:.3f}" if reason == "quality" else f"of {sources[near[0]]}"
                dropped.append({"prompt": wish["prompt"], "seed": wish["seed"], "reason": reason, "detail": detail})
                continue
            copies.add(value)
            sources.append(digest[:16])
            kept[wish["cell"]] = kept.get(wish["cell"], 0) + 1
            writer.add(_row(wish, name, image, picture, digest, quality))
    _write_dropped(outputs["synthetic"] / "dropped.csv", dropped)
    reasons = [row["reason"] for row in dropped]
    counts = {f"kept_{cell}": count for cell, count in sorted(kept.items())}
    return {
        "kept": sum(kept.values()),
        "dropped_quality": reasons.count("quality"),
        "dropped_copy": reasons.count("copy"),
        "quality_floor": floor,
        **counts,
    }


def _plan(params: AugmentParams, training: list[dict[str, Any]], budget: TokenBudget) -> Iterator[dict[str, Any]]:
    """Wishes in turn over the cells (grades, glaucoma), so that a cut-off run is balanced too.

    Each wish takes the findings of a real training eye of its cell, so that they occur together as they do in life, and
    a side chosen anew; age, sex, report and identity of that eye are not used.
    """
    cells: list[tuple[str, list[dict[str, Any]], int]] = []
    for grade in range(5):
        eyes = [row for row in training if row["dr_grade"] == grade]
        cells.append((f"grade_{grade}", eyes, params.per_grade))
    for status in ("no", "glaucoma"):
        eyes = [row for row in training if row["glaucoma"] == status]
        cells.append((f"glaucoma_{status}", eyes, params.per_glaucoma))
    cells = [cell for cell in cells if cell[1] and cell[2]]
    rng = np.random.default_rng(params.seed)
    most = max((round(wanted * (1 + params.surplus)) for _, _, wanted in cells), default=0)
    number = 0
    for turn in range(most):
        for cell, eyes, wanted in cells:
            if turn >= round(wanted * (1 + params.surplus)):
                continue
            model = eyes[rng.integers(len(eyes))]
            asked = {name: model[name] for name in _ASKED} | {"eye": EYES[rng.integers(2)]}
            caption = write_caption(
                asked, granularity=params.granularity, wording=0, seed=params.seed + number, budget=budget
            )
            seed = params.seed * 1_000_000 + number
            yield {
                "cell": cell,
                "wanted": wanted,
                "asked": asked,
                "prompt": caption.text,
                "seed": seed,
                "number": number,
            }
            number += 1


def _draw(
    pipeline: TextToFundusPipeline, plan: list[dict[str, Any]], kept: Mapping[str, int], params: AugmentParams
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Pictures for the wishes whose cell is not yet full, batch by batch: memory holds one batch."""
    waiting = iter(track(plan, "augment: draw", unit="image"))
    while True:
        batch: list[dict[str, Any]] = []
        for wish in waiting:
            pending = sum(other["cell"] == wish["cell"] for other in batch)
            if kept.get(wish["cell"], 0) + pending < wish["wanted"]:
                batch.append(wish)
            if len(batch) == params.batch_size:
                break
        if not batch:
            return
        drawn = pipeline(
            [wish["prompt"] for wish in batch],
            seeds=[wish["seed"] for wish in batch],
            steps=params.steps,
            guidance=params.guidance,
            autoguidance=params.autoguidance,
            batch_size=params.batch_size,
        )
        yield from zip(batch, drawn, strict=True)


def _row(
    wish: dict[str, Any], generator: str, image: np.ndarray, picture: bytes, digest: str, quality: float
) -> dict[str, Any]:
    return {
        **wish["asked"],
        "image_id": digest[:16],
        "patient_id": f"synthetic-{wish['number']:07d}",
        "labels": json.dumps({"cell": wish["cell"]}),
        "quality": quality,
        "split": "train",
        "source": "synthetic",
        "licence": "synthetic; the terms of the training data apply",
        "width": image.shape[1],
        "height": image.shape[0],
        "sha256": digest,
        "image": {"bytes": picture, "path": f"{digest[:16]}.jpg"},
        "generator": generator,
        "prompt": wish["prompt"],
        "seed": wish["seed"],
    }


def _write_dropped(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "seed", "reason", "detail"])
        writer.writeheader()
        writer.writerows(rows)
