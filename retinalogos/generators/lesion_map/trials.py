"""What synthetic eyes are good for: grading with rare grades filled up, and segmentation, trained on folds of patients.

Every training leaves out one fold, by which a grader chooses its best state, and all are judged on the same test eyes,
which neither they nor the generator have seen.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.classifiers.grader import fit_grader
from retinalogos.classifiers.statistics import Figures, Replicates, replicate, resample
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import SegmenterConfig
from retinalogos.generators.lesion_map.examples import NO_GRADE, Examples
from retinalogos.generators.lesion_map.judging import TASK
from retinalogos.generators.lesion_map.segmentation import Segmenter, fit_segmenter, overlaps
from retinalogos.metrics.overlap import dice_of_counts

REAL = "real"
# Grading: all real eyes; as many of each grade as of the rarest; each grade repeated, or filled up with synthetic eyes,
# to as many as of the most frequent.
GRADING_ARMS = (REAL, "undersampled", "oversampled", "padded")
SEGMENTATION_ARMS = (REAL, "synthetic", "synthetic_then_real")


def patient_folds(
    patients: np.ndarray, grades: np.ndarray, count: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Splits eyes into folds in which no patient is in two, with grades as equally spread as that allows.

    Args:
        patients: of each eye, n.
        grades: of each eye, n.
        count: folds.
        seed: of the draw.

    Returns:
        Indices to train on and indices left out, for each fold.

    Raises:
        DataError: there are fewer patients than folds.
    """
    if len(set(patients)) < count:
        raise DataError(f"{len(set(patients))} patients cannot be split into {count} folds: set fewer folds")
    # Where no grade has as many eyes as there are folds, there is nothing to spread.
    spread = np.unique(grades, return_counts=True)[1].max() >= count
    folds = (StratifiedGroupKFold if spread else GroupKFold)(count, shuffle=True, random_state=seed)
    return list(folds.split(np.zeros(len(grades)), grades, patients.astype(str)))


def grading_rows(arm: str, real: np.ndarray, synthetic: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which real and which synthetic eyes an arm trains on, as indices.

    Args:
        arm: one of :data:`GRADING_ARMS`.
        real: grades of the real eyes.
        synthetic: grades of the synthetic eyes.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(real == grade) for grade in range(maps.GRADES)]
    counts = [len(member) for member in members]
    none = np.zeros(0, int)
    if arm == REAL:
        return np.arange(len(real)), none
    if arm == "undersampled":
        least = min(count for count in counts if count)
        return np.concatenate([rng.choice(m, least, replace=False) for m in members if len(m)]), none
    most = max(counts)
    if arm == "oversampled":
        repeated = [rng.choice(m, most - len(m)) for m in members if len(m)]
        return np.concatenate([np.arange(len(real)), *repeated]), none
    made = [np.flatnonzero(synthetic == grade) for grade in range(maps.GRADES)]
    added = [rng.permutation(m)[: most - count] for m, count in zip(made, counts, strict=True)]
    return np.arange(len(real)), np.concatenate(added)


def try_grading(
    real: Examples, synthetic: Examples, test: Examples, config: GraderConfig, folds: int, seed: int, resamples: int
) -> dict[str, Replicates]:
    """Figures of graders on the test eyes; a run is a fold with a seed of its own.

    Args:
        real: eyes to train on; those without a grade are passed over.
        synthetic: eyes of a generator that has not seen ``test``.
        test: eyes to be judged on.
        config: of the graders.
        folds: and runs.
        seed: of folds, trainings and resamples.
        resamples: of test patients and runs, behind each interval.

    Raises:
        DataError: a patient of the test eyes is among those to train on.
    """
    real, test = (each.take(each.grades != NO_GRADE) for each in (real, test))
    _check_apart(real, test)
    splits = patient_folds(real.patients, real.grades, folds, seed)
    answers: dict[str, list[np.ndarray]] = {arm: [] for arm in GRADING_ARMS}
    for number, (train, left_out) in enumerate(splits):
        for arm in GRADING_ARMS:
            rows, added = grading_rows(arm, real.grades[train], synthetic.grades, seed + number)
            images = np.concatenate([real.images[train[rows]], synthetic.images[added]])
            labels = np.concatenate([real.grades[train[rows]], synthetic.grades[added]])
            held = (real.images[left_out], {TASK: real.grades[left_out]})
            grader = fit_grader(images, {TASK: labels}, {TASK: maps.GRADES}, config, seed + number, held)
            answers[arm].append(grader.predict(test.images)[TASK])
    questions = {arm: [(test.grades, found)] for arm, found in answers.items()}
    return replicate(questions, test.patients, resamples, seed)


def try_segmentation(
    real: Examples, synthetic: Examples, test: Examples, config: SegmenterConfig, folds: int, seed: int, resamples: int
) -> dict[str, Replicates]:
    """Dice of segmenters on the test eyes by arm; a figure is a class. See :func:`try_grading`.

    All arms have the same number of steps: synthetic-then-real spends half of them on either, so that what it gains is
    not a gain of longer training.
    """
    _check_apart(real, test)
    splits = patient_folds(real.patients, real.grades, folds, seed)
    found: dict[str, list[Mapping[str, np.ndarray]]] = {arm: [] for arm in SEGMENTATION_ARMS}
    truth = test.classes
    half = config.steps // 2
    for number, (train, _) in enumerate(splits):
        some = real.take(train)

        def fit(eyes: Examples, steps: int, start: Segmenter | None = None, number: int = number) -> Segmenter:
            settings = config.model_copy(update={"steps": steps})
            return fit_segmenter(eyes.candidates, eyes.images, settings, seed + number, start)

        networks = {
            REAL: fit(some, config.steps),
            "synthetic": fit(synthetic, config.steps),
            "synthetic_then_real": fit(some, config.steps - half, fit(synthetic, half)),
        }
        for arm, network in networks.items():
            found[arm].append(overlaps(network.find(test.images), truth))
    questions = {arm: _dice(runs) for arm, runs in found.items()}
    return resample(questions, folds, test.patients, resamples, seed)


def _dice(runs: Sequence[Mapping[str, np.ndarray]]) -> Figures:
    """Of each class, over all pixels of a resample together; :func:`pooled_dice` of many resamples at once."""

    def figures(weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
        result = {}
        for name in runs[0]:
            pixels = np.stack([run[name] for run in runs], 1)  # eyes × runs × (both, found only, there only)
            ones = np.ones((1, len(pixels)))
            both, first, second = np.moveaxis(np.tensordot(ones if weights is None else weights, pixels, 1), -1, 0)
            result[name] = dice_of_counts(both, both + first, both + second)
        return result

    return figures


def _check_apart(real: Examples, test: Examples) -> None:
    shared = set(real.patients) & set(test.patients)
    if shared:
        raise DataError(f"patient {sorted(shared)[0]} is among the eyes to train on and to be judged on")
