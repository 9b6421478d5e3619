"""What is looked at: every image of a cohort, once, as a stream.

Only what the metrics need is kept of an image. Its features in each space, its small descriptor and its fine structure
go to disk, some kilobytes an image; what the judge and the measurement see in it, and its labels, stay in memory. The
pixels go, but for a few that are asked for.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from retinalogos.captions.template import write_captions
from retinalogos.captions.tokens import TokenBudget
from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.classifiers.experiment import FINDING, fewest, finding_labels
from retinalogos.classifiers.grader import UNKNOWN, Grader, Labels, fit_grader
from retinalogos.cohort.schema import EYES, ICDR_GRADES
from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import DataError
from retinalogos.metrics.alignment import structure
from retinalogos.metrics.bands import on_disk
from retinalogos.metrics.features import FeatureSpace
from retinalogos.metrics.memorisation import pixel_descriptor
from retinalogos.phantom import measure
from retinalogos.progress import track

BATCH = 64  # images at a time: bounds memory
# Beside the features, of whose spaces none has these names.
_DESCRIPTORS, _STRUCTURES = "descriptors of pixels", "fine structure"

# Tasks of the judge and the names of their classes. A glaucoma suspect is neither and is not shown to the judge.
TASKS: dict[str, tuple[str, ...]] = {
    "eye": EYES,
    "dr_grade": tuple(str(grade) for grade in range(len(ICDR_GRADES))),
    "glaucoma": ("no", "glaucoma"),
}


# What a caption says of an eye; nothing else of a record is used.
ASKED = ("eye", "dr_grade", "dme", "glaucoma", "vcdr", "findings")


@dataclass(frozen=True)
class Measured:
    """What is found in the pixels of phantom eyes; nan, and None for the side, where there is no disc to be found.

    Attributes:
        side: ``left`` or ``right``, the half of the picture with the disc, n objects.
        vcdr: vertical cup-to-disc ratio, 0-1, n.
        load: share of the field covered by dark and bright lesions, 0-1, n.
        disc_fovea: distance of the centres of disc and fovea, shares of the picture's side, n.
        fovea_angle: degrees by which the fovea lies below the disc, n.
    """

    side: np.ndarray
    vcdr: np.ndarray
    load: np.ndarray
    disc_fovea: np.ndarray
    fovea_angle: np.ndarray


def measure_phantoms(images: np.ndarray) -> Measured:
    """Disc, cup, fovea and lesion load of phantom eyes, uint8 n × h × h × 3, by :func:`retinalogos.phantom.measure`."""
    found = measure(images)
    across, down = (np.array([eye[f"fovea_{axis}"] - eye[f"disc_{axis}"] for eye in found], float) for axis in "xy")
    return Measured(
        side=np.array([eye["disc_side"] for eye in found], dtype=object),
        vcdr=np.array([eye["vcdr"] for eye in found], float),
        load=np.array([eye["dark_load"] + eye["bright_load"] for eye in found], float),
        disc_fovea=np.hypot(across, down),
        fovea_angle=np.degrees(np.arctan2(down, np.abs(across))),
    )


Measurement = Callable[[np.ndarray], Measured]


@dataclass(frozen=True)
class Asked:
    """Labels of n images: of real ones what the record says, of synthetic ones what was asked for.

    ``codes`` holds per task of :data:`TASKS` the index of the class, and of each finding (``finding_<code>``) 1 where
    it is present, -1 where unknown; ``vcdr`` is nan where unknown; ``strata`` names the grade and the glaucoma status
    together. ``patient_id`` is what intervals are resampled by: a drawn image is nobody's and has its own id there.
    """

    image_id: list[str]
    patient_id: list[str]
    codes: Labels
    vcdr: np.ndarray
    strata: list[str]

    @property
    def patients(self) -> np.ndarray:
        """``patient_id`` as an array, n."""
        return np.array(self.patient_id)


def read_labels(cohort: Cohort, split: str | None) -> Asked:
    """Labels of one split (or of all), in the order of the images."""
    table = cohort.table(("image_id", "patient_id", "generator", *TASKS, "vcdr", "findings"), split).to_pydict()
    codes = {
        task: np.array([names.index(str(v)) if str(v) in names else UNKNOWN for v in table[task]], np.int64)
        for task, names in TASKS.items()
    } | finding_labels(table["findings"])
    vcdr = np.array([np.nan if v is None else v for v in table["vcdr"]], float)
    strata = [f"grade {g}, glaucoma {s}" for g, s in zip(table["dr_grade"], table["glaucoma"], strict=True)]
    patients = [
        patient if generator is None else image
        for image, patient, generator in zip(table["image_id"], table["patient_id"], table["generator"], strict=True)
    ]
    return Asked(table["image_id"], patients, codes, vcdr, strata)


def captions_of(cohort: Cohort, split: str | None, budget: TokenBudget, seed: int) -> list[str]:
    """What a generator is told of each image: its prompt, or the fine caption of its labels; in their order.

    Args:
        cohort: real or synthetic.
        split: one of the splits, or None for all rows.
        budget: of the captions that are written here.
        seed: of their wording.
    """
    rows = cohort.table((*ASKED, "prompt"), split).to_pylist()
    without = [row for row in rows if not row["prompt"]]
    written = write_captions([(row, "fine", 0, seed + at) for at, row in enumerate(without)], budget)
    texts = iter(caption.text for caption in written)
    return [row["prompt"] or next(texts) for row in rows]


@dataclass(frozen=True)
class Observed:
    """A set of n images as the metrics see it.

    ``spaces`` holds features, n × d, by the name of their space; ``seen`` the judge's probabilities by task. Features,
    ``descriptors`` and ``structures`` may lie on disk.
    """

    asked: Asked
    spaces: dict[str, np.ndarray]
    descriptors: np.ndarray
    structures: np.ndarray
    seen: dict[str, np.ndarray]
    measured: Measured | None
    kept: dict[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.descriptors)

    @property
    def features(self) -> np.ndarray:
        """Features in the first space, n × d."""
        return next(iter(self.spaces.values()))


def image_batches(cohort: Cohort, split: str | None, size: int) -> Iterator[np.ndarray]:
    """uint8 batches of at most BATCH × size × size × 3, in the order of the cohort."""
    batch: list[np.ndarray] = []
    for _, image in cohort.images(size, split):
        batch.append(image)
        if len(batch) == BATCH:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def pictures(cohort: Cohort, image_ids: Collection[str], size: int) -> dict[str, np.ndarray]:
    """The images with these ids, size × size × 3, decoding no others."""
    wanted = set(image_ids)
    return {
        row["image_id"]: decode_image(row["image"]["bytes"], size)
        for row in cohort.rows(("image_id", "image"))
        if row["image_id"] in wanted
    }


def observe(
    cohort: Cohort,
    split: str | None,
    size: int,
    spaces: Sequence[FeatureSpace],
    descriptor_side: int,
    judge: Grader | None,
    measurement: Measurement | None,
    keep: Collection[int] = (),
) -> Observed:
    """Looks at every image of a split (or of all) once.

    Args:
        cohort: real or synthetic.
        split: one of the splits, or None for all rows.
        size: pixels at which images are looked at.
        spaces: of the features, the first the one that figures without a name of a space are in.
        descriptor_side: pixels of the small grey copy (:func:`pixel_descriptor`).
        judge: classifier trained on real images, if there is one.
        measurement: of disc, cup and lesions, if the images are phantoms.
        keep: positions of images whose pixels are kept.

    Raises:
        DataError: there is no image.
    """
    asked = read_labels(cohort, split)
    what = split or "synthetic"
    if not asked.image_id:
        raise DataError(f"{cohort.folder}: no image in the split {what!r}; assessment needs some")
    wanted = set(keep)
    kept: dict[int, np.ndarray] = {}
    stored: dict[str, np.ndarray] = {}
    measured, at = [], 0
    seen: dict[str, list[np.ndarray]] = {}
    batches = -(-len(asked.image_id) // BATCH)
    for images in track(image_batches(cohort, split, size), f"observe {what}", total=batches, unit="batch"):
        wide = {space.name: space.features(images) for space in spaces}
        wide |= {_DESCRIPTORS: pixel_descriptor(images, descriptor_side), _STRUCTURES: structure(images)}
        for name, values in wide.items():
            if name not in stored:
                stored[name] = on_disk((len(asked.image_id), *values.shape[1:]), values.dtype)
            stored[name][at : at + len(images)] = values
        for task, probabilities in (judge.predict(images) if judge else {}).items():
            seen.setdefault(task, []).append(probabilities)
        if measurement:
            measured.append(measurement(images))
        kept.update({at + i: image for i, image in enumerate(images) if at + i in wanted})
        at += len(images)
    return Observed(
        asked,
        {space.name: stored[space.name] for space in spaces},
        stored[_DESCRIPTORS],
        stored[_STRUCTURES],
        {task: np.concatenate(parts) for task, parts in seen.items()},
        Measured(*(np.concatenate([getattr(m, f.name) for m in measured]) for f in fields(Measured)))
        if measured
        else None,
        kept,
    )


def fit_judge(
    cohort: Cohort, config: GraderConfig, size: int, most: int, seed: int, finding_images: int = 20
) -> Grader | None:
    """A grader for all tasks of :data:`TASKS` for which the real training images have two classes or more.

    Findings are learnt last, on its features as they are: they change neither the features nor the other answers.

    Args:
        cohort: the real cohort; only its training split is learnt from, its validation split selects the state.
        config: of the grader.
        size: pixels at which images are read.
        most: at most so many training images, a seeded sample.
        seed: of the sample and of the training.
        finding_images: training images with a finding, and without, to learn it.

    Returns:
        The grader, or None where no task has two classes.
    """
    images, labels = _load(cohort, "train", size, most, seed)
    tasks = {
        task: len(names) for task, names in TASKS.items() if len(np.unique(labels[task][labels[task] != UNKNOWN])) > 1
    }
    if not tasks:
        return None
    validation = _load(cohort, "validation", size, most, seed)
    grader = fit_grader(images, labels, tasks, config, seed, validation if len(validation[0]) else None)
    findings = {
        task: values for task, values in labels.items() if task.startswith(FINDING) and fewest(values) >= finding_images
    }
    grader.learn_more(images, findings)
    return grader


def _load(cohort: Cohort, split: str, size: int, most: int, seed: int) -> tuple[np.ndarray, Labels]:
    asked = read_labels(cohort, split)
    n = len(asked.image_id)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[:most])
    images = np.empty((len(chosen), size, size, 3), np.uint8)
    at = 0
    members = set(chosen.tolist())
    for position, row in enumerate(cohort.rows(("image",), split)):
        if position in members:
            images[at] = decode_image(row["image"]["bytes"], size)
            at += 1
    return images, {task: codes[chosen] for task, codes in asked.codes.items()}
