"""The four judgements of a synthetic cohort, each beside what real images score on the same footing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinalogos.classifiers.experiment import FINDING
from retinalogos.classifiers.grader import UNKNOWN, Labels
from retinalogos.classifiers.statistics import Question, at_frequencies, class_frequencies, replicate
from retinalogos.errors import DataError
from retinalogos.metrics import control, diversity, memorisation
from retinalogos.metrics.alignment import align
from retinalogos.metrics.bands import taken
from retinalogos.metrics.intervals import Estimate, bootstrap, undefined
from retinalogos.metrics.observation import TASKS, Observed
from retinalogos.metrics.realism import (
    frechet_at_infinity,
    frechet_with_interval,
    gaussian_with_interval,
    kernel_distance_subsets,
    kernel_with_interval,
    matched_draw,
)


@dataclass(frozen=True)
class Settings:
    """Numbers of the assessment; see the parameters of the step ``assess`` for their values and sources."""

    resamples: int
    distance_resamples: int
    extrapolation_points: int
    extrapolation_resamples: int
    kernel_subsets: int
    kernel_subset_size: int
    neighbours: int
    memorised_neighbours: int
    memorised_quantile: float
    rare_share: float
    seed: int


def footing(a: Observed, b: Observed, seed: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Indices into two sets, of equal number, and whether their mix of classes is equal as well.

    Where an equal mix would leave less than half of the smaller set, images are drawn whatever their class.
    """
    first, second = matched_draw(a.asked.strata, b.asked.strata, seed)
    if 2 * len(first) >= min(len(a), len(b)):
        return first, second, True
    return *matched_draw(["any"] * len(a), ["any"] * len(b), seed), False


