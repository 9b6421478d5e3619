"""Does a synthetic cohort help a classifier? Arms that differ in their training images alone, judged on real ones."""

import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from retinalogos.classifiers import statistics
from retinalogos.classifiers.configuration import GraderConfig, Suspects
from retinalogos.classifiers.grader import UNKNOWN, Grader, Labels, fit_grader
from retinalogos.cohort.schema import GLAUCOMA, ICDR_GRADES
from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import DataError
from retinalogos.metrics.intervals import Estimate
from retinalogos.progress import track

# Task → names of its classes.
TASKS: dict[str, tuple[str, ...]] = {"dr_grade": ICDR_GRADES, "glaucoma": ("no", "glaucoma")}
REAL, SYNTHETIC = "real", "synthetic"


@dataclass(frozen=True)
class Sample:
    """Eyes in memory.

    Attributes:
        image_id, patient_id, group: strings (n,); ``group`` is the duplicate group, the image_id where there is none.
        synthetic: bool (n,), whether a generator drew the image.
        images: uint8, n × size × size × 3.
        labels: task → integers (n,), -1 where unknown.
    """

    image_id: np.ndarray
    patient_id: np.ndarray
    group: np.ndarray
    synthetic: np.ndarray
    images: np.ndarray
    labels: Labels

    def __len__(self) -> int:
        return len(self.image_id)

    def classes(self, task: str) -> int:
        """How many classes of the task occur."""
        return len(set(self.labels[task].tolist()) - {UNKNOWN})


@dataclass(frozen=True)
class Arm:
    """What one arm trains on: all real images or none, and the first ``synthetic`` of the shuffled synthetic ones."""

    name: str
    real: int
    synthetic: int


@dataclass(frozen=True)
class Run:
    """One training: probabilities of its tasks, n × classes, on each set that it was judged on."""

    arm: str
    seed: int
    probabilities: Mapping[str, Mapping[str, np.ndarray]]


def read_sample(cohort: Cohort, split: str | None, size: int, suspects: Suspects) -> Sample:
    """Reads a split (None: all rows) at ``size`` pixels.

    Args:
        cohort: real or synthetic.
        split: name of the split.
        size: side in pixels.
        suspects: what a glaucoma suspect counts as.
    """
    glaucoma = {"no": 0, "glaucoma": 1, "suspect": {"exclude": UNKNOWN, "no": 0, "glaucoma": 1}[suspects]}
    assert glaucoma.keys() == set(GLAUCOMA)
    names = ("image_id", "patient_id", "duplicate_group", "generator", "dr_grade", "glaucoma", "image")
    rows, images = [], []
    for row in track(cohort.rows(names, split), f"read {cohort.meta['name']} {split or ''}".strip(), unit="eye"):
        images.append(decode_image(row.pop("image")["bytes"], size))
        rows.append(row)
    return Sample(
        image_id=np.array([row["image_id"] for row in rows], str),
        patient_id=np.array([row["patient_id"] for row in rows], str),
        group=np.array([row["duplicate_group"] or row["image_id"] for row in rows], str),
        synthetic=np.array([row["generator"] is not None for row in rows], bool),
        images=np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8),
        labels={
            "dr_grade": np.array([UNKNOWN if row["dr_grade"] is None else row["dr_grade"] for row in rows], np.int64),
            "glaucoma": np.array([glaucoma.get(row["glaucoma"], UNKNOWN) for row in rows], np.int64),
        },
    )


def check_separation(training: Mapping[str, Sample], judged: Mapping[str, Sample], synthetic: Sample) -> None:
    """Refuses a comparison whose judges have seen the answers.

    Args:
        training: name → real images that are trained on.
        judged: name → real images that choose or judge a classifier (validation, test, external cohorts).
        synthetic: images that are trained on beside or instead of the real ones.

    Raises:
        DataError: a set of real images holds a synthetic one, the synthetic cohort a real one, or a patient, an image
            or a group of duplicates stands in two of the sets. The message names the row.
    """
    for name, sample in {**training, **judged}.items():
        if sample.synthetic.any():
            row = sample.image_id[sample.synthetic][0]
            raise DataError(f"{name} images hold the synthetic image {row}: give real images only as the real cohort")
    if not synthetic.synthetic.all():
        row = synthetic.image_id[~synthetic.synthetic][0]
        raise DataError(f"image {row} of the synthetic cohort names no generator: is it a photograph?")
    samples = {**training, SYNTHETIC: synthetic, **judged}
    names = list(samples)
    for second in judged:
        for first in names[: names.index(second)]:
            for what, column in (("patient", "patient_id"), ("duplicate group", "group"), ("image", "image_id")):
                here, there = getattr(samples[first], column), getattr(samples[second], column)
                shared = np.flatnonzero(np.isin(there, here))
                if shared.size:
                    raise DataError(
                        f"image {samples[second].image_id[shared[0]]} of the {second} images: its {what} is also "
                        f"among the {first} images ({shared.size} such images); split the cohort by patient"
                    )


