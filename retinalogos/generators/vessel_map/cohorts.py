"""Cohorts with the vessels that a segmenter finds, and cohorts of drawn eyes."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from retinalogos.cohort.quality import assess_quality
from retinalogos.cohort.shards import Cohort, CohortWriter, decode_image, decode_map, encode_jpeg, encode_png
from retinalogos.generators.text.latents import mirrored_words
from retinalogos.generators.vessel_map.captions import write
from retinalogos.generators.vessel_map.cascade import Drawn, Wish
from retinalogos.generators.vessel_map.configuration import TextConfig
from retinalogos.generators.vessel_map.examples import LANDMARKS, SIDES, landmarks
from retinalogos.generators.vessel_map.maps import resize_map, tells_kinds, to_classes
from retinalogos.generators.vessel_map.segmenter import Segmenter, found

# Standard deviation by which disc and fovea of a drawn eye lie beside those of the training eye, shares of the side.
_MOVED = 0.01


def label(cohort: Cohort, segmenter: Segmenter, folder: Path) -> dict[str, int]:
    """Writes the cohort again, with maps from the segmenter where its own do not tell arteries from veins.

    A vessel that the source's map shows is kept, and gets the likelier kind; elsewhere nothing is added. Where there is
    no map, the segmenter's stands in its place.
    """
    counts = {"kept": 0, "kinds_told": 0, "labelled": 0, "nothing_found": 0}
    with CohortWriter(folder, cohort.meta["name"]) as writer:
        for row in cohort.rows():
            classes = decode_map(row["vessels"]["bytes"]) if row["vessels"] else None
            if classes is not None and tells_kinds(classes):
                counts["kept"] += 1
            else:
                image = decode_image(row["image"]["bytes"], segmenter.size)
                probabilities = segmenter.probabilities(image[None])[0]
                side = row["width"]
                if classes is not None and classes.any():
                    likelier = resize_map(1 + np.argmax(probabilities, 0).astype(np.uint8), side)
                    new = np.where(classes > 0, likelier, 0).astype(np.uint8)
                    counts["kinds_told"] += 1
                else:
                    new = resize_map(to_classes(found(probabilities[None])[0]), side)
                    counts["labelled"] += 1
                counts["nothing_found"] += not new.any()
                row["vessels"] = {"bytes": encode_png(new), "path": f"{row['image_id']}-vessels.png"}
            writer.add(row)
    return counts


def write_drawn(
    drawn: Iterable[tuple[Wish, Drawn]], folder: Path, name: str, generator: str, large: bool
) -> list[dict[str, Any]]:
    """Writes drawn eyes as a synthetic cohort and returns what was asked of each.

    Args:
        drawn: eyes as they come; one in memory at a time.
        folder: of the cohort.
        name: of the cohort.
        generator: name and content hash of the models.
        large: enlarged pictures with their maps enlarged too, else pictures of the painter's size.
    """
    asked = []
    with CohortWriter(folder, name) as writer:
        for number, (wish, eye) in enumerate(drawn):
            image = eye.enlarged if large else eye.image
            classes = resize_map(eye.classes, image.shape[0])
            picture = encode_jpeg(image)
            digest = hashlib.sha256(picture).hexdigest()
            values = [*wish.marks.ravel(), wish.diameter]
            wished = {
                name: None if value != value else round(float(value), 4)
                for name, value in zip(LANDMARKS, values, strict=True)
            }
            writer.add(
                {
                    "image_id": digest[:16],
                    "patient_id": f"synthetic-{number:07d}",
                    "eye": SIDES[wish.side],
                    "labels": json.dumps(wished),
                    "quality": assess_quality(image, coverage=1.0).score,
                    "split": "train",
                    "source": "synthetic",
                    "licence": "synthetic; the terms of the training data apply",
                    "width": image.shape[1],
                    "height": image.shape[0],
                    "sha256": digest,
                    "image": {"bytes": picture, "path": f"{digest[:16]}.jpg"},
                    "vessels": {"bytes": encode_png(classes), "path": f"{digest[:16]}-vessels.png"},
                    "generator": generator,
                    "prompt": wish.caption or f"{SIDES[wish.side] or 'either'} eye",
                    "seed": wish.seed,
                }
            )
            asked.append({"image_id": digest[:16], "seed": wish.seed, **wished})
    return asked


def wishes(cohort: Cohort, n: int, seed: int, text: TextConfig | None) -> list[Wish]:
    """What to draw: disc, fovea, side and caption of training eyes drawn by lot, mirrored by lot.

    A position is moved by about a hundredth of the side, so that no eye is asked for again.

    Args:
        cohort: of real eyes.
        n: how many.
        seed: of the lots, and of the eyes' own seeds.
        text: of the painter; None for one without captions.
    """
    rng = np.random.default_rng([seed, 4])
    columns = ("eye", "truth", "disc_cup", "labels", "source")
    known = [(SIDES.index(row["eye"]), *landmarks(row)) for row in cohort.rows(columns, "train")]
    captions = None if text is None else write(cohort.table(split="train").to_pylist(), text, seed)
    found = []
    for number in range(n):
        chosen = int(rng.integers(len(known)))
        side, marks, diameter = known[chosen]
        marks = marks + rng.normal(0, _MOVED, (2, 2))
        caption = None if captions is None else captions[chosen][-1]
        if rng.random() < 0.5:
            marks[:, 0] = 1 - marks[:, 0]
            side = len(SIDES) - side if side else 0
            caption = caption and mirrored_words(caption)
        found.append(Wish(seed * 1_000_000 + number, side, marks, caption, diameter))
    return found
