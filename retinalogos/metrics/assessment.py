"""The four judgements of a synthetic cohort, each beside what real images score on the same footing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from retinalogos.classifiers.grader import UNKNOWN, Labels
from retinalogos.classifiers.statistics import at_frequencies, class_frequencies
from retinalogos.errors import DataError
from retinalogos.metrics import control, diversity, memorisation
from retinalogos.metrics.intervals import Estimate, bootstrap
from retinalogos.metrics.observation import TASKS, Observed
from retinalogos.metrics.realism import (
    frechet_with_interval,
    kernel_distance_subsets,
    kernel_with_interval,
    matched_draw,
)


@dataclass(frozen=True)
class Settings:
    """Numbers of the assessment; see the parameters of the step ``assess`` for their values and sources."""

    resamples: int
    distance_resamples: int
    kernel_subsets: int
    kernel_subset_size: int
    neighbours: int
    memorised_neighbours: int
    memorised_quantile: float
    seed: int


def footing(a: Observed, b: Observed, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Indices into two sets, of equal number, and whether their mix of classes is equal as well.

    Where an equal mix would leave less than half of the smaller set, images are drawn whatever their class.
    """
    first, second = matched_draw(a.asked.strata, b.asked.strata, seed)
    if 2 * len(first) >= min(len(a), len(b)):
        return first, second, True
    return *matched_draw(["any"] * len(a), ["any"] * len(b), seed), False


def realism(real: Observed, synthetic: Observed, other_real: Observed, settings: Settings) -> dict[str, Any]:
    """Distances of synthetic images to ``real``, and as the floor those of ``other_real`` to ``real``.

    Synthetic and other real images are drawn in equal number and mix (:func:`footing`), so the two distances
    carry the same bias; ``all`` is the Fréchet distance of all synthetic images, comparable with nothing here.

    Raises:
        DataError: a set has fewer than two images.
    """
    mine, theirs, matched = footing(synthetic, other_real, settings.seed)
    if len(mine) < 2:
        raise DataError("the distances need two synthetic and two real images; generate more")
    candidates = {"synthetic": synthetic.features[mine], "floor": other_real.features[theirs]}
    size = min(settings.kernel_subset_size, len(mine), len(real))
    result: dict[str, Any] = {"n": len(mine), "n_reference": len(real), "same_mix": matched}
    result["frechet"] = {
        name: frechet_with_interval(real.features, features, settings.distance_resamples, settings.seed)
        for name, features in candidates.items()
    }
    result["frechet"]["all"] = frechet_with_interval(real.features, synthetic.features, 0, settings.seed)
    result["kernel"] = {
        name: kernel_with_interval(real.features, features, settings.resamples, settings.seed)
        for name, features in candidates.items()
    }
    result["kernel_subsets"] = {"size": size, "subsets": settings.kernel_subsets}
    for name, features in candidates.items():
        mean, sd = kernel_distance_subsets(real.features, features, settings.kernel_subsets, size, settings.seed)
        result["kernel_subsets"][name] = {"mean": mean, "sd": sd}
    if settings.neighbours < size:
        result["manifold"] = {
            name: diversity.manifold(real.features, features, settings.neighbours)
            for name, features in candidates.items()
        }
    return result


@dataclass(frozen=True)
class Pair:
    """An image and its nearest training image, by id.

    ``relative`` is the relative distance of :class:`Neighbours`; ``ratio`` is it over the threshold (< 1: flagged).
    """

    image_id: str
    train_id: str
    space: str
    relative: float
    ratio: float


@dataclass(frozen=True)
class Copies:
    """Result of the search for copies: figures, relative distances per space for a histogram, closest pairs."""

    figures: dict[str, Any]
    distances: dict[str, dict[str, np.ndarray]]
    closest: list[Pair]
    closest_real: list[Pair]


