"""Does a synthetic cohort help a classifier? Arms that differ in their training images alone, judged on real ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from retinalogos.classifiers import mixes, statistics
from retinalogos.classifiers.configuration import PARTS, GraderConfig, Suspects
from retinalogos.classifiers.grader import UNKNOWN, Grader, Labels, fit_grader
from retinalogos.classifiers.mixes import SYNTHETIC, Mix
from retinalogos.classifiers.predictions import REFERABLE
from retinalogos.classifiers.statistics import Question, Replicates
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import GLAUCOMA, ICDR_GRADES, SEXES
from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import DataError
from retinalogos.metrics.intervals import Estimate
from retinalogos.progress import track
from retinalogos.training.side_by_side import side_by_side

# Task → names of its classes.
TASKS: dict[str, tuple[str, ...]] = {
    "dr_grade": ICDR_GRADES,
    "referable_dr": ("no", "referable"),
    "glaucoma": ("no", "glaucoma"),
    "findings": ("absent", "present"),
}
# Task → figure by which mixes are compared: the field's own.
PRIMARY = {"dr_grade": "qwk", "referable_dr": "auc", "glaucoma": "auc", "findings": "auc"}
FINDING = "finding_"
# The largest probability of the wrong conclusion that is called a conclusion.
SIGNIFICANCE = 0.05
AGES = ((0, 45, "under_45"), (45, 65, "45_to_64"), (65, 200, "65_and_over"))


@dataclass(frozen=True)
class Sample:
    """Eyes in memory.

    Attributes:
        image_id, patient_id, group: strings (n,); ``group`` is the duplicate group, the image_id where there is none.
        synthetic: bool (n,), whether a generator drew the image.
        images: uint8, n × size × size × 3.
        labels: what a head may learn, ``dr_grade``, ``glaucoma`` or a finding as ``finding_<code>`` → integers (n,),
            -1 where unknown.
        subgroups: attribute → name of each eye's group, strings (n,), empty where unknown.
    """

    image_id: np.ndarray
    patient_id: np.ndarray
    group: np.ndarray
    synthetic: np.ndarray
    images: np.ndarray
    labels: Labels
    subgroups: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.image_id)

    def classes(self, head: str) -> int:
        """How many classes that a head may learn occur."""
        return len(set(self.labels[head].tolist()) - {UNKNOWN})


@dataclass(frozen=True)
class Arm:
    """What one arm trains on: so many of the real images, and so many of the synthetic ones."""

    mix: Mix
    real: int
    synthetic: int

    @property
    def name(self) -> str:
        """The name of the mix."""
        return self.mix.name


@dataclass(frozen=True)
class Run:
    """One training: probabilities of its heads, n × classes, on each set that it was judged on."""

    arm: str
    seed: int
    probabilities: Mapping[str, Mapping[str, np.ndarray]]


# Columns that :func:`sample_of` reads, beside the image.
COLUMNS = (
    *("image_id", "patient_id", "duplicate_group", "generator", "dr_grade", "glaucoma", "findings"),
    *("age", "sex", "source"),
)


def read_sample(cohort: Cohort, split: str | None, size: int, suspects: Suspects) -> Sample:
    """Reads a split (None: all rows) at ``size`` pixels.

    Args:
        cohort: real or synthetic.
        split: name of the split.
        size: side in pixels.
        suspects: what a glaucoma suspect counts as.
    """
    rows, images = [], []
    wanted = (*COLUMNS, "image")
    for row in track(cohort.rows(wanted, split), f"read {cohort.meta['name']} {split or ''}".strip(), unit="eye"):
        images.append(decode_image(row.pop("image")["bytes"], size))
        rows.append(row)
    return sample_of(rows, np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8), suspects)


def sample_of(rows: Sequence[Mapping[str, Any]], images: np.ndarray, suspects: Suspects) -> Sample:
    """The sample of these rows of a cohort, of which :data:`COLUMNS` are read, and their images."""
    glaucoma = {"no": 0, "glaucoma": 1, "suspect": {"exclude": UNKNOWN, "no": 0, "glaucoma": 1}[suspects]}
    assert glaucoma.keys() == set(GLAUCOMA)
    labels = {
        "dr_grade": np.array([UNKNOWN if row["dr_grade"] is None else row["dr_grade"] for row in rows], np.int64),
        "glaucoma": np.array([glaucoma.get(row["glaucoma"], UNKNOWN) for row in rows], np.int64),
    }
    labels |= finding_labels([row["findings"] for row in rows])
    return Sample(
        image_id=np.array([row["image_id"] for row in rows], str),
        patient_id=np.array([row["patient_id"] for row in rows], str),
        group=np.array([row["duplicate_group"] or row["image_id"] for row in rows], str),
        synthetic=np.array([row["generator"] is not None for row in rows], bool),
        images=images,
        labels=labels,
        subgroups={
            "age": np.array([_age_group(row["age"]) for row in rows], str),
            "sex": np.array([row["sex"] if row["sex"] in SEXES else "" for row in rows], str),
            "source": np.array([row["source"] for row in rows], str),
        },
    )


def finding_labels(findings: Sequence[Sequence[str] | None]) -> Labels:
    """``finding_<code>`` → integers (n,) of all findings: 0 absent, 1 present, -1 where an eye's are not known."""
    examined = np.array([codes is not None for codes in findings], bool)
    return {
        FINDING + code: np.where(examined, np.array([code in (codes or ()) for codes in findings], np.int64), UNKNOWN)
        for code in FINDINGS
    }


