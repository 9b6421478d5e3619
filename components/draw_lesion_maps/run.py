"""Puts the two networks together and makes the synthetic cohort: maps of every grade and their photographs.

Without a layout network the maps are those of training eyes, half of them mirrored, in drawn styles.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from components.draw_lesion_maps.step import DrawLesionMapsParams
from components.step import Metrics, Paths
from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.examples import read_real
from retinalogos.generators.lesion_map.pipeline import BATCH, LesionMapPipeline, load_layout, load_render
from retinalogos.progress import track
from retinalogos.provenance import generator_hash


def run(params: DrawLesionMapsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        UsageError: no eye is wanted.
        DataError: there is no layout network, and no training eye has a whole map.
    """
    cohort = Cohort(inputs["cohort"])
    pipeline = LesionMapPipeline(load_layout(inputs["layout"]), load_render(inputs["render"]))
    grades = list(_in_turn(params.per_grade))
    if not grades:
        raise UsageError("draw_lesion_maps.per_grade is 0 for every grade: ask for some eyes")
    pipeline.save_pretrained(outputs["generator"])
    generator = f"{type(pipeline).__name__}:{generator_hash(outputs['generator'])[:16]}"
    outputs["synthetic"].mkdir(parents=True)
    repeated = 0
    seen: set[str] = set()
    seeds = [params.seed * 1_000_000 + number for number in range(len(grades))]
    # Whose map it is: one patient each of drawn maps, and of training maps one for each of theirs.
    told, people, real = list[int | None](grades), seeds, None
    if pipeline.layout is None:
        real, people = _taken(cohort, pipeline.size, len(grades), params.seed)
        told = [None] * len(grades)
    with CohortWriter(outputs["synthetic"], f"{cohort.meta['name']}-lesion-maps") as writer:
        starts = range(0, len(grades), BATCH)
        for start in track(starts, "draw_lesion_maps", unit="batch"):
            part = slice(start, start + BATCH)
            drawn = pipeline.draw(grades[part], seeds[part], params.truncation) if real is None else real[part]
            images = pipeline.render(drawn, seeds[part], spread=params.spread)
            for each in zip(told[part], people[part], seeds[part], drawn, images, strict=True):
                row = _row(*each, generator)
                repeated += row["image_id"] in seen
                if row["image_id"] not in seen:
                    seen.add(row["image_id"])
                    writer.add(row)
    return {"kept": len(seen), "repeated": repeated}


def _in_turn(per_grade: tuple[int, ...]) -> Iterator[int]:
    """Grades in turn, so that a part of the cohort is as mixed as all of it."""
    for turn in range(max(per_grade)):
        yield from (grade for grade, wanted in enumerate(per_grade) if turn < wanted)


def _taken(cohort: Cohort, size: int, n: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Maps of training eyes in turn, half of them mirrored, and the number of each eye's patient."""
    (training,) = read_real(cohort, size)
    whole, rng = training.whole(), np.random.default_rng(seed)
    if not len(whole):
        raise DataError(f"{cohort.folder}: no training eye has a map with every class known; render maps by hand")
    order = np.concatenate([rng.permutation(len(whole)) for _ in range(-(-n // len(whole)))])[:n]
    mirrored = (rng.random(n) < 0.5)[:, None, None]
    classes = whole.classes[order]
    people = np.unique(whole.patients.astype(str), return_inverse=True)[1]
    return np.where(mirrored, classes[:, :, ::-1], classes), people[order].tolist()


def _row(
    grade: int | None, person: int, seed: int, classes: np.ndarray, image: np.ndarray, generator: str
) -> dict[str, Any]:
    # Without loss: a JPEG's blocks, which smaller copies of real photographs do not have, would be judged with it.
    picture = encode_png(image)
    digest = hashlib.sha256(picture).hexdigest()
    truth = {
        name: {"bytes": encode_png(array), "path": f"{name}.png"} for name, array in maps.to_cohort(classes).items()
    }
    return {
        "image_id": digest[:16],
        "patient_id": f"synthetic-{person:07d}",
        "dr_grade": grade,
        "labels": json.dumps({"cell": "real_map" if grade is None else f"grade_{grade}"}),
        "quality": assess_quality(image, coverage=1.0).score,
        "split": "train",
        "source": "synthetic",
        "licence": "synthetic; the terms of the training data apply",
        "width": image.shape[1],
        "height": image.shape[0],
        "sha256": digest,
        "image": {"bytes": picture, "path": f"{digest[:16]}.png"},
        "generator": generator,
        "prompt": "lesion map of a training eye" if grade is None else f"ICDR grade {grade}",
        "seed": seed,
        **truth,
    }