def realism(
    real: Observed,
    synthetic: Observed,
    other_real: Observed,
    settings: Settings,
    space: str | None = None,
    probabilities: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Distances of synthetic images to ``real``, and as the floor those of ``other_real`` to ``real``.

    Synthetic and other real images are drawn in equal number and mix (:func:`footing`), so the two distances
    carry the same bias; ``all`` is the Fréchet distance of all synthetic images, comparable with nothing here.

    Args:
        real: the reference.
        synthetic: the images that are judged.
        other_real: real images that are none of the reference.
        settings: numbers.
        space: name of the feature space; None for the first.
        probabilities: of the classes that features of this space tell, for the Inception score, where it has any.

    Raises:
        DataError: a set has fewer than two images.
    """
    mine, theirs, matched = footing(synthetic, other_real, settings.seed)
    if len(mine) < 2:
        raise DataError("the distances need two synthetic and two real images; generate more")
    reference, made, others = (x.features if space is None else x.spaces[space] for x in (real, synthetic, other_real))
    candidates = {"synthetic": taken(made, mine), "floor": taken(others, theirs)}
    # Intervals are by patient: the two eyes of one are not independent.
    people = real.asked.patients
    patients = {
        "synthetic": (people, synthetic.asked.patients[mine]),
        "floor": (people, other_real.asked.patients[theirs]),
    }
    size = min(settings.kernel_subset_size, len(mine), len(real))
    seed = settings.seed
    result: dict[str, Any] = {"n": len(mine), "n_reference": len(real), "same_mix": matched}
    result["frechet"] = {
        name: frechet_with_interval(reference, features, settings.distance_resamples, seed, patients=patients[name])
        for name, features in candidates.items()
    }
    result["frechet"]["all"] = frechet_with_interval(reference, made, 0, seed)
    if len(mine) > 2:
        prolonged = {
            name: frechet_at_infinity(
                reference,
                features,
                settings.extrapolation_points,
                settings.extrapolation_resamples,
                seed,
                patients=patients[name],
            )
            for name, features in candidates.items()
        }
        result["frechet_infinity"] = {name: found.infinity for name, found in prolonged.items()}
        result["frechet_by_size"] = {
            name: {"sizes": found.sizes, "values": found.values} for name, found in prolonged.items()
        }
    for distance, with_interval in (("kernel", kernel_with_interval), ("gaussian", gaussian_with_interval)):
        result[distance] = {
            name: with_interval(reference, features, settings.resamples, seed, patients=patients[name])
            for name, features in candidates.items()
        }
    result["kernel_subsets"] = {"size": size, "subsets": settings.kernel_subsets}
    for name, features in candidates.items():
        mean, sd = kernel_distance_subsets(reference, features, settings.kernel_subsets, size, seed)
        result["kernel_subsets"][name] = {"mean": mean, "sd": sd}
    if settings.neighbours < size:
        result["manifold"] = {
            name: diversity.manifold(reference, features, settings.neighbours, settings.resamples, seed, patients[name])
            for name, features in candidates.items()
        }
    if probabilities is not None:
        result["inception_score"] = {
            name: diversity.inception_score(
                features, probabilities, settings.distance_resamples, seed, patients[name][1]
            )
            for name, features in candidates.items()
        }
    return result


@dataclass(frozen=True)
class Pair:
    """An image and the training image that it comes closest to, by id.

    ``space`` is where it is most suspicious, ``relative`` its relative distance there (:class:`Neighbours`) and
    ``ratio`` that over the threshold (< 1: flagged). ``rare``: the training image is among the most isolated ones.
    """

    image_id: str
    train_id: str
    space: str
    relative: float
    ratio: float
    rare: bool


@dataclass(frozen=True)
class Copies:
    """Result of the search for copies: figures, relative distances per space for a histogram, pairs.

    ``pairs`` has every synthetic image, ``pairs_real`` every test image, the most suspicious first.
    """

    figures: dict[str, Any]
    distances: dict[str, dict[str, np.ndarray]]
    pairs: list[Pair]
    pairs_real: list[Pair]

    @property
    def flagged(self) -> list[Pair]:
        """The synthetic images that are taken for copies."""
        return [pair for pair in self.pairs if pair.ratio < 1]


def copies(train: Observed, test: Observed, synthetic: Observed, settings: Settings) -> Copies:
    """Searches synthetic images that are copies of training images: in pixels, in features, and laid over each other.

    An image is judged by the space in which it stands out the most from *real test images*, and flagged where it does
    so more than all but the share ``memorised_quantile`` of those
    (:func:`retinalogos.metrics.memorisation.calibrate`). So the share of unseen real images that all spaces together
    flag is that quantile.

    Args:
        train: what the generator learnt from.
        test: real images that it never saw.
        synthetic: its images.
        settings: quantile, resamples and seed.

    Raises:
        DataError: fewer than two test images.
    """
    if len(test) < 2:
        raise DataError(f"memorisation is calibrated on real test images; the cohort has {len(test)}, it needs two")
    k, quantile = settings.memorised_neighbours, settings.memorised_quantile
    unseen: dict[str, memorisation.Neighbours] = {}
    found: dict[str, memorisation.Neighbours] = {}
    spaces: dict[str, dict[str, Any]] = {}
    own = np.empty(0)
    for space, kind in (("pixels", "descriptors"), ("features", "features")):
        of_train, of_test, made = (getattr(x, kind) for x in (train, test, synthetic))
        unseen[space] = memorisation.nearest(of_test, of_train, k)
        found[space] = memorisation.nearest(made, of_train, k)
        own = memorisation.nearest(of_train, of_train, k, exclude_self=True).distance
        spaces[space] = {
            "authenticity": _share(memorisation.authentic(found[space], own), synthetic, settings),
            "authenticity_real": _share(memorisation.authentic(unseen[space], own), test, settings),
            "membership_auc": memorisation.membership_auc(
                memorisation.nearest(of_train, made, k).relative,
                memorisation.nearest(of_test, made, k).relative,
                settings.distance_resamples,
                settings.seed,
                np.concatenate([train.asked.patients, test.asked.patients]),
            )
            if len(synthetic) > 1
            else undefined(),
        }
    # The most isolated training images, in features: what sets a rare patient apart is what would give her away.
    rare = own >= np.quantile(own, 1 - settings.rare_share)
    spaces["aligned"] = {}
    unseen["aligned"] = align(test.structures, train.structures)
    found["aligned"] = align(synthetic.structures, train.structures)
    relative, relative_real = ({space: seen[space].relative for space in spaces} for seen in (found, unseen))
    calibration = memorisation.calibrate(relative_real, quantile)
    thresholds = {space: calibration.threshold(space) for space in spaces}
    flags = calibration.spreads(relative).max(1) > calibration.limit
    flags_real = memorisation.leave_one_out_flagged(calibration, quantile)
    distances = {}
    for space, figures in spaces.items():
        threshold = thresholds[space]
        distances[space] = {
            "synthetic": relative[space],
            "test": relative_real[space],
            "threshold": np.array([threshold]),
        }
        figures |= {
            "threshold": threshold,
            "share": _share(relative[space] < threshold, synthetic, settings),
            "share_real": _share(relative_real[space] < threshold, test, settings),
            "median_distance": float(np.median(found[space].distance)),
            "median_distance_real": float(np.median(unseen[space].distance)),
        }
    pairs, pairs_real = (
        _pairs(queries, train, seen, calibration, rare) for queries, seen in ((synthetic, found), (test, unseen))
    )
    figures = {
        "quantile": quantile,
        "share": _share(flags, synthetic, settings),
        "share_real": _share(flags_real, test, settings),
        "rare": _rare((synthetic, pairs), (test, pairs_real), train, rare, settings),
        **spaces,
    }
    return Copies(figures, distances, pairs, pairs_real)


def _rare(
    made: tuple[Observed, list[Pair]],
    unseen: tuple[Observed, list[Pair]],
    train: Observed,
    rare: np.ndarray,
    settings: Settings,
) -> dict[str, Any]:
    patients = dict(zip(train.asked.image_id, train.asked.patient_id, strict=True))
    copied = [pair for pair in made[1] if pair.rare and pair.ratio < 1]

    def share_of(images: Observed, pairs: list[Pair]) -> Estimate:
        copies_of_rare = {pair.image_id for pair in pairs if pair.rare and pair.ratio < 1}
        return _share(np.array([name in copies_of_rare for name in images.asked.image_id]), images, settings)

    share, share_real = share_of(*made), share_of(*unseen)
    return {
        "training_images": int(rare.sum()),
        "share": share,
        "share_real": share_real,
        "patients_copied": len({patients[pair.train_id] for pair in copied}),
    }


def _share(marks: np.ndarray, images: Observed, settings: Settings) -> Estimate:
    patients = images.asked.patients
    return bootstrap(np.mean, marks, resamples=settings.resamples, seed=settings.seed, groups=patients)


def _pairs(
    queries: Observed,
    train: Observed,
    seen: dict[str, memorisation.Neighbours],
    calibration: memorisation.Calibration,
    rare: np.ndarray,
) -> list[Pair]:
    """Each image with its training image in the space in which it is the most suspicious, the worst first."""
    names = list(seen)
    spreads = calibration.spreads({space: near.relative for space, near in seen.items()})
    ranked = []
    for i, column in enumerate(spreads.argmax(1)):
        near = seen[names[column]]
        j, relative = near.index[i], float(near.relative[i])
        # Shown beside the figures, so that a reader need not think in spreads: below 1 beyond the limit.
        flagged = spreads[i, column] > calibration.limit
        ratio = relative / calibration.threshold(names[column])
        pair = Pair(
            queries.asked.image_id[i],
            train.asked.image_id[j],
            names[column],
            relative,
            min(ratio, np.nextafter(1, 0)) if flagged else max(ratio, 1.0),
            bool(rare[j]),
        )
        ranked.append((-spreads[i, column], pair.image_id, pair))
    return [pair for *_, pair in sorted(ranked, key=lambda entry: entry[:2])]


def judged(observed: Observed, population: Labels | None, settings: Settings) -> dict[str, Any]:
    """What the judge sees against what the labels say, per task that judge and labels both know.

    Args:
        observed: the images.
        population: codes per task of the images whose class frequencies the judge may know: for real eyes those of
            the training split. ``None``: it takes classes to be equally frequent, as they are in synthetic cohorts.
        settings: resampling.
    """
    result: dict[str, Any] = {}
    for task in [name for name in TASKS if name in observed.seen]:
        probabilities, codes = observed.seen[task], observed.asked.codes[task]
        known = codes != UNKNOWN
        if not known.any():
            continue
        probabilities = probabilities[known]
        if population is not None:
            probabilities = at_frequencies(probabilities, class_frequencies(population[task], len(TASKS[task])))
        asked, seen = codes[known], probabilities.argmax(1)
        resampling = _resampling(observed, settings, known)
        figures: dict[str, Any] = {"accuracy": control.agreement(asked, seen, **resampling)}
        if task == "dr_grade":
            figures |= control.grade_agreement(asked, seen, len(TASKS[task]), **resampling)
            expected = probabilities @ np.arange(len(TASKS[task]))
            figures["rank"] = control.correlation(asked.astype(float), expected, **resampling, rank=True)
            figures["curve"] = _by_grade(asked, expected, resampling)
        if task == "glaucoma":
            figures["auc"] = control.auc(asked == 1, probabilities[:, 1], **resampling)
        figures["confusion"] = control.confusion(list(asked), list(seen), range(len(TASKS[task])))
        result[task] = figures
    if findings := _findings(observed, settings):
        result["findings"] = findings
    return result


def _resampling(observed: Observed, settings: Settings, known: np.ndarray | None = None) -> dict[str, Any]:
    """How figures of the images, or of those that are known (bool, n), are resampled: by patient."""
    patients = observed.asked.patients
    return {
        "resamples": settings.resamples,
        "seed": settings.seed,
        "patients": patients if known is None else patients[known],
    }


def _by_grade(grades: np.ndarray, values: np.ndarray, resampling: dict[str, Any]) -> dict[str, Estimate]:
    """Mean of values (n,) over the eyes of each grade that occurs, nan left out: ``grade_0`` …"""
    found = {}
    for grade in range(len(TASKS["dr_grade"])):
        of_grade = np.where(grades == grade, values, np.nan)
        if np.isfinite(of_grade).any():
            found[f"grade_{grade}"] = control.of_known(np.mean, of_grade, **resampling)
    return found


def _spread(name: str, values: np.ndarray, resampling: dict[str, Any]) -> dict[str, Estimate]:
    """Mean and standard deviation (``<name>_sd``) of values (n,), nan left out."""
    return {
        f"{name}{suffix}": control.of_known(function, values, **resampling)
        for suffix, function in (("", np.mean), ("_sd", np.std))
    }


def _findings(observed: Observed, settings: Settings) -> dict[str, Any]:
    """``mean`` AUC of the findings, and ``each``: the judge's probability against what was asked for, or recorded.

    Findings of which all images or none have it are left out. Intervals are by patient.
    """
    codes = {task: observed.asked.codes[task] for task in observed.seen if task.startswith(FINDING)}
    both = {task: values for task, values in codes.items() if len(np.unique(values[values != UNKNOWN])) > 1}
    if not both:
        return {}
    # What is known of an eye's findings is known of all of them.
    known = next(iter(both.values())) != UNKNOWN
    questions = {task: (values[known], [observed.seen[task][known]]) for task, values in both.items()}
    patients = observed.asked.patients[known]

    def area(asked: list[Question]) -> Estimate:
        return replicate({"": asked}, patients, settings.resamples, settings.seed)[""].estimates()["auc"]

    return {
        "mean": {"auc": area(list(questions.values()))},
        "each": {task.removeprefix(FINDING): {"auc": area([asked])} for task, asked in questions.items()},
    }


def measured(observed: Observed, settings: Settings) -> dict[str, Any]:
    """What is measured in phantom eyes against what the labels say.

    A disc that is not found counts as on the wrong side; ratios are compared where both are known.
    """
    found = observed.measured
    if found is None:
        return {}
    asked = observed.asked
    resampling = _resampling(observed, settings)
    eye = asked.codes["eye"]
    sides = np.array(TASKS["eye"], dtype=object)[eye]
    known = eye != UNKNOWN
    grade = np.where(asked.codes["dr_grade"] == UNKNOWN, np.nan, asked.codes["dr_grade"].astype(float))
    has_disc = np.isin(found.side, TASKS["eye"])
    return {
        "disc_found": _share(has_disc, observed, settings),
        "disc_side": control.agreement(sides[known], found.side[known], **_resampling(observed, settings, known)),
        "vcdr_found": _share(np.isfinite(found.vcdr), observed, settings),
        "vcdr_error": control.mean_absolute_error(asked.vcdr, found.vcdr, **resampling),
        "vcdr_correlation": control.correlation(asked.vcdr, found.vcdr, **resampling),
        "lesion_load": control.correlation(grade, found.load, **resampling, rank=True),
        "load_by_grade": _by_grade(grade, found.load, resampling),
        **_spread("disc_fovea", found.disc_fovea, resampling),
        **_spread("fovea_angle", found.fovea_angle, resampling),
    }