def _age_group(age: float | None) -> str:
    return next((name for low, high, name in AGES if age is not None and low <= age < high), "")


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


def plan_arms(names: Sequence[str], real: Sample, synthetic: Sample) -> tuple[list[Arm], dict[str, str]]:
    """The arms in the order of their names, and the reason for each that is left out.

    How many images of each kind an arm has is told beside its figures.
    """
    arms: list[Arm] = []
    skipped: dict[str, str] = {}
    rare = int(of_rare_classes(real, synthetic).sum())
    for mix in map(mixes.parse, names):
        count = round(mix.real / 100 * len(real))
        if mix.rare:
            wanted = rare
        elif mix.ratio:
            wanted = round(mix.ratio / 100 * count)
        else:
            wanted = max(1, round(mix.plus / 100 * len(synthetic))) if mix.plus else 0
        if mix.real and count < 2:
            skipped[mix.name] = f"{mix.real} % of {len(real)} real images are {count}; two are needed"
        elif mix.has_synthetic and not len(synthetic):
            skipped[mix.name] = "the synthetic cohort has no image"
        elif mix.rare and not rare:
            skipped[mix.name] = "no synthetic image is of a class that is rare among the real ones"
        elif wanted > len(synthetic):
            skipped[mix.name] = f"it asks for {wanted} synthetic images, and {len(synthetic)} were drawn"
        else:
            arms.append(Arm(mix, count, wanted))
    return arms, skipped


def of_rare_classes(real: Sample, synthetic: Sample) -> np.ndarray:
    """Which synthetic images, bool (n,), are of a grade or of a glaucoma status that is rare among the real ones.

    Rare is a class with fewer real images than if all classes of its task had equally many.
    """
    found = np.zeros(len(synthetic), bool)
    for task in ("dr_grade", "glaucoma"):
        frequencies = statistics.class_frequencies(real.labels[task], len(TASKS[task]))
        rare = np.flatnonzero(frequencies < 1 / len(frequencies))
        if frequencies.any():
            found |= np.isin(synthetic.labels[task], rare)
    return found


def usable_heads(
    tasks: Sequence[str], training: Sample, test: Sample, finding_images: int
) -> tuple[dict[str, int], dict[str, str]]:
    """Heads to train, with the number of their classes, and the reason for each task that is left out.

    A head needs two classes in both samples; a finding also so many training images with it, and as many without.
    Referable retinopathy is told by the head of the grade.
    """
    heads: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for task in tasks:
        if task == "findings":
            found = [head for head in training.labels if head.startswith(FINDING) and test.classes(head) == 2]
            enough = [head for head in found if fewest(training.labels[head]) >= finding_images]
            heads |= dict.fromkeys(enough, 2)
            if not enough:
                skipped[task] = f"no finding is in {finding_images} training images and among the test images"
            continue
        head = _head(task)
        for name, sample in (("training", training), ("test", test)):
            if sample.classes(head) < 2:
                skipped[task] = f"the {name} images hold {sample.classes(head)} of its classes; two are needed"
                break
        else:
            heads[head] = len(TASKS[head])
    return heads, skipped