def plan_arms(real: int, synthetic: int, shares: tuple[float, ...]) -> tuple[list[Arm], dict[str, str]]:
    """The arms, and the reason for each that is left out.

    ``real_plus_50`` adds half of the synthetic cohort to all real images. Shares of the cohort, not ratios to the real
    images, so that no arm asks for more images than were drawn; how many images of each kind an arm has is told beside
    its figures.
    """
    arms = [Arm(REAL, real, 0)]
    if not synthetic:
        missing = "the synthetic cohort has no image"
        return arms, dict.fromkeys((*(_mixed(share) for share in sorted(shares)), SYNTHETIC), missing)
    arms += [Arm(_mixed(share), real, max(1, round(share * synthetic))) for share in sorted(shares)]
    return [*arms, Arm(SYNTHETIC, 0, synthetic)], {}


def _mixed(share: float) -> str:
    return f"{REAL}_plus_{round(100 * share)}"


def usable_tasks(training: Sample, test: Sample) -> tuple[list[str], dict[str, str]]:
    """Tasks with at least two classes in both samples, and the reason for each other task."""
    usable, skipped = [], {}
    for task in TASKS:
        for name, sample in (("training", training), ("test", test)):
            if sample.classes(task) < 2:
                skipped[task] = f"the {name} images hold {sample.classes(task)} of its classes; two are needed"
                break
        else:
            usable.append(task)
    return usable, skipped


def mix(arm: Arm, real: Sample, synthetic: Sample, seed: int) -> tuple[np.ndarray, Labels]:
    """Images and labels of an arm; the synthetic ones of a smaller arm are among those of a larger one."""
    drawn = np.sort(np.random.default_rng(seed).permutation(len(synthetic))[: arm.synthetic])
    labels = {task: np.concatenate([real.labels[task][: arm.real], synthetic.labels[task][drawn]]) for task in TASKS}
    return np.concatenate([real.images[: arm.real], synthetic.images[drawn]]), labels


def train_arms(
    arms: list[Arm],
    seeds: list[int],
    tasks: list[str],
    real: Sample,
    synthetic: Sample,
    validation: Sample,
    judged: Mapping[str, Sample],
    config: GraderConfig,
    workers: int,
) -> tuple[list[Run], dict[str, dict[str, str]]]:
    """Trains one grader for all tasks per arm and seed, with as many optimiser steps in every arm.

    Whatever an arm was trained on, its probabilities are for classes as frequent as among the real training images,
    which are the frequencies that a clinic knows.

    Each training runs on one thread of the CPU, several side by side, so that the results do not depend on the number
    of cores or of ``workers``.

    Args:
        arms: what each trains on.
        seeds: of initial weights, order, augmentation and the choice of synthetic images.
        tasks: tasks to learn; those of which an arm's images hold fewer than two classes are left out of that arm.
        real, synthetic: training images.
        validation: real images by which the best state of a training is chosen.
        judged: name → images to judge on.
        config: settings of the grader.
        workers: trainings at a time; 1 with an accelerator.

    Returns:
        The runs, and per arm and task the reason why it was left out.
    """
    ticks: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    skipped: dict[str, dict[str, str]] = {}

    frequencies = {task: statistics.class_frequencies(real.labels[task], len(TASKS[task])) for task in tasks}

    def predict(grader: Grader, images: np.ndarray) -> dict[str, np.ndarray]:
        return {
            task: statistics.at_frequencies(probabilities, frequencies[task])
            for task, probabilities in grader.predict(images).items()
        }

    def train(arm: Arm, seed: int) -> Run:
        torch.set_num_threads(1)
        try:
            images, labels = mix(arm, real, synthetic, seed)
            classes = {task: len(TASKS[task]) for task in tasks if task not in skipped.get(arm.name, {})}
            chosen = (validation.images, validation.labels) if len(validation) else None
            grader = fit_grader(images, labels, classes, config, seed, chosen, lambda: ticks.put(None))
            return Run(arm.name, seed, {name: predict(grader, sample.images) for name, sample in judged.items()})
        except BaseException as error:
            ticks.put(error)
            raise

    jobs = []
    for arm in arms:
        for task in tasks:
            count = len({*mix(arm, real, synthetic, seeds[0])[1][task].tolist()} - {UNKNOWN})
            if count < 2:
                reason = f"the training images of this arm hold {count} of its classes; two are needed"
                skipped.setdefault(arm.name, {})[task] = reason
        if len(skipped.get(arm.name, {})) < len(tasks):
            jobs += [(arm, seed) for seed in seeds]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(train, *job) for job in jobs]
            total = len(jobs) * config.steps
            for error in track((ticks.get() for _ in range(total)), "train classifiers", total, "step"):
                if error is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise error
            return [future.result() for future in futures], skipped
    finally:
        torch.set_num_threads(threads)


