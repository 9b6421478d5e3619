"""Drawn vessel maps and photographs beside real ones: anatomy, agreement of map and photograph, and use in training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import wasserstein_distance

from retinalogos.generators.vessel_map.agreement import mean, of_eyes, summary
from retinalogos.generators.vessel_map.configuration import SegmenterConfig
from retinalogos.generators.vessel_map.examples import Examples, joined
from retinalogos.generators.vessel_map.maps import to_channels
from retinalogos.generators.vessel_map.segmenter import Segmenter, fit, found, predictions
from retinalogos.metrics.intervals import bootstrap, centred_bootstrap, undefined
from retinalogos.metrics.vessels.anatomy import measure
from retinalogos.progress import track
from retinalogos.training.configuration import TrainingConfig

REAL, SYNTHETIC_ONLY = "real", "synthetic"


class Measured(NamedTuple):
    """Figures of eyes, and the patient of each."""

    rows: list[dict[str, float]]
    patients: list[str]


def anatomy(eyes: Examples, segmenter: Segmenter | None = None) -> Measured:
    """Figures of :func:`~retinalogos.metrics.vessels.anatomy.measure` of each eye.

    Args:
        eyes: with maps, and disc and fovea where known.
        segmenter: whose finding on the photographs is measured, in place of the maps.
    """
    size = eyes.maps.shape[1]
    maps = (
        ((i, to_channels(eyes.maps[i])) for i in range(len(eyes)))
        if segmenter is None
        else ((i, found(probabilities)) for i, probabilities in predictions(segmenter, eyes))
    )
    rows = []
    for i, channels in track(maps, "anatomy", total=len(eyes), unit="eye"):
        (disc_x, disc_y), (fovea_x, fovea_y) = (eyes.marks[i] * size).tolist()
        diameter = float(eyes.diameters[i]) * size
        disc = (disc_y, disc_x, diameter) if disc_x == disc_x and diameter == diameter else None
        fovea = (fovea_y, fovea_x) if fovea_x == fovea_x else None
        rows.append(measure(channels & eyes.fields[i], np.asarray(eyes.fields[i]), disc, fovea))
    return Measured(rows, eyes.patients)


def compare(
    real: Measured, other: Measured, further_real: Measured, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Each figure's mean in real and other eyes, their difference, and how far the distributions lie apart.

    ``distance`` is the first Wasserstein distance in units of the real eyes' standard deviation, ``floor`` the same
    from further real eyes: what a sample of this size shows where nothing differs. Intervals are by patient.
    """
    compared = {}
    for name in real.rows[0]:
        (a, of_a), (b, of_b), (c, _) = (_defined(sample, name) for sample in (real, other, further_real))
        spread = float(a.std()) if len(a) else 0.0
        compared[name] = {
            "real": bootstrap(mean, a, resamples=resamples, seed=seed, groups=of_a),
            "synthetic": bootstrap(mean, b, resamples=resamples, seed=seed, groups=of_b),
            "difference": centred_bootstrap(
                _difference, b, a, resamples=resamples, seed=seed, floor=-np.inf, groups=(of_b, of_a)
            )
            if len(a) and len(b)
            else undefined(),
            "distance": wasserstein_distance(a, b) / spread if len(a) and len(b) and spread else float("nan"),
            "floor": wasserstein_distance(a, c) / spread if len(a) and len(c) and spread else float("nan"),
        }
    return compared


def _defined(sample: Measured, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A figure where it is defined, and the patients of those eyes."""
    values = np.array([row[name] for row in sample.rows], float)
    known = np.isfinite(values)
    return values[known], np.array(sample.patients)[known]


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return mean(a) - mean(b)


def arms(ratios: Sequence[float], synthetic: int, real: int) -> dict[str, int]:
    """Synthetic eyes of each training set by its name: ``real``, ``real_plus_50`` (per cent), …, ``synthetic``.

    What there are not enough synthetic eyes for is left out.
    """
    found: dict[str, int] = {REAL: 0}
    found |= {
        f"real_plus_{round(100 * ratio)}": round(ratio * real)
        for ratio in ratios
        if 0 < round(ratio * real) <= synthetic
    }
    return found | ({SYNTHETIC_ONLY: min(synthetic, real)} if synthetic else {})


def use(
    train: Examples,
    synthetic: Examples,
    validation: Examples,
    judged: Mapping[str, Examples],
    ratios: Sequence[float],
    config: SegmenterConfig,
    training: TrainingConfig,
    seeds: Sequence[int],
    resamples: int,
    checkpoints: Path,
    log: Path,
) -> dict[str, Any]:
    """Segmenters trained on real eyes, on real and synthetic ones, and on synthetic ones; all with as many steps.

    Args:
        train, synthetic, validation: eyes with maps.
        judged: sets of real eyes that no segmenter has seen, by name.
        ratios: synthetic eyes for each real one.
        config, training: of the segmenter.
        seeds: a training each; the figures of an eye are averaged over them.
        resamples: of the bootstrap over patients.
        checkpoints: folder; a run that was killed goes on there with what is trained. The caller removes it.
        log: folder.

    Returns:
        ``eyes`` by arm and, by set, arm and figure: ``figures`` with intervals by patient, and ``difference`` to
        ``real``, paired by eye.
    """
    plan = arms(ratios, len(synthetic), len(train))
    rows: dict[str, dict[str, list[list[dict[str, float]]]]] = {name: {} for name in judged}
    for arm, count in plan.items():
        some = synthetic.take(np.arange(count))
        eyes = some if arm == SYNTHETIC_ONLY else joined([train, some]) if count else train
        for seed in seeds:
            what = f"vessels: {arm}, seed {seed}"
            segmenter = fit(
                eyes, validation, config, training, seed, checkpoints, log / f"{arm}-{seed}", what, keep=True
            )
            for name, sample in judged.items():
                rows[name].setdefault(arm, []).append(of_eyes(segmenter, sample))
    results: dict[str, Any] = {
        "eyes": {arm: {"real": 0 if arm == SYNTHETIC_ONLY else len(train), "synthetic": n} for arm, n in plan.items()}
    }
    for name, of_arm in rows.items():
        averaged = {arm: _averaged(runs) for arm, runs in of_arm.items()}
        results[name] = {
            "figures": {
                arm: summary(eyes, judged[name].patients, resamples, seeds[0]) for arm, eyes in averaged.items()
            },
            "difference": {
                arm: summary(
                    [
                        {key: row[key] - base[key] for key in row}
                        for row, base in zip(eyes, averaged[REAL], strict=True)
                    ],
                    judged[name].patients,
                    resamples,
                    seeds[0],
                )
                for arm, eyes in averaged.items()
                if arm != REAL
            },
        }
    return results


def _averaged(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Each eye's figures, averaged over the runs in which they are defined."""
    return [{key: mean(np.array([row[key] for row in eye])) for key in eye[0]} for eye in zip(*runs, strict=True)]
