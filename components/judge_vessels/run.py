"""Judges drawn eyes: anatomy, agreement of mask and photograph, realism; each beside what real eyes score."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from components.judge_vessels import figures
from components.judge_vessels.step import JudgeVesselsParams
from components.step import Metrics, Paths
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.vessel_map.agreement import of_eyes, summary
from retinalogos.generators.vessel_map.cascade import load_part, painted_by_prior
from retinalogos.generators.vessel_map.examples import Examples, read_examples
from retinalogos.generators.vessel_map.judgement import anatomy, compare
from retinalogos.generators.vessel_map.loaders import load_segmenter
from retinalogos.generators.vessel_map.segmenter import Segmenter
from retinalogos.metrics.features import FeatureSpace, feature_space
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.realism import frechet_with_interval, kernel_with_interval
from retinalogos.metrics.results import flat, write_results


def run(params: JudgeVesselsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    real, synthetic = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    segmenter = load_segmenter(str(inputs["segmenter"]))
    spaces = [feature_space(name, params.seed) for name in params.feature_spaces]
    with tempfile.TemporaryDirectory() as scratch:
        train, test = (read_examples(real, split, params.size, Path(scratch) / split) for split in ("train", "test"))
        # An empty map that was drawn is judged too.
        drawn = read_examples(synthetic, None, params.size, Path(scratch) / "drawn", lambda _: True)
        if len(test) < 2 or len(train) < 2 or len(drawn) < 2:
            raise DataError(
                f"{inputs['cohort']} has {len(train)} training and {len(test)} test eyes with artery and vein maps, "
                f"{inputs['synthetic']} {len(drawn)} eyes: judging needs two of each"
            )
        # As many further real eyes as test eyes: the floor of a distance depends on the size of the sample.
        further = train.take(np.arange(min(len(train), len(test))))
        # Maps too are measured at the size at which the segmenter looks. It has seen training eyes: they serve for the
        # floor alone.
        seen = {
            "real": read_examples(real, "test", segmenter.size, Path(scratch) / "test-seen"),
            "synthetic": read_examples(synthetic, None, segmenter.size, Path(scratch) / "drawn-seen", lambda _: True),
            "further": read_examples(real, "train", segmenter.size, Path(scratch) / "train-seen").take(
                np.arange(len(further))
            ),
        }
        results: dict[str, Any] = {
            "eyes": {"train": len(train), "test": len(test), "synthetic": len(drawn)},
            "masks": _compared(seen, None, params),
            "photographs": _compared(seen, segmenter, params),
            "consistency": {name: _agreement(segmenter, seen[name], params) for name in ("real", "synthetic")},
        }
        n = min(len(test), len(drawn), len(further))
        others = {"synthetic": Sample(drawn.images, drawn.patients), "floor": Sample(further.images, further.patients)}
        if (closed_form := painted_by_prior(load_part(inputs["paint"], "paint"), drawn.maps[:n])) is not None:
            sides = (params.size, params.size)
            small = [cv2.resize(image, sides, interpolation=cv2.INTER_AREA) for image in closed_form]
            others["closed_form"] = Sample(np.stack(small), drawn.patients)
        for name, folder in params.baselines.items():
            if name in others:
                raise UsageError(f"judge_vessels.baselines: the name {name} is taken")
            eyes = read_examples(
                Cohort(Path(folder)), None, params.size, Path(scratch) / f"baseline-{name}", lambda _: True
            )
            others[name] = Sample(eyes.images, eyes.patients)
        results["realism"] = {
            space.name: _realism(space, Sample(test.images, test.patients), others, n, params) for space in spaces
        }
    write_results(outputs["judgement"] / "results.json", results)
    figures.intervals(outputs["judgement"] / "anatomy.png", results["masks"])
    return flat({name: results[name] for name in ("consistency", "realism")})


class Sample(NamedTuple):
    """Photographs n×h×w×3, and the patient of each."""

    images: np.ndarray
    patients: list[str]


def _compared(
    seen: Mapping[str, Examples], segmenter: Segmenter | None, params: JudgeVesselsParams
) -> dict[str, dict[str, Any]]:
    """Anatomy of the maps, or of what the segmenter finds in the photographs."""
    real, synthetic, further = (anatomy(seen[name], segmenter) for name in ("real", "synthetic", "further"))
    return compare(real, synthetic, further, params.resamples, params.seed)


def _agreement(segmenter: Segmenter, eyes: Examples, params: JudgeVesselsParams) -> dict[str, Estimate]:
    return summary(of_eyes(segmenter, eyes), eyes.patients, params.resamples, params.seed)


def _realism(
    space: FeatureSpace, test: Sample, others: Mapping[str, Sample], n: int, params: JudgeVesselsParams
) -> dict[str, Any]:
    """Distances of test eyes to as many (``n``) drawn eyes, further real ones, and eyes of other generators."""
    real = space.features(np.asarray(test.images))
    found = {}
    for name, sample in others.items():
        other = space.features(np.asarray(sample.images[:n]))
        patients = np.array(test.patients), np.array(sample.patients[:n])
        found[name] = {
            "frechet": frechet_with_interval(real, other, params.distance_resamples, params.seed, patients=patients),
            "kernel": kernel_with_interval(real, other, params.resamples, params.seed, patients=patients),
        }
    return found
