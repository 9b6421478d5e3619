"""How well drawn maps and photographs obey: lesions by grade, the grade read back, lesions found again, edits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from scipy.stats import wasserstein_distance

from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.classifiers.grader import Grader, fit_grader
from retinalogos.classifiers.statistics import confusion_matrices, quadratic_kappa
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.metrics.intervals import Estimate, bootstrap, centred_bootstrap, undefined

TASK = "dr_grade"
# A pixel counts as changed from this difference of any channel on: what an eye sees side by side.
_VISIBLE = 8


def lesion_measures(classes: np.ndarray) -> dict[str, np.ndarray]:
    """How many lesions a map has and how large they are.

    Args:
        classes: uint8, n × h × w.

    Returns:
        ``counts`` n×4, connected regions of each of :data:`maps.LESIONS`, and ``areas`` n×4, as share of the field.
    """
    field = (classes != maps.BG).sum((1, 2)).clip(min=1)
    areas = np.stack([(classes == c).sum((1, 2)) / field for c in maps.LESIONS], 1)
    counts = [
        [cv2.connectedComponents((each == c).astype(np.uint8), connectivity=8)[0] - 1 for c in maps.LESIONS]
        for each in classes
    ]
    return {"counts": np.array(counts), "areas": areas}


def compare_lesions(
    reference: Examples, drawn: Examples, unseen: Examples, resamples: int, seed: int
) -> dict[str, dict[str, dict[str, dict[str, Estimate]]]]:
    """Wasserstein-1 distances of lesion counts and areas (percent of the field) to those of training maps, by grade.

    Args:
        reference: training eyes.
        drawn: eyes that were drawn.
        unseen: real eyes that were not trained on; their distance is the floor.
        resamples: behind each interval.
        seed: of the resampling.

    Returns:
        grade → measure → lesion → ``drawn``, ``floor``, and the means ``mean_reference`` and ``mean_drawn``. Grades of
        which a set has fewer than two eyes are left out.
    """
    sets = {"reference": reference, "drawn": drawn, "floor": unseen}
    measured = {name: lesion_measures(examples.classes) for name, examples in sets.items()}
    result: dict[str, dict[str, dict[str, dict[str, Estimate]]]] = {}
    for grade in range(maps.GRADES):
        members = {name: examples.grades == grade for name, examples in sets.items()}
        if min(member.sum() for member in members.values()) < 2:
            continue
        people = {name: sets[name].patients[member] for name, member in members.items()}
        result[str(grade)] = {}
        for measure, unit in (("counts", 1.0), ("areas", 100.0)):
            found = result[str(grade)][measure] = {}
            for number, lesion in enumerate(maps.LESIONS):
                values = {n: unit * measured[n][measure][members[n]][:, number].astype(float) for n in sets}
                found[maps.CLASSES[lesion]] = {
                    **{
                        name: centred_bootstrap(
                            wasserstein_distance,
                            values["reference"],
                            values[name],
                            resamples=resamples,
                            seed=seed,
                            groups=(people["reference"], people[name]),
                        )
                        for name in ("drawn", "floor")
                    },
                    **{
                        f"mean_{name}": bootstrap(
                            np.mean, values[name], resamples=resamples, seed=seed, groups=people[name]
                        )
                        for name in ("reference", "drawn")
                    },
                }
    return result


def fit_photo_grader(training: Examples, config: GraderConfig, seed: int) -> Grader:
    """A classifier of photographs: of the grade, or, of eyes with too few grades, of whether a lesion is marked."""
    labels, classes = training.grades, {TASK: maps.GRADES}
    if not training.by_grade:
        labels, classes = np.isin(training.classes, maps.LESIONS).any((1, 2)).astype(int), {TASK: 2}
    return fit_grader(training.images, {TASK: labels}, classes, config, seed)


def fit_map_grader(training: Examples, validation: Examples | None, config: GraderConfig, seed: int) -> Grader:
    """A classifier of the grade from coloured maps, trained on real ones."""
    held = (maps.to_rgb(validation.classes), {TASK: validation.grades}) if validation else None
    labels = {TASK: training.grades}
    return fit_grader(maps.to_rgb(training.classes), labels, {TASK: maps.GRADES}, config, seed, held)


@dataclass(frozen=True)
class Recovery:
    """How well grades are read back: weighted kappa and accuracy."""

    qwk: Estimate
    accuracy: Estimate


def recover_grades(
    grader: Grader, images: np.ndarray, grades: np.ndarray, patients: np.ndarray, resamples: int, seed: int
) -> Recovery:
    """Reads grades from images (uint8 n×h×w×3) and holds them against those asked for, n; intervals by patient, n."""
    seen = grader.predict(images)[TASK].argmax(1)

    def kappa(truth: np.ndarray, predicted: np.ndarray) -> float:
        return float(quadratic_kappa(confusion_matrices(truth, predicted, maps.GRADES))[0])

    def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
        return float((truth == predicted).mean())

    found = (
        bootstrap(each, grades, seen, resamples=resamples, seed=seed, groups=patients) for each in (kappa, accuracy)
    )
    return Recovery(*found)


@dataclass(frozen=True)
class StyleReport:
    """Whether a map in the style of another eye's photograph takes over its colours.

    Attributes:
        before: mean absolute difference (0-255) of the mean colours in the field, of two eyes' photographs.
        after: the same of the map of the one in the style of the other, and the other's photograph.
    """

    before: Estimate
    after: Estimate


def restyled(pipeline: LesionMapPipeline, examples: Examples, steps: int = 1) -> np.ndarray:
    """The maps of eyes, each in the style of the photograph so many ``steps`` on; unknown pixels as retina."""
    return pipeline.render(examples.filled, styles=pipeline.style_of(np.roll(examples.images, -steps, 0)))


def judge_style(examples: Examples, pictures: np.ndarray, resamples: int, seed: int) -> StyleReport:
    """How near colours come to those of the reference.

    Args:
        examples: real eyes.
        pictures: of :func:`restyled`.
        resamples: behind each interval.
        seed: of the resampling.
    """
    field = (examples.classes != maps.BG)[..., None]

    def colours(images: np.ndarray) -> np.ndarray:
        total: np.ndarray = (images * field).sum((1, 2))
        return total / field.sum((1, 2)).clip(min=1)

    own, made = colours(examples.images), colours(pictures)
    differences = [np.abs(each - np.roll(own, -1, 0)).mean(1) for each in (own, made)]
    found = (bootstrap(np.mean, each, resamples=resamples, seed=seed, groups=examples.patients) for each in differences)
    return StyleReport(*found)


@dataclass(frozen=True)
class EditReport:
    """What an edit of maps did to the pictures, at pixels farther than the margin from the change, and at the change.

    Attributes:
        kept: share of the pixels outside that are bit for bit the same after :meth:`LesionMapPipeline.edit`.
        rendered_outside: mean absolute difference (0-255) outside where the whole picture is rendered anew.
        visible_outside: share of the pixels outside that then differ visibly.
        inside: mean absolute difference (0-255) at the change itself.
    """

    kept: Estimate
    rendered_outside: Estimate
    visible_outside: Estimate
    inside: Estimate


def largest_lesion(classes: np.ndarray) -> int:
    """The lesion class that covers the most of a map."""
    return max(maps.LESIONS, key=lambda c: int((classes == c).sum()))


def erase(classes: np.ndarray, lesion: int) -> np.ndarray:
    """A map without its largest region of a lesion."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats((classes == lesion).astype(np.uint8))
    if count < 2:
        return classes
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.where(parts == largest, np.uint8(maps.VB), classes)


