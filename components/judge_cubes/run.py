"""Judges synthetic cubes against real ones, each figure beside its real-to-real floor."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.judge_cubes.figures import draw_figures
from components.judge_cubes.step import JudgeCubesParams
from components.step import Metrics, Paths
from retinalogos.classifiers.structures import (
    STRUCTURES,
    StructureFinder,
    structure_maps,
    train_finder,
)
from retinalogos.cohort.cubes import FULL_SCALE
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.metrics.cubes import Compared, CubeFeatures, CubeSets, RandomCubeFeatures
from retinalogos.metrics.intervals import Estimate, bootstrap
from retinalogos.metrics.overlap import dice
from retinalogos.metrics.realism import frechet_distance
from retinalogos.metrics.results import write_results
from retinalogos.metrics.spectral import field_angle

RESULTS = "results.json"
_ENCODED = 8
# Random networks whose distances of rebuilt cubes are averaged. Which of two autoencoders is the nearer hangs on the
# draw: measured in three trainings, one or two of eight said the opposite of the rest (docs/hyperspectral.md).
_NETWORKS = 8


def run(params: JudgeCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        DataError: real and synthetic cubes have other wavelengths, or too few are held out.
    """
    cohort, synthetic = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    if not np.allclose(cohort.wavelengths, synthetic.wavelengths, atol=0.1):
        raise DataError(f"{inputs['synthetic']} has other wavelengths than {inputs['cohort']}")
    work = Path(params.checkpoints)
    unpacked = {split: CubeFile(cohort, split, work) for split in ("train", "validation", "test")}
    held = np.concatenate([unpacked[split].values[: params.most] for split in ("test", "validation")])[: params.most]
    drawn = CubeFile(synthetic, "train", work)
    if held.shape[1:] != drawn.values.shape[1:]:
        raise DataError(f"synthetic cubes are {drawn.values.shape[1:]}, real ones {held.shape[1:]}")
    # As many of each: a Fréchet distance depends on the number of images.
    count = min(len(held), len(drawn.values))
    train = unpacked["train"].values
    reference = np.asarray(train[:: max(1, len(train) // params.most)][: params.most])
    held, fake = held[:count], np.asarray(drawn.values[:count])
    if count < 2:
        raise DataError("fewer than two real cubes are held out: raise ingest_cubes.n, or the shares of the splits")

    judgement = outputs["judgement"]
    judgement.mkdir(parents=True)
    metrics: dict[str, float | int | None] = {"compared": count}
    finder, quality = _finder(params, cohort, unpacked, work, judgement)
    metrics |= quality
    classes = [finder.classes(cubes) for cubes in (reference, held, fake)] if finder else [None] * 3
    sets = CubeSets(reference, held, fake, cohort.wavelengths, params.resamples, params.seed, *classes)

    found: dict[str, Compared] = {}
    for space in _spaces(params, finder, reference):
        found[f"fid_{space.name}"] = sets.frechet(space)
    found["ms_ssim_gap"] = sets.similarity(params.pairs)
    found["authentic"] = sets.authenticity(params.side)
    found["band_correlation_gap"] = sets.correlation()
    if finder is not None:
        for name, structure in STRUCTURES.items():
            found[f"divergence_{name}"] = sets.divergence(structure, params.bins)
            found[f"angle_{name}"] = sets.angle(structure)
        for name in ("arteries", "veins"):
            found[f"saturation_{name}"] = sets.oxygen(STRUCTURES[name])
    results: dict[str, Any] = {name: {"synthetic": pair.synthetic, "real": pair.floor} for name, pair in found.items()}
    for name, pair in found.items():
        metrics |= {
            name: pair.synthetic.value,
            f"{name}_low": pair.synthetic.low,
            f"{name}_high": pair.synthetic.high,
            f"{name}_real": pair.floor.value,
        }
    networks = [RandomCubeFeatures(reference, params.seed + n) for n in range(_NETWORKS)]
    real = _features(networks, held)
    rebuilt = {
        port: _rebuilt(CubeAutoencoder.from_pretrained(str(inputs[port])).eval(), held, networks)
        for port in ("autoencoder", "baseline")
        if port in inputs
    }
    for port, of in rebuilt.items():
        distances = _distances(real, of.features)
        told = {"psnr": float(of.psnr.mean()), "spectral_angle": of.angle, "frechet": float(distances.mean())}
        metrics |= {f"{port}_{name}": value for name, value in told.items()}
        results[port] = told | {"frechet_by_network": distances.tolist()}
    if "baseline" in rebuilt:
        results["against_baseline"] = _difference(real, rebuilt["autoencoder"], rebuilt["baseline"], params)
        for name, value in results["against_baseline"].items():
            metrics |= {f"against_baseline_{name}": value.value}
            metrics |= {f"against_baseline_{name}_low": value.low, f"against_baseline_{name}_high": value.high}
    results["pictures"] = draw_figures(judgement, params.figures, sets, synthetic)
    write_results(judgement / RESULTS, results)
    drawn.remove()
    return metrics


def _finder(
    params: JudgeCubesParams, cohort: Cohort, unpacked: dict[str, CubeFile], work: Path, judgement: Path
) -> tuple[StructureFinder | None, dict[str, float | int | None]]:
    """The network that finds structures, and its Dice on test cubes; None where the cohort has no truth maps."""
    maps = {split: structure_maps(cohort, split) for split in unpacked}
    train, validation, test = (maps[split] for split in ("train", "validation", "test"))
    if train is None or validation is None or test is None:
        if params.features == ["structures"]:
            raise UsageError("judge_cubes.features: 'structures' needs truth maps, which this cohort has not")
        return None, {}
    # Trained once for all synthetic cohorts that are held against this one: its checkpoints stay.
    settings = f"{cohort.meta['content_sha256']} {params.seed} {params.structures.model_dump_json()}"
    key = hashlib.sha256(settings.encode()).hexdigest()[:16]
    finder = train_finder(
        unpacked["train"].values,
        train,
        np.asarray(unpacked["validation"].values[: params.most]),
        validation[: params.most],
        params.structures.width,
        params.structures,
        params.seed,
        judgement / "structures",
        work / f"structures-{key}",
    )
    seen, truth = finder.classes(np.asarray(unpacked["test"].values[: params.most])), test[: params.most]
    return finder, {f"dice_{name}": dice(seen == value, truth == value) for name, value in STRUCTURES.items()}


def _spaces(params: JudgeCubesParams, finder: StructureFinder | None, reference: np.ndarray) -> list[CubeFeatures]:
    spaces: list[CubeFeatures] = []
    for name in params.features:
        if name == "random_conv":
            spaces.append(RandomCubeFeatures(reference, params.seed))
        elif finder is not None:
            spaces.append(finder)
    return spaces


@dataclass(frozen=True)
class _Rebuilt:
    """Held-out cubes as an autoencoder rebuilds them: by cube signal-to-noise ratio, dB, and features, angle of all.

    Features are n × networks × d.
    """

    psnr: np.ndarray
    angle: float
    features: np.ndarray


def _features(networks: Sequence[CubeFeatures], values: np.ndarray) -> np.ndarray:
    return np.stack([network.features(values) for network in networks], 1)


def _distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Fréchet distance in each network."""
    return np.array([frechet_distance(*both) for both in zip(one.swapaxes(0, 1), other.swapaxes(0, 1), strict=True)])


@torch.inference_mode()
def _rebuilt(model: CubeAutoencoder, held: np.ndarray, networks: Sequence[CubeFeatures]) -> _Rebuilt:
    rebuilt = np.concatenate(
        [
            model.from_model(model.decode(model.quantise(model.encode(model.to_model(held[i : i + _ENCODED])))[0]))
            for i in range(0, len(held), _ENCODED)
        ]
    )
    one, other = (np.moveaxis(x, 1, -1) / FULL_SCALE for x in (held, rebuilt))
    error = np.mean(np.square((one - other) / np.array(model.config.scale)), (1, 2, 3))
    return _Rebuilt(-10 * np.log10(np.maximum(error, 1e-12)), field_angle(one, other), _features(networks, rebuilt))


def _difference(real: np.ndarray, ours: _Rebuilt, theirs: _Rebuilt, params: JudgeCubesParams) -> dict[str, Estimate]:
    """What the VQ-GAN has above the baseline on the same cubes: signal-to-noise ratio, Fréchet distance."""
    how: dict[str, Any] = {"resamples": params.resamples, "seed": params.seed}
    return {
        "psnr": bootstrap(np.mean, ours.psnr - theirs.psnr, **how),
        "frechet": bootstrap(
            lambda held, one, other: float(np.mean(_distances(held, one) - _distances(held, other))),
            real,
            ours.features,
            theirs.features,
            **how,
        ),
    }
