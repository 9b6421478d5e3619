"""Pre-trains on cubes without labels, and tells a biomarker of real test cubes from few labels."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components.step import Metrics, Paths
from components.use_cubes.step import UseCubesParams
from retinalogos.classifiers.cube_pretraining import (
    BOTH,
    CONTRASTS,
    NONE,
    REAL,
    SOURCES,
    SYNTHETIC,
    contrasts,
    gain,
    local_contrasts,
    mean_auc,
    scores,
)
from retinalogos.cohort.cubes import Cube
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.masked_autoencoder import MaskedAutoencoderConfig, pretrained
from retinalogos.metrics.intervals import Estimate, bootstrap
from retinalogos.metrics.results import write_results

RESULTS = "results.json"


def run(params: UseCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        DataError: a label is neither true nor false, or one class is missing.
    """
    cohort = Cohort(inputs["cohort"])
    real, labels, _ = _read(cohort, "train", params)
    judged, truth, patients = _read(cohort, "test", params)
    known = np.flatnonzero(labels >= 0)
    if not len(known) and not (truth >= 0).any():
        # Real cubes may have no labels at all; what they are good for cannot be told then.
        print(f"use_cubes: no cube has the label {params.label!r}, so nothing is told apart", flush=True)
        write_results(outputs["use"] / RESULTS, {})
        return {"labelled": 0, "judged": 0}
    judged, patients, truth = judged[truth >= 0], patients[truth >= 0], truth[truth >= 0]
    for split, found in (("train", labels[known]), ("test", truth)):
        if len(np.unique(found)) < 2:
            raise DataError(
                f"{cohort.folder}: the labelled cubes of split {split!r} all have the same {params.label!r}, or there "
                "are none: ingest more"
            )
    synthetic = np.stack([cube.values for _, cube in _first(Cohort(inputs["synthetic"]), "train", params.most)])
    of_real, of_judged = local_contrasts(real), local_contrasts(judged)
    told = contrasts(of_real[known]), contrasts(of_judged)
    if params.view == "contrasts":
        real, judged, synthetic = of_real, of_judged, local_contrasts(synthetic)
    config = MaskedAutoencoderConfig(**params.network.model_dump())
    cubes = {NONE: None, REAL: real, SYNTHETIC: synthetic, BOTH: np.concatenate([real, synthetic])}
    shuffled = [np.random.default_rng(seed).permutation(len(known))[: params.labelled] for seed in params.seeds]
    few: dict[str, np.ndarray] = {}
    every: dict[str, np.ndarray] = {}

    def tell(arm: str, features: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Scores from the features of labelled and of judged cubes, of each seed."""
        by_few, by_every = [], []
        for chosen, (shown, asked) in zip(shuffled, features, strict=True):
            by_few.append(scores(shown[chosen], labels[known][chosen], asked))
            by_every.append(scores(shown, labels[known], asked))
        few[arm], every[arm] = np.stack(by_few, 1), np.stack(by_every, 1)

    tell(CONTRASTS, [told] * len(params.seeds))
    with tempfile.TemporaryDirectory() as scratch:
        for source in SOURCES:
            models = (
                pretrained(
                    real, cubes[source], config, params.training, seed, Path(scratch) / f"{source}-{seed}", "use_cubes"
                )
                for seed in params.seeds
            )
            tell(source, ((model.features(real[known]), model.features(judged)) for model in models))
    metrics: dict[str, float | int | None] = {"labelled": min(params.labelled, len(known)), "judged": len(judged)}
    written: dict[str, dict[str, Estimate]] = {}
    for arm in few:
        own = {"auc": few[arm], "auc_every_label": every[arm]}
        written[arm] = {
            name: bootstrap(mean_auc, truth, by_seed, resamples=params.resamples, seed=0, groups=patients)
            for name, by_seed in own.items()
        }
        if arm != NONE:
            written[arm]["gain"] = gain(truth, few[arm], few[NONE], params.resamples, 0, patients)
        for name, value in written[arm].items():
            metrics |= {f"{name}_{arm}": value.value}
            metrics |= {f"{name}_{arm}_low": value.low, f"{name}_{arm}_high": value.high}
    write_results(outputs["use"] / RESULTS, written)
    return metrics


def _first(cohort: Cohort, split: str, most: int) -> Iterator[tuple[dict[str, Any], Cube]]:
    return islice(cohort.cubes(("labels", "patient_id"), split), most)


def _read(cohort: Cohort, split: str, params: UseCubesParams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cubes, uint16 n×bands×size×size; labels, n: 1, 0, or -1 where a cube has none; and patients, n."""
    cubes, labels, patients = [], [], []
    for row, cube in _first(cohort, split, params.most):
        found = json.loads(row["labels"] or "{}").get(params.label)
        if not (found is None or isinstance(found, bool)):
            raise DataError(f"{cohort.folder}: cube {row['image_id']}: its label {params.label!r} is not true or false")
        cubes.append(cube.values)
        labels.append(-1 if found is None else int(found))
        patients.append(row["patient_id"])
    return np.stack(cubes), np.array(labels), np.array(patients)