def judge(runs: list[Run], name: str, sample: Sample, resamples: int, seed: int) -> dict[str, dict]:
    """Figures of every task and arm on one set of images.

    Returns:
        ``figures`` task → arm → figure → estimate, mean over seeds; ``difference`` the same minus the arm ``real``,
        paired; ``seeds`` task → arm → seed → figure → estimate; ``confusion`` task → arm → truth × decision, summed
        over seeds; ``skipped`` task → reason.
    """
    results: dict[str, dict] = {key: {} for key in ("figures", "difference", "seeds", "confusion", "skipped")}
    for task, classes in TASKS.items():
        known = sample.labels[task] != UNKNOWN
        truth, patients = sample.labels[task][known], sample.patient_id[known]
        of_arm: dict[str, dict[int, np.ndarray]] = {}
        for run in runs:
            if task in run.probabilities[name]:
                of_arm.setdefault(run.arm, {})[run.seed] = run.probabilities[name][task][known]
        if not of_arm:
            continue
        if sample.classes(task) < 2:
            results["skipped"][task] = f"the {name} images hold {sample.classes(task)} of its classes; two are needed"
            continue

        def estimates(
            these: list[np.ndarray],
            against: list[np.ndarray] | None = None,
            truth: np.ndarray = truth,
            patients: np.ndarray = patients,
        ) -> dict[str, Estimate]:
            return statistics.estimate(truth, these, patients, resamples, seed, against)

        pooled = {arm: list(by_seed.values()) for arm, by_seed in of_arm.items()}
        results["figures"][task] = {arm: estimates(these) for arm, these in pooled.items()}
        results["seeds"][task] = {
            arm: {f"seed_{number}": estimates([run]) for number, run in by_seed.items()}
            for arm, by_seed in of_arm.items()
        }
        results["confusion"][task] = {
            arm: sum(statistics.confusion_matrices(truth, run.argmax(1), len(classes))[0] for run in these)
            for arm, these in pooled.items()
        }
        if REAL in pooled:
            results["difference"][task] = {
                arm: estimates(these, pooled[REAL]) for arm, these in pooled.items() if arm != REAL
            }
    return results


def predictions(runs: list[Run], judged: Mapping[str, Sample]) -> Iterator[dict]:
    """A row per image with a known label, task, arm and seed; probabilities to six digits, no patient."""
    for run in runs:
        for name, of_task in run.probabilities.items():
            sample = judged[name]
            for task, probabilities in of_task.items():
                for row in np.flatnonzero(sample.labels[task] != UNKNOWN):
                    yield {
                        "image_id": str(sample.image_id[row]),
                        "set": name,
                        "task": task,
                        "arm": run.arm,
                        "seed": run.seed,
                        "truth": int(sample.labels[task][row]),
                        "probabilities": [round(float(p), 6) for p in probabilities[row]],
                    }