def judge_edits(
    pipeline: LesionMapPipeline, classes: np.ndarray, seeds: Sequence[int], margin: float, resamples: int, seed: int
) -> EditReport:
    """Erases the largest lesion of each map and renders again in the same style.

    Args:
        pipeline: the networks.
        classes: uint8 n×size×size; maps without a lesion are passed over.
        seeds: of the styles, n.
        margin: see :meth:`LesionMapPipeline.edit`, pixels.
        resamples: behind each interval.
        seed: of the resampling.

    Returns:
        The report; its figures are undefined where no map has a lesion.
    """
    rows = []
    for before, style_seed in zip(classes, seeds, strict=True):
        after = erase(before, largest_lesion(before))
        away = cv2.distanceTransform((before == after).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        outside, inside = (away > margin) & (before != maps.BG), before != after
        if not (inside.any() and outside.any()):
            continue
        style = pipeline.styles([style_seed])
        image = pipeline.render(before[None], styles=style)[0]
        edited = pipeline.edit(image, before, after, style, margin)
        anew = pipeline.render(after[None], styles=style)[0]
        difference = np.abs(anew.astype(int) - image)
        rows.append(
            [
                (edited == image).all(-1)[outside].mean(),
                difference[outside].mean(),
                (difference.max(-1)[outside] >= _VISIBLE).mean(),
                np.abs(edited.astype(int) - image)[inside].mean(),
            ]
        )
    if not rows:
        return EditReport(*[undefined()] * len(fields(EditReport)))
    columns = np.array(rows).T
    return EditReport(*(bootstrap(np.mean, column, resamples=resamples, seed=seed) for column in columns))
