"""Vessels, lesions, disc and cup of synthetic images, seen by a segmenter of the real ones."""

from typing import Any

import numpy as np

from components.assess.step import AssessParams
from retinalogos.classifiers.experiment import FINDING
from retinalogos.cohort.schema import EYES
from retinalogos.cohort.shards import Cohort
from retinalogos.metrics import control
from retinalogos.metrics.observation import Asked, image_batches, read_labels
from retinalogos.progress import track
from retinalogos.segmenters import overlap
from retinalogos.segmenters.reading import Seen, joined, read_structures
from retinalogos.segmenters.segmenter import Segmenter, fit_segmenter
from retinalogos.segmenters.structures import STRUCTURES, read_annotated


def segmented(params: AssessParams, real: Cohort, synthetic: Cohort) -> dict[str, Any]:
    """Figures of synthetic and of real test images; none where too few real training images have maps.

    ``structures``: of each Dice, intersection and areas under the curves against the map of the image, where it has
    one, ``area`` its mean share of the picture, and of a lesion ``finding_auc``, its area against the finding that was
    asked for or recorded; ``disc_side``, ``vcdr_error`` and ``vcdr_correlation`` as measurement has them.
    """
    train, validation = (read_annotated(real, split, params.segmenter.size) for split in ("train", "validation"))
    structures = [name for name in STRUCTURES if train.targets.shown(name).sum() >= params.structure_images]
    if not structures:
        return {}
    segmenter = fit_segmenter(
        train.eyes.images,
        train.targets,
        structures,
        params.segmenter,
        params.seed,
        (validation.eyes.images, validation.targets) if len(validation) else None,
    )
    return {
        name: _figures(params, segmenter, cohort, split)
        for name, cohort, split in (("synthetic", synthetic, None), ("real", real, "test"))
    }


def _figures(params: AssessParams, segmenter: Segmenter, cohort: Cohort, split: str | None) -> dict[str, Any]:
    asked = read_labels(cohort, split)
    batches = track(
        image_batches(cohort, split, params.segmenter.size), f"segment {split or 'synthetic'}", unit="batch"
    )
    seen = joined([read_structures(segmenter, images) for images in batches])
    resampling: dict[str, Any] = {"resamples": params.resamples, "seed": params.seed}
    patients = asked.patients
    found: dict[str, dict[str, Any]] = {}
    for structure, areas in seen.areas.items():
        found[structure] = {"area": control.of_known(np.mean, areas, **resampling, patients=patients)}
        finding = asked.codes.get(FINDING + structure)
        if finding is not None and len(set(finding.tolist()) - {-1}) > 1:
            known = finding >= 0
            found[structure]["finding_auc"] = control.auc(
                finding[known] == 1, areas[known], **resampling, patients=patients[known]
            )
    truth = read_annotated(cohort, split, params.segmenter.size)
    if len(truth):
        counts = overlap.count(segmenter.predict(truth.eyes.images), segmenter.structures, truth.targets)
        for structure, of_structure in counts.items():
            if truth.targets.shown(structure).any():
                found[structure] |= overlap.estimates(
                    of_structure, truth.eyes.patient_id, params.resamples, params.seed
                )
    return {"structures": found, **_disc(asked, seen, resampling)}


def _disc(asked: Asked, seen: Seen, resampling: dict[str, Any]) -> dict[str, Any]:
    if "disc" not in seen.areas:
        return {}
    known = asked.codes["eye"] >= 0
    left, right = EYES.index("left"), EYES.index("right")
    # A disc that is not found is on no side.
    side = np.where(np.isnan(seen.disc_x), -1, np.where(seen.disc_x < 0.5, left, right))
    patients = asked.patients
    figures = {
        "disc_side": control.agreement(asked.codes["eye"][known], side[known], **resampling, patients=patients[known])
    }
    if "cup" in seen.areas:
        resampling = resampling | {"patients": patients}
        figures["vcdr_error"] = control.mean_absolute_error(asked.vcdr, seen.vcdr, **resampling)
        figures["vcdr_correlation"] = control.correlation(asked.vcdr, seen.vcdr, **resampling)
    return figures
