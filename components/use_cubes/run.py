"""Pre-trains on cubes without labels, and tells a biomarker of real test cubes from few labels."""

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from components.step import Metrics, Paths
from components.use_cubes.step import UseCubesParams
from retinalogos.classifiers.cube_pretraining import (
    BOTH,
    NONE,
    REAL,
    SOURCES,
    SYNTHETIC,
    gain,
    mean_auc,
    scores,
)
from retinalogos.cohort.cubes import Cube
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.masked_autoencoder import MaskedAutoencoderConfig, pretrained
from retinalogos.metrics.intervals import bootstrap


def run(params: UseCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        DataError: a real cube has no such label, or one class is missing.
    """
    real, labels = _labelled(Cohort(inputs["cohort"]), "train", params)
    judged, truth = _labelled(Cohort(inputs["cohort"]), "test", params)
    synthetic = np.stack([cube.values for _, cube in _first(Cohort(inputs["synthetic"]), "train", params.most)])
    config = MaskedAutoencoderConfig(**params.network.model_dump())
    cubes = {NONE: None, REAL: real, SYNTHETIC: synthetic, BOTH: np.concatenate([real, synthetic])}
    by_seed: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for source in SOURCES:
            columns = []
            for seed in params.seeds:
                folder = Path(scratch) / f"{source}-{seed}"
                model = pretrained(real, cubes[source], config, params.training, seed, folder, "use_cubes")
                chosen = np.random.default_rng(seed).permutation(len(real))[: params.labelled]
                columns.append(scores(model, real[chosen], labels[chosen], judged))
            by_seed[source] = np.stack(columns, 1)
    metrics: dict[str, float | int | None] = {"labelled": min(params.labelled, len(real)), "judged": len(judged)}
    written = {}
    for source in SOURCES:
        area = bootstrap(mean_auc, truth, by_seed[source], resamples=params.resamples, seed=0)
        found = {"auc": area}
        if source != NONE:
            found["gain"] = gain(truth, by_seed[source], by_seed[NONE], params.resamples, 0)
        written[source] = {name: value.as_json() for name, value in found.items()}
        for name, value in found.items():
            metrics |= {f"{name}_{source}": value.value}
            metrics |= {f"{name}_{source}_low": value.low, f"{name}_{source}_high": value.high}
    outputs["use"].mkdir(parents=True)
    (outputs["use"] / "use.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    return metrics


def _first(cohort: Cohort, split: str, most: int) -> Iterator[tuple[dict[str, Any], Cube]]:
    return islice(cohort.cubes(("labels",), split), most)


def _labelled(cohort: Cohort, split: str, params: UseCubesParams) -> tuple[np.ndarray, np.ndarray]:
    """Cubes, uint16 n×bands×size×size, and labels, n."""
    cubes, labels = [], []
    for row, cube in _first(cohort, split, params.most):
        found = json.loads(row["labels"] or "{}").get(params.label)
        if not isinstance(found, bool):
            raise DataError(f"{cohort.folder}: cube {row['image_id']}: its label {params.label!r} is not true or false")
        cubes.append(cube.values)
        labels.append(found)
    if len(set(labels)) < 2:
        raise DataError(f"{cohort.folder}: in split {split!r} all cubes have the same {params.label!r}: ingest more")
    return np.stack(cubes), np.array(labels)
