"""Which figures stand in which table of the page, and what each of them means to a reader."""

from dataclasses import dataclass

from components.report.figures import Figure, Results, find


@dataclass(frozen=True)
class Line:
    """A row: its name, what it means, and the dotted name of the figure in each column.

    ``scale`` is that of the bars; None for one from zero to the largest value of the row.
    """

    name: str
    means: str
    figures: tuple[str, ...]
    percent: bool = False
    scale: tuple[float, float] | None = None


@dataclass(frozen=True)
class Table:
    """Lines under a title, and what the columns are."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Filled:
    """A table with its figures; lines without any figure on this cohort are left out."""

    title: str
    columns: tuple[str, ...]
    lines: list[tuple[Line, list[Figure]]]


def _both(path: str, first: str = "synthetic", second: str = "real") -> tuple[str, str]:
    return path.format(first), path.format(second)


ASSESSMENT = (
    Table(
        "Realism: how close to real photographs?",
        ("synthetic", "other real images"),
        (
            Line(
                "FID to the training images",
                "Fréchet distance in the feature space; lower is closer, and real images do not reach zero either",
                _both("realism.train.frechet.{}", second="floor"),
            ),
            Line(
                "FID to the test images",
                "the same to images that the generator never saw",
                _both("realism.test.frechet.{}", second="floor"),
            ),
            Line(
                "KID to the training images",
                "kernel distance, which does not depend on the number of images; lower is closer",
                _both("realism.train.kernel.{}", second="floor"),
            ),
            Line(
                "KID to the test images", "the same to unseen images", _both("realism.test.kernel.{}", second="floor")
            ),
            Line(
                "Precision",
                "share of the images that lie among the real ones",
                _both("realism.train.manifold.{}.precision", second="floor"),
                percent=True,
            ),
            Line(
                "Recall",
                "share of the real images that lie among these",
                _both("realism.train.manifold.{}.recall", second="floor"),
                percent=True,
            ),
            Line(
                "Density",
                "how deep among the real images they lie; real images score about 1",
                _both("realism.train.manifold.{}.density", second="floor"),
            ),
            Line(
                "Coverage",
                "share of the real images with one of these near them",
                _both("realism.train.manifold.{}.coverage", second="floor"),
                percent=True,
            ),
        ),
    ),
    Table(
        "Diversity: do they differ among themselves?",
        ("synthetic", "real test images"),
        (
            Line(
                "MS-SSIM of pairs",
                "mean structural similarity of two images, 1 for the same image; near the real value is best",
                _both("diversity.ms_ssim.{}"),
            ),
        ),
    ),
    Table(
        "Memorisation: are they copies of training images?",
        ("synthetic", "real test images"),
        (
            Line(
                "Flagged as copies",
                "nearer to a training image than all but a few unseen real images are",
                ("memorisation.share", "memorisation.share_real"),
                percent=True,
            ),
            Line(
                "Authentic, by pixels",
                "farther from the nearest training image than that is from the next training image",
                ("memorisation.pixels.authenticity", "memorisation.pixels.authenticity_real"),
                percent=True,
            ),
            Line(
                "Authentic, by features",
                "the same in the feature space",
                ("memorisation.features.authenticity", "memorisation.features.authenticity_real"),
                percent=True,
            ),
        ),
    ),
    Table(
        "Control: does a classifier of real images see what was asked for?",
        ("synthetic", "real test images"),
        (
            Line(
                "Left or right eye",
                "share on which the classifier sees the side that was asked for, or recorded",
                _both("control.judge.{}.eye.accuracy"),
                percent=True,
            ),
            Line("DR grade", "share with the grade itself", _both("control.judge.{}.dr_grade.accuracy"), percent=True),
            Line(
                "DR grade, weighted kappa",
                "agreement on the five grades beyond chance; far misses count more (quadratic weights)",
                _both("control.judge.{}.dr_grade.kappa"),
            ),
            Line(
                "DR grade, order",
                "rank correlation of the grade that the classifier expects with the one asked for, or recorded",
                _both("control.judge.{}.dr_grade.rank"),
            ),
            Line("Glaucoma", "share with the right answer", _both("control.judge.{}.glaucoma.accuracy"), percent=True),
            Line(
                "Glaucoma, AUC",
                "chance that an eye with glaucoma scores above one without; 0.5 is guessing",
                _both("control.judge.{}.glaucoma.auc"),
            ),
        ),
    ),
    Table(
        "Control: measured in the picture (phantom eyes only)",
        ("synthetic", "real test images"),
        (
            Line("Optic disc found", "share of the images", _both("control.measured.{}.disc_found"), percent=True),
            Line(
                "Disc on the right side", "for the eye asked for", _both("control.measured.{}.disc_side"), percent=True
            ),
            Line("Cup found", "share of the images", _both("control.measured.{}.vcdr_found"), percent=True),
            Line(
                "Error of the cup-to-disc ratio",
                "mean absolute difference of measured and asked-for vertical ratio",
                _both("control.measured.{}.vcdr_error"),
            ),
            Line(
                "Correlation of the cup-to-disc ratio",
                "measured against asked for; 1 is perfect",
                _both("control.measured.{}.vcdr_correlation"),
            ),
            Line(
                "Lesion load against grade",
                "rank correlation of the measured area of lesions with the grade asked for",
                _both("control.measured.{}.lesion_load"),
            ),
        ),
    ),
)


def fill(tables: tuple[Table, ...], results: Results) -> list[Filled]:
    """The tables with the figures of these results; tables without any are left out."""
    filled = []
    for table in tables:
        lines = [(line, [find(results, name) for name in line.figures]) for line in table.lines]
        lines = [(line, figures) for line, figures in lines if any(figure.value is not None for figure in figures)]
        if lines:
            filled.append(Filled(table.title, table.columns, lines))
    return filled


# What the figures of a classifier are called on the page, in the order of the columns.
_MERITS = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "auc": "AUC",
    "qwk": "Weighted kappa",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
_TASKS = {"dr_grade": "DR grade (five classes)", "glaucoma": "Glaucoma (yes or no)"}
_SETS = {"test": "", "external": ", on eyes of another place"}
# The figure that the summary speaks of: the field's own for each task.
PRIMARY_MERIT = {"dr_grade": "qwk", "glaucoma": "auc"}


def classification(results: Results) -> list[Filled]:
    """For each task two tables: the figures of every arm, and their differences to training on real images only."""
    filled = []
    for of_set, place in _SETS.items():
        found = results.get(of_set, {})
        for task in found.get("figures", {}):
            for kind, says in (("figures", ""), ("difference", ": difference to real images only")):
                arms = found.get(kind, {}).get(task, {})
                if arms:
                    name = f"{_TASKS.get(task, words(task))}{place}{says}"
                    filled.append(_arms_table(name, f"{of_set}.{kind}.{task}", arms, results))
    return filled


def _arms_table(name: str, path: str, arms: Results, results: Results) -> Filled:
    merits = [merit for merit in _MERITS if any(merit in figures for figures in arms.values())]
    rows = {arm: [find(results, f"{path}.{arm}.{merit}") for merit in merits] for arm in arms}
    ends = [end for figures in rows.values() for f in figures for end in (f.low, f.value, f.high) if end is not None]
    largest = max((abs(end) for end in ends), default=1.0)
    # Figures lie between 0 and 1, differences on both sides of 0.
    scale = (-largest, largest) if ".difference." in path else (min(0.0, *ends), 1.0)
    lines = [
        (
            Line(
                arm_words(arm), _arm_size(results, arm), tuple(f"{path}.{arm}.{merit}" for merit in merits), scale=scale
            ),
            figures,
        )
        for arm, figures in rows.items()
    ]
    return Filled(name, tuple(_MERITS[merit] for merit in merits), lines)


def arm_words(arm: str) -> str:
    """What a classifier was trained on: ``real_plus_50`` is all real images and half of the synthetic ones."""
    if arm.startswith("real_plus_"):
        return f"Real + {arm.removeprefix('real_plus_')} % of the synthetic"
    return {"real": "Real only", "synthetic": "Synthetic only"}.get(arm, words(arm))


def _mix(arm: str) -> str:
    if arm == "real_plus_100":
        return "real and all synthetic images"
    if arm.startswith("real_plus_"):
        return f"real images and {arm.removeprefix('real_plus_')} % of the synthetic ones"
    return f"{arm.replace('_', ' ')} images only"


def _arm_size(results: Results, arm: str) -> str:
    sizes = results.get("arms", {}).get(arm)
    return f"{sizes['real']} real and {sizes['synthetic']} synthetic images" if sizes else ""


def help_sentences(results: Results) -> list[str]:
    """Whether synthetic eyes helped, task by task, in words that follow from the interval of the difference alone."""
    sentences = []
    for task, arms in results.get("test", {}).get("difference", {}).items():
        merit = PRIMARY_MERIT.get(task, "accuracy")
        base = find(results, f"test.figures.{task}.real.{merit}")
        for arm in arms:
            change = find(results, f"test.difference.{task}.{arm}.{merit}")
            if change.value is None or change.low is None or change.high is None:
                continue
            effect = (
                "better than" if change.low > 0 else "worse than" if change.high < 0 else "not clearly different from"
            )
            low, middle, high = (signed(part) for part in (change.low, change.value, change.high))
            sentences.append(
                f"{_TASKS.get(task, words(task))}: a classifier trained on {_mix(arm)} is {effect} "
                f"one of real images only ({_MERITS[merit]} {base}, change {middle}, interval {low} to {high})."
            )
    return sentences


def signed(value: float) -> str:
    """A difference with its sign, three decimals."""
    return f"{value:+.3f}".replace("-", "−")


def words(name: str) -> str:
    """A key or file name as words."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