def copies(train: Observed, test: Observed, synthetic: Observed, most: int, settings: Settings) -> Copies:
    """Searches synthetic images that are copies of training images, in pixels and in features.

    A synthetic image is flagged when in either space its relative distance to a training image is below the
    threshold, the ``memorised_quantile`` of those of real test images.

    Args:
        train: what the generator learnt from.
        test: real images that it never saw.
        synthetic: its images.
        most: number of closest pairs to list.
        settings: quantile, resamples and seed.

    Raises:
        DataError: fewer than two test images.
    """
    if len(test) < 2:
        raise DataError(f"memorisation is calibrated on real test images; the cohort has {len(test)}, it needs two")
    distances: dict[str, dict[str, np.ndarray]] = {}
    spaces: dict[str, Any] = {}
    marks = np.zeros(len(synthetic), bool)
    chance = np.zeros(len(test), bool)
    ranked: list[Pair] = []
    ranked_real: list[Pair] = []
    k = settings.memorised_neighbours
    for name in ("descriptors", "features"):
        references = getattr(train, name)
        unseen = memorisation.nearest(getattr(test, name), references, k)
        found = memorisation.nearest(getattr(synthetic, name), references, k)
        own = memorisation.nearest(references, references, k, exclude_self=True).distance
        threshold = memorisation.calibrated_threshold(unseen.relative, settings.memorised_quantile)
        space = {"descriptors": "pixels", "features": "features"}[name]
        flags = memorisation.flagged(found.relative, threshold)
        flags_real = memorisation.leave_one_out_flagged(unseen.relative, settings.memorised_quantile)
        marks |= flags
        chance |= flags_real
        distances[space] = {"synthetic": found.relative, "test": unseen.relative, "threshold": np.array([threshold])}
        spaces[space] = {
            "threshold": threshold,
            "share": _share(flags, settings),
            "share_real": _share(flags_real, settings),
            "authenticity": _share(memorisation.authentic(found, own), settings),
            "authenticity_real": _share(memorisation.authentic(unseen, own), settings),
            "median_distance": float(np.median(found.distance)),
            "median_distance_real": float(np.median(unseen.distance)),
        }
        ranked += _pairs(synthetic, train, found, threshold, space)
        ranked_real += _pairs(test, train, unseen, threshold, space)
    figures = {
        "quantile": settings.memorised_quantile,
        "share": _share(marks, settings),
        "share_real": _share(chance, settings),
        **spaces,
    }
    return Copies(figures, distances, _closest(ranked, most), _closest(ranked_real, most))


def _share(marks: np.ndarray, settings: Settings) -> Estimate:
    return bootstrap(np.mean, marks, resamples=settings.resamples, seed=settings.seed)


def _pairs(
    queries: Observed, train: Observed, found: memorisation.Neighbours, threshold: float, space: str
) -> list[Pair]:
    scale = max(threshold, np.finfo(float).tiny)
    return [
        Pair(queries.asked.image_id[i], train.asked.image_id[j], space, float(d), float(d / scale))
        for i, (d, j) in enumerate(zip(found.relative, found.index, strict=True))
    ]


def _closest(pairs: list[Pair], most: int) -> list[Pair]:
    """The closest pairs, an image once: in the space in which it is the more suspicious."""
    best: dict[str, Pair] = {}
    for pair in sorted(pairs, key=lambda p: (p.ratio, p.image_id, p.space)):
        best.setdefault(pair.image_id, pair)
    return list(best.values())[:most]


def judged(observed: Observed, population: Labels | None, settings: Settings) -> dict[str, Any]:
    """What the judge sees against what the labels say, per task that judge and labels both know.

    Args:
        observed: the images.
        population: codes per task of the images whose class frequencies the judge may know: for real eyes those of
            the training split. ``None``: it takes classes to be equally frequent, as they are in synthetic cohorts.
        settings: resampling.
    """
    result: dict[str, Any] = {}
    for task, probabilities in observed.seen.items():
        codes = observed.asked.codes[task]
        known = codes != UNKNOWN
        if not known.any():
            continue
        probabilities = probabilities[known]
        if population is not None:
            probabilities = at_frequencies(probabilities, class_frequencies(population[task], len(TASKS[task])))
        asked, seen = codes[known], probabilities.argmax(1)
        figures: dict[str, Any] = {"accuracy": control.agreement(asked, seen, settings.resamples, settings.seed)}
        if task == "dr_grade":
            figures |= control.grade_agreement(asked, seen, len(TASKS[task]), settings.resamples, settings.seed)
            expected = probabilities @ np.arange(len(TASKS[task]))
            figures["rank"] = control.correlation(
                asked.astype(float), expected, settings.resamples, settings.seed, rank=True
            )
        if task == "glaucoma":
            figures["auc"] = control.auc(asked == 1, probabilities[:, 1], settings.resamples, settings.seed)
        figures["confusion"] = control.confusion(list(asked), list(seen), range(len(TASKS[task])))
        result[task] = figures
    return result


def measured(observed: Observed, settings: Settings) -> dict[str, Any]:
    """What is measured in phantom eyes against what the labels say.

    A disc that is not found counts as on the wrong side; ratios are compared where both are known.
    """
    found = observed.measured
    if found is None:
        return {}
    asked = observed.asked
    resampling: dict[str, Any] = {"resamples": settings.resamples, "seed": settings.seed}
    eye = asked.codes["eye"]
    sides = np.array(TASKS["eye"], dtype=object)[eye]
    known = eye != UNKNOWN
    grade = np.where(asked.codes["dr_grade"] == UNKNOWN, np.nan, asked.codes["dr_grade"].astype(float))
    has_disc = np.isin(found.side, TASKS["eye"])
    return {
        "disc_found": bootstrap(np.mean, has_disc, **resampling),
        "disc_side": control.agreement(sides[known], found.side[known], **resampling),
        "vcdr_found": bootstrap(np.mean, np.isfinite(found.vcdr), **resampling),
        "vcdr_error": control.mean_absolute_error(asked.vcdr, found.vcdr, **resampling),
        "vcdr_correlation": control.correlation(asked.vcdr, found.vcdr, **resampling),
        "lesion_load": control.correlation(grade, found.load, **resampling, rank=True),
    }
