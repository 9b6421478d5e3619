"""Which figures stand in which table of the page, and what each of them means to a reader."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.report.figures import Figure, Results, as_figure, find


@dataclass(frozen=True)
class Line:
    """A row: its name, what it means, and the dotted name of the figure in each column."""

    name: str
    means: str
    figures: tuple[str, ...]
    percent: bool = False


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
            Line("KID to the test images", "the same to unseen images", _both("realism.test.kernel.{}", second="floor")),
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
            Line("Disc on the right side", "for the eye asked for", _both("control.measured.{}.disc_side"), percent=True),
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


def comparisons(results: Results, name: str = "") -> list[Filled]:
    """A table for every mapping whose entries hold figures: entries as lines, figures as columns.

    So a classifier's results, whatever its tasks and mixes are called, stand below each other and can be compared.
    """
    nested = {key: entry for key, entry in results.items() if isinstance(entry, Mapping) and as_figure(entry) is None}
    lines = {
        key: {part: figure for part, e in entry.items() if isinstance(e, Mapping) and (figure := as_figure(e))}
        for key, entry in nested.items()
    }
    lines = {key: figures for key, figures in lines.items() if figures}
    filled = []
    if lines:
        columns = tuple(dict.fromkeys(part for figures in lines.values() for part in figures))
        rows = [
            (Line(words(key), "", columns), [figures.get(column, Figure()) for column in columns])
            for key, figures in lines.items()
        ]
        filled.append(Filled(words(name), tuple(words(column) for column in columns), rows))
    for key, entry in nested.items():
        filled += comparisons(entry, f"{name} {key}".strip())
    return filled


def words(name: str) -> str:
    """A key or file name as words."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
