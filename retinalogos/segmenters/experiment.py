"""Does a synthetic cohort with maps help a segmenter? The arms of the classifiers' comparison, judged on real maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from retinalogos.classifiers import experiment, statistics
from retinalogos.classifiers.configuration import AUGMENTATION, PARTS
from retinalogos.classifiers.experiment import Arm
from retinalogos.classifiers.statistics import Replicates
from retinalogos.segmenters import overlap
from retinalogos.segmenters.configuration import SegmenterConfig
from retinalogos.segmenters.segmenter import fit_segmenter
from retinalogos.segmenters.structures import Annotated, structures_of
from retinalogos.training.side_by_side import side_by_side

# Tasks are named by the map that shows their structures; a task's figures are the means over its structures.
TASKS: dict[str, tuple[str, ...]] = {name: tuple(structures_of(name)) for name in ("vessels", "lesions", "disc_cup")}
# Figure by which mixes are compared.
PRIMARY = "dice"


@dataclass(frozen=True)
class Run:
    """One training: what it answered on each set that it was judged on, as counts of :func:`overlap.count`."""

    arm: str
    seed: int
    counts: Mapping[str, Mapping[str, np.ndarray]]


def usable_structures(
    tasks: Sequence[str], training: Annotated, test: Annotated, synthetic: Annotated, least: int
) -> tuple[list[str], dict[str, str]]:
    """Structures to learn, and the reason for each task that is left out.

    A structure is learnt where so many training images and a test image show it; a task needs synthetic images with its
    map, since without them there is nothing to compare.
    """
    usable: list[str] = []
    skipped: dict[str, str] = {}
    for task in tasks:
        if not synthetic.targets.maps[task].any():
            skipped[task] = f"no synthetic image has a map of {task}: images that are drawn from captions have none"
            continue
        found = [
            structure
            for structure in TASKS[task]
            if training.targets.shown(structure).sum() >= least and test.targets.shown(structure).any()
        ]
        usable += found
        if not found:
            skipped[task] = f"no map of {task} shows a structure in {least} training images and among the test images"
    return usable, skipped


def train_arms(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    structures: Sequence[str],
    real: Annotated,
    synthetic: Annotated,
    validation: Annotated,
    judged: Mapping[str, Annotated],
    config: SegmenterConfig,
    workers: int,
) -> tuple[list[Run], dict[str, dict[str, str]]]:
    """Trains one segmenter of all structures per arm and seed, with as many optimiser steps in every arm.

    Args:
        arms: what each trains on.
        seeds: of initial weights, order, augmentation and the choice of images.
        structures: what to learn; those that an arm's images do not show, with any seed, are left out of that arm.
        real, synthetic: training images.
        validation: real images by which the best state of a training is chosen, the same in every arm.
        judged: name → images to judge on.
        config: settings; an arm without the augmentation changes them.
        workers: trainings at a time; 1 with an accelerator.

    Returns:
        The runs, and per arm and structure, or ``all``, the reason why it was left out.
    """
    skipped: dict[str, dict[str, str]] = {}

    def train(arm: Arm, seed: int, on_step: Callable[[], None]) -> Run:
        rows, drawn = experiment.training_rows(arm, real.eyes, synthetic.eyes, seed)
        learned = [structure for structure in structures if structure not in skipped.get(arm.name, {})]
        segmenter = fit_segmenter(
            np.concatenate([real.eyes.images[rows], synthetic.eyes.images[drawn]]),
            real.targets.take(rows).beside(synthetic.targets.take(drawn)),
            learned,
            config.model_copy(update=PARTS[AUGMENTATION]) if arm.mix.without else config,
            seed,
            (validation.eyes.images, validation.targets) if len(validation) else None,
            on_step,
        )
        return Run(
            arm.name,
            seed,
            {
                name: overlap.count(segmenter.predict(part.eyes.images), learned, part.targets)
                for name, part in judged.items()
            },
        )

    shown = {
        name: {structure: part.targets.shown(structure) for structure in structures}
        for name, part in (("real", real), ("synthetic", synthetic))
    }
    jobs = []
    for arm in arms:
        if arm.mix.without not in (None, AUGMENTATION):
            skipped[arm.name] = {"all": f"the recipe of a segmenter has no {arm.mix.without}"}
            continue
        chosen = [experiment.training_rows(arm, real.eyes, synthetic.eyes, seed) for seed in seeds]
        for structure in structures:
            if not all(
                shown["real"][structure][rows].any() or shown["synthetic"][structure][drawn].any()
                for rows, drawn in chosen
            ):
                reason = "no training image of this arm shows it"
                skipped.setdefault(arm.name, {})[structure] = reason
        if len(skipped.get(arm.name, {})) < len(structures):
            jobs += [partial(train, arm, seed) for seed in seeds]
    return side_by_side(jobs, config.steps, workers, "train segmenters"), skipped


@dataclass(frozen=True)
class _Asked:
    """A task on a set of images: in which of them it is known (bool, n), and what each arm's runs answered there.

    ``arms``: arm → structure → run → counts, m × 2 × bins, of the m images in which it is known.
    """

    known: np.ndarray
    arms: Mapping[str, Mapping[str, Sequence[np.ndarray]]]

    def within(self, group: np.ndarray) -> Self | None:
        """The same on some of the images, bool (n,); None where these show no structure."""
        kept = group[self.known]
        arms = {
            arm: {structure: [counts[kept] for counts in runs] for structure, runs in of_arm.items()}
            for arm, of_arm in self.arms.items()
        }
        shown = any(runs[0][:, 1].any() for of_arm in arms.values() for runs in of_arm.values())
        return type(self)(self.known & group, arms) if shown else None

    def of(self, structure: str) -> "_Asked":
        """The same of one structure."""
        return _Asked(self.known, {arm: {structure: of_arm[structure]} for arm, of_arm in self.arms.items()})


def _ask(task: str, runs: Sequence[Run], name: str, images: Annotated) -> _Asked | None:
    """None where no run learnt a structure of the task that the images show."""
    structures = [
        structure
        for structure in TASKS[task]
        if images.targets.shown(structure).any() and any(structure in run.counts[name] for run in runs)
    ]
    if not structures:
        return None
    known = np.any([images.targets.known[structure] for structure in structures], 0)
    arms = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        of_arm = [run.counts[name] for run in runs if run.arm == arm]
        if all(structure in counts for structure in structures for counts in of_arm):
            arms[arm] = {structure: [counts[structure][known] for counts in of_arm] for structure in structures}
    return _Asked(known, arms) if arms else None


def judge(
    runs: Sequence[Run], tasks: Sequence[str], name: str, images: Annotated, resamples: int, seed: int
) -> dict[str, dict]:
    """Figures of every task and arm on one set of images, and what follows from them.

    Args:
        runs: of all arms.
        tasks: of :data:`TASKS`.
        name: of the set.
        images: the set.
        resamples: bootstrap resamples of patients and runs behind each interval and test.
        seed: of the resampling.

    Returns:
        ``figures``, ``difference``, ``seeds``, ``verdicts``, ``subgroups`` and ``skipped`` as
        :func:`retinalogos.classifiers.experiment.judge` has them, and ``structures``: structure → arm → figure →
        estimate. Verdicts are corrected for all comparisons of segmenters on this set.
    """
    results: dict[str, dict] = {key: {} for key in (*experiment.SHARED, "structures")}

    def replicate(asked: _Asked) -> dict[str, Replicates]:
        def figures(of_arm: Mapping[str, Sequence[np.ndarray]], weights: np.ndarray | None) -> Mapping[str, np.ndarray]:
            each = []
            for of_runs in of_arm.values():
                found = [overlap.figures(counts, weights) for counts in of_runs]
                each.append({figure: np.stack([of_run[figure] for of_run in found], -1) for figure in found[0]})
            return statistics.mean_figures(each)

        patients = images.eyes.patient_id[asked.known]
        of_name = {arm: partial(figures, of_arm) for arm, of_arm in asked.arms.items()}
        (count,) = {len(counts) for of_arm in asked.arms.values() for counts in of_arm.values()}
        return statistics.resample(of_name, count, patients, resamples, seed)

    seeds = list(dict.fromkeys(run.seed for run in runs))
    for task in tasks:
        asked = _ask(task, runs, name, images)
        if asked is None:
            results["skipped"][task] = f"not learned, or no map of the {name} images shows its structures"
            continue
        found = replicate(asked)
        of_task = experiment.compared(found, PRIMARY, seeds)
        of_task["subgroups"] = experiment.by_subgroup(PRIMARY, asked, images.eyes, replicate)
        for key, value in of_task.items():
            results[key][task] = value
        for structure in next(iter(asked.arms.values())):
            results["structures"][structure] = {
                arm: of_arm.estimates() for arm, of_arm in replicate(asked.of(structure)).items()
            }
    experiment.correct(results["verdicts"])
    return results
