"""The tasks of which maps are the truth: vessels, lesions, disc and cup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.classify.step import ClassifyParams
from retinalogos.classifiers import experiment
from retinalogos.classifiers.experiment import Arm
from retinalogos.cohort.shards import Cohort
from retinalogos.segmenters import experiment as segmenters
from retinalogos.segmenters.structures import Annotated, read_annotated


@dataclass(frozen=True)
class Compared:
    """What came of the comparison of segmenters.

    Attributes:
        structures: that were learnt.
        arms: what each trained on: of the images of a mix those with maps.
        images: number of images with maps by name of the set.
        skipped: ``tasks``, ``arms`` and ``structures_of_arms`` that were left out, with the reasons.
        found: set of images → what :func:`retinalogos.segmenters.experiment.judge` gives.
    """

    structures: list[str]
    arms: list[Arm]
    images: dict[str, int]
    skipped: dict[str, Any]
    found: dict[str, dict[str, dict]]


def compare(
    params: ClassifyParams,
    tasks: Sequence[str],
    seeds: Sequence[int],
    cohort: Cohort,
    synthetic_cohort: Cohort,
    elsewhere: Mapping[str, Annotated],
) -> Compared:
    """Trains segmenters on the mixes, as far as their images have maps, and judges them on real maps.

    Args:
        params: of the step.
        tasks: of them those that segmenters learn.
        seeds: of the trainings.
        cohort: real.
        synthetic_cohort: synthetic.
        elsewhere: images with maps of other places, by name.
    """
    size = params.segmenter.size
    train, validation, test = (
        read_annotated(cohort, split, size, params.suspects) for split in ("train", "validation", "test")
    )
    synthetic = read_annotated(synthetic_cohort, None, size, params.suspects)
    judged = {"test": test} | {name: part for name, part in elsewhere.items() if len(part)}
    structures, skipped_tasks = segmenters.usable_structures(tasks, train, test, synthetic, params.structure_images)
    arms, skipped_arms = experiment.plan_arms(params.mixes, train.eyes, synthetic.eyes)
    runs, skipped = segmenters.train_arms(
        arms, seeds, structures, train, synthetic, validation, judged, params.segmenter, params.workers
    )
    left = [task for task in tasks if task not in skipped_tasks]
    return Compared(
        structures,
        arms,
        {
            name: len(part)
            for name, part in (("train", train), ("synthetic", synthetic), ("validation", validation), *judged.items())
        },
        {"tasks": skipped_tasks, "arms": skipped_arms, "structures_of_arms": skipped},
        {
            name: segmenters.judge(runs, left, name, part, params.resamples, params.seed)
            for name, part in judged.items()
        },
    )