def fewest(labels: np.ndarray) -> int:
    """How many images show a finding, or lack it: the smaller number."""
    return int(min((labels == 0).sum(), (labels == 1).sum()))


def _head(task: str) -> str:
    return "dr_grade" if task == "referable_dr" else task


def training_rows(arm: Arm, real: Sample, synthetic: Sample, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the real and of the synthetic images of an arm; a smaller arm's are among a larger one's of its kind."""
    rows = np.arange(len(real))
    if arm.real < len(real):
        # By patient: the first so many images, the patients in an order of this seed's own.
        patients = np.unique(real.patient_id, return_inverse=True)[1]
        turn = np.random.default_rng([seed, 1]).permutation(len(real))[patients]
        rows = np.sort(np.argsort(turn, kind="stable")[: arm.real])
    order = np.random.default_rng(seed).permutation(len(synthetic))
    if arm.mix.rare:
        order = order[of_rare_classes(real, synthetic)[order]]
    return rows, np.sort(order[: arm.synthetic])


def train_arms(
    arms: list[Arm],
    seeds: list[int],
    heads: Mapping[str, int],
    real: Sample,
    synthetic: Sample,
    validation: Sample,
    judged: Mapping[str, Sample],
    config: GraderConfig,
    workers: int,
) -> tuple[list[Run], dict[str, dict[str, str]]]:
    """Trains one grader with all heads per arm and seed, with as many optimiser steps in every arm.

    Whatever an arm was trained on, its probabilities are for classes as frequent as among the real training images,
    which are the frequencies that a clinic knows.

    Each training runs on one thread of the CPU, several side by side, so that the results do not depend on the number
    of cores or of ``workers``.

    Args:
        arms: what each trains on.
        seeds: of initial weights, order, augmentation and the choice of images.
        heads: what to learn → number of classes; those of which an arm's images hold fewer than two classes, with any
            seed, are left out of that arm.
        real, synthetic: training images.
        validation: real images by which the best state of a training is chosen, the same in every arm.
        judged: name → images to judge on.
        config: settings of the grader; an arm without a part of the recipe changes them.
        workers: trainings at a time; 1 with an accelerator.

    Returns:
        The runs, and per arm and head the reason why it was left out.
    """
    skipped: dict[str, dict[str, str]] = {}

    frequencies = {head: statistics.class_frequencies(real.labels[head], count) for head, count in heads.items()}

    def predict(grader: Grader, images: np.ndarray) -> dict[str, np.ndarray]:
        return {
            head: statistics.at_frequencies(probabilities, frequencies[head])
            for head, probabilities in grader.predict(images).items()
        }

    def train(arm: Arm, seed: int, on_step: Callable[[], None]) -> Run:
        classes = {head: count for head, count in heads.items() if head not in skipped.get(arm.name, {})}
        rows, drawn = training_rows(arm, real, synthetic, seed)
        images = np.concatenate([real.images[rows], synthetic.images[drawn]])
        labels = {head: np.concatenate([real.labels[head][rows], synthetic.labels[head][drawn]]) for head in classes}
        chosen = (validation.images, validation.labels) if len(validation) else None
        how = config.model_copy(update=PARTS[arm.mix.without]) if arm.mix.without else config
        grader = fit_grader(images, labels, classes, how, seed, chosen, on_step)
        return Run(arm.name, seed, {name: predict(grader, sample.images) for name, sample in judged.items()})

    jobs = []
    for arm in arms:
        chosen = [training_rows(arm, real, synthetic, seed) for seed in seeds]
        for head in heads:
            count = min(
                len({*real.labels[head][rows].tolist(), *synthetic.labels[head][drawn].tolist()} - {UNKNOWN})
                for rows, drawn in chosen
            )
            if count < 2:
                reason = f"the training images of this arm hold {count} of its classes; two are needed"
                skipped.setdefault(arm.name, {})[head] = reason
        if len(skipped.get(arm.name, {})) < len(heads):
            jobs += [partial(train, arm, seed) for seed in seeds]
    return side_by_side(jobs, config.steps, workers, "train classifiers"), skipped


@dataclass(frozen=True)
class _Asked:
    """A task on a set of images: which of them (bool, n), what each arm answered in each run, and to which heads."""

    known: np.ndarray
    arms: Mapping[str, list[Question]]
    heads: Sequence[str]

    def within(self, group: np.ndarray) -> Self | None:
        """The same on some of the images, bool (n,); None where these hold two classes of no question."""
        kept, both = group[self.known], self.known & group
        arms: dict[str, list[Question]] = {
            arm: [(truth[kept], [answers[kept] for answers in runs]) for truth, runs in questions]
            for arm, questions in self.arms.items()
        }
        several = any(len(set(truth.tolist())) > 1 for questions in arms.values() for truth, _ in questions)
        return type(self)(both, arms, self.heads) if several else None

    def of(self, head: int) -> "_Asked":
        """The same with one of the heads."""
        arms = {arm: [questions[head]] for arm, questions in self.arms.items()}
        return _Asked(self.known, arms, [self.heads[head]])


def _ask(task: str, runs: Sequence[Run], name: str, sample: Sample) -> _Asked | None:
    """What the runs answered to a task; None where none was trained for it, or the images hold one class of it."""
    trained = {head for run in runs for head in run.probabilities[name]}
    heads = sorted(head for head in trained if head.startswith(FINDING)) if task == "findings" else [_head(task)]
    heads = [head for head in heads if head in trained and len({*_truth(task, sample.labels[head])} - {UNKNOWN}) > 1]
    if not heads:
        return None
    known = sample.labels[heads[0]] != UNKNOWN
    arms: dict[str, list[Question]] = {}
    for arm in dict.fromkeys(run.arm for run in runs):
        of_arm = [run.probabilities[name] for run in runs if run.arm == arm]
        if all(head in probabilities for head in heads for probabilities in of_arm):
            arms[arm] = [
                (_truth(task, sample.labels[head][known]), [_answer(task, answer[head])[known] for answer in of_arm])
                for head in heads
            ]
    return _Asked(known, arms, heads) if arms else None


def _truth(task: str, labels: np.ndarray) -> np.ndarray:
    return np.where(labels == UNKNOWN, UNKNOWN, labels >= REFERABLE) if task == "referable_dr" else labels


def _answer(task: str, probabilities: np.ndarray) -> np.ndarray:
    if task != "referable_dr":
        return probabilities
    referred = probabilities[:, REFERABLE:].sum(1)
    return np.stack([1 - referred, referred], 1)


def judge(
    runs: list[Run],
    tasks: Sequence[str],
    name: str,
    sample: Sample,
    resamples: int,
    seed: int,
    least_specificity: float = 0.95,
) -> dict[str, dict]:
    """Figures of every task and arm on one set of images, and what follows from them.

    Args:
        runs: of all arms.
        tasks: of :data:`TASKS`.
        name: of the set.
        sample: the set.
        resamples: bootstrap resamples behind each interval and test.
        seed: of the resampling.
        least_specificity: at which the sensitivity is told, 0-1.

    Returns:
        ``figures`` task → arm → figure → estimate, mean over seeds; ``difference`` the same minus the arm's reference,
        paired; ``seeds`` task → arm → seed → figure → estimate; ``confusion`` task → arm → truth × decision, summed
        over seeds; ``verdicts`` task → arm → what the difference of the task's own figure says; ``findings`` finding →
        arm → AUC; ``subgroups`` task → attribute → group → the task's own figure and its differences; ``skipped``
        task → reason.
    """
    results: dict[str, dict] = {key: {} for key in (*SHARED, "confusion", "findings")}
    for task in tasks:
        asked = _ask(task, runs, name, sample)
        if asked is None:
            results["skipped"][task] = f"not learned, or the {name} images hold fewer than two of its classes"
            continue

        def replicate(asked: _Asked) -> dict[str, Replicates]:
            groups = sample.patient_id[asked.known]
            return statistics.replicate(asked.arms, groups, resamples, seed, least_specificity)

        found = replicate(asked)
        of_task = compared(found, PRIMARY[task], list(dict.fromkeys(run.seed for run in runs)))
        of_task["subgroups"] = by_subgroup(PRIMARY[task], asked, sample, replicate)
        for key, value in of_task.items():
            results[key][task] = value
        if task == "findings":
            results["findings"] = _each_finding(asked, replicate)
        else:
            results["confusion"][task] = {
                arm: sum(
                    statistics.confusion_matrices(truth, run.argmax(1), len(TASKS[task]))[0]
                    for truth, answers in questions
                    for run in answers
                )
                for arm, questions in asked.arms.items()
            }
    correct(results["verdicts"])
    return results


# What is told of every task, of classifiers and of segmenters.
SHARED = ("figures", "difference", "seeds", "verdicts", "subgroups", "skipped")


def compared(found: Mapping[str, Replicates], figure: str, seeds: Sequence[int]) -> dict[str, dict]:
    """Figures of the arms of a task, their differences to their references, and what that of ``figure`` says.

    The verdicts lack their conclusion, see :func:`correct`.
    """
    changes = _changes(found)
    return {
        "figures": {arm: of_arm.estimates() for arm, of_arm in found.items()},
        "difference": {arm: change.estimates() for arm, change in changes.items()},
        "seeds": {
            arm: {f"seed_{number}": of_arm.run(at).estimates() for at, number in enumerate(seeds)}
            for arm, of_arm in found.items()
        },
        "verdicts": {
            arm: {
                "figure": figure,
                "against": mixes.parse(arm).reference,
                "difference": change.estimates()[figure],
                "p": change.p_value(figure),
            }
            for arm, change in changes.items()
        },
    }


def _changes(found: Mapping[str, Replicates]) -> dict[str, Replicates]:
    """Each arm minus its reference, where there is one."""
    references = {arm: mixes.parse(arm).reference for arm in found}
    return {arm: found[arm].minus(found[first]) for arm, first in references.items() if first and first in found}


def correct(verdicts: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Corrects the p-values of a set of images for their number, and says what each difference shows.

    It helps, or harms, where the corrected p-value is below :data:`SIGNIFICANCE` and the interval leaves zero out; with
    anything less no difference is shown, which does not say that there is none.
    """
    every = [verdict for of_task in verdicts.values() for verdict in of_task.values()]
    for verdict, corrected in zip(every, statistics.holm([verdict["p"] for verdict in every]), strict=True):
        change: Estimate = verdict["difference"]
        says = "no difference shown"
        if corrected < SIGNIFICANCE and change.low is not None and change.high is not None:
            says = "helps" if change.low > 0 else "harms" if change.high < 0 else says
        verdict |= {"p_holm": corrected, "says": says}


def _each_finding(
    asked: _Asked, replicate: Callable[[_Asked], dict[str, Replicates]]
) -> dict[str, dict[str, Estimate]]:
    """AUC of each finding and arm."""
    return {
        head.removeprefix(FINDING): {arm: of_arm.estimates()["auc"] for arm, of_arm in replicate(asked.of(at)).items()}
        for at, head in enumerate(asked.heads)
    }


class _AnyAsked(Protocol):
    """A task on a set of images, of which ``known`` says in which of them it is known, bool (n,)."""

    @property
    def known(self) -> np.ndarray: ...

    def within(self, group: np.ndarray) -> Self | None:
        """The same on some of the images, bool (n,); None where these have nothing to tell."""


Asked = TypeVar("Asked", bound=_AnyAsked)


def by_subgroup(
    figure: str, asked: Asked, sample: Sample, replicate: Callable[[Asked], dict[str, Replicates]]
) -> dict[str, dict[str, Any]]:
    """A figure of every arm within each group of people, and its difference to the arm's reference there."""
    tables: dict[str, dict[str, Any]] = {}
    for attribute, of_eye in sample.subgroups.items():
        groups = sorted(set(of_eye[asked.known].tolist()) - {""})
        for group in groups if len(groups) > 1 else []:
            part = asked.within(of_eye == group)
            if part is None:
                continue
            found = replicate(part)
            tables.setdefault(attribute, {})[group] = {
                "figures": {arm: of_arm.estimates()[figure] for arm, of_arm in found.items()},
                "difference": {arm: change.estimates()[figure] for arm, change in _changes(found).items()},
            }
    return tables


def predictions(runs: list[Run], judged: Mapping[str, Sample]) -> Iterator[dict]:
    """A row per image with a known label, head, arm and seed; probabilities to six digits, no patient."""
    for name, sample in judged.items():
        for run in runs:
            for head, probabilities in run.probabilities[name].items():
                for row in np.flatnonzero(sample.labels[head] != UNKNOWN):
                    yield {
                        "image_id": str(sample.image_id[row]),
                        "set": name,
                        "task": head,
                        "arm": run.arm,
                        "seed": run.seed,
                        "truth": int(sample.labels[head][row]),
                        "probabilities": [round(float(p), 6) for p in probabilities[row]],
                    }
