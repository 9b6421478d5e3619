"""Puts the two networks together and makes the synthetic cohort: maps of every grade and their photographs."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from components.draw_lesion_maps.step import DrawLesionMapsParams
from components.step import Metrics, Paths
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import UsageError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.pipeline import BATCH, LesionMapPipeline, load_layout, load_render
from retinalogos.progress import track
from retinalogos.provenance import generator_hash


def run(params: DrawLesionMapsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        UsageError: no eye is wanted.
    """
    name = Cohort(inputs["cohort"]).meta["name"]
    pipeline = LesionMapPipeline(load_layout(inputs["layout"]), load_render(inputs["render"]))
    grades = list(_in_turn(params.per_grade))
    if not grades:
        raise UsageError("draw_lesion_maps.per_grade is 0 for every grade: ask for some eyes")
    pipeline.save_pretrained(outputs["generator"])
    generator = f"{type(pipeline).__name__}:{generator_hash(outputs['generator'])[:16]}"
    outputs["synthetic"].mkdir(parents=True)
    repeated = 0
    seen: set[str] = set()
    with CohortWriter(outputs["synthetic"], f"{name}-lesion-maps") as writer:
        starts = range(0, len(grades), BATCH)
        for start in track(starts, "draw_lesion_maps", unit="batch"):
            some = grades[start : start + BATCH]
            seeds = [params.seed * 1_000_000 + start + number for number in range(len(some))]
            drawn = pipeline.draw(some, seeds, params.truncation)
            for grade, seed, classes, image in zip(
                some, seeds, drawn, pipeline.render(drawn, seeds, spread=params.spread), strict=True
            ):
                row = _row(grade, seed, classes, image, generator)
                repeated += row["image_id"] in seen
                if row["image_id"] not in seen:
                    seen.add(row["image_id"])
                    writer.add(row)
    return {"kept": len(seen), "repeated": repeated}


def _in_turn(per_grade: tuple[int, ...]) -> Iterator[int]:
    """Grades in turn, so that a part of the cohort is as mixed as all of it."""
    for turn in range(max(per_grade)):
        yield from (grade for grade, wanted in enumerate(per_grade) if turn < wanted)


def _row(grade: int, seed: int, classes: np.ndarray, image: np.ndarray, generator: str) -> dict[str, Any]:
    # Without loss: a JPEG's blocks, which smaller copies of real photographs do not have, would be judged with it.
    picture = encode_png(image)
    digest = hashlib.sha256(picture).hexdigest()
    truth = {
        name: {"bytes": encode_png(array), "path": f"{name}.png"} for name, array in maps.to_cohort(classes).items()
    }
    return {
        "image_id": digest[:16],
        "patient_id": f"synthetic-{seed:07d}",
        "dr_grade": grade,
        "labels": json.dumps({"cell": f"grade_{grade}"}),
        "quality": assess_quality(image, coverage=1.0).score,
        "split": "train",
        "source": "synthetic",
        "licence": "synthetic; the terms of the training data apply",
        "width": image.shape[1],
        "height": image.shape[0],
        "sha256": digest,
        "image": {"bytes": picture, "path": f"{digest[:16]}.png"},
        "generator": generator,
        "prompt": f"ICDR grade {grade}",
        "seed": seed,
        **truth,
    }
