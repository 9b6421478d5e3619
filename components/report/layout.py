"""Which figures stand in which table of the page, and what each of them means to a reader."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from components.report.figures import Figure, Results, find, number
from retinalogos.classifiers import mixes


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
                "FID∞, to the training images",
                "the same, prolonged to a sample of any size: what is left when the bias of few images is taken away",
                _both("realism.train.frechet_infinity.{}", second="floor"),
            ),
            Line(
                "FID∞, to the test images",
                "the same to unseen images",
                _both("realism.test.frechet_infinity.{}", second="floor"),
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
                "CMMD to the training images",
                "kernel distance with a Gaussian kernel, times 1,000; lower is closer",
                _both("realism.train.gaussian.{}", second="floor"),
            ),
            Line(
                "CMMD to the test images",
                "the same to unseen images",
                _both("realism.test.gaussian.{}", second="floor"),
            ),
            Line(
                "Inception score",
                "kinds of things that a classifier of ordinary photographs sees; papers report it",
                _both("realism.train.inception_score.{}", second="floor"),
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
                "Flagged as copies of rare eyes",
                "the same, where the training image is among the most isolated ones",
                ("memorisation.rare.share", "memorisation.rare.share_real"),
                percent=True,
            ),
            Line(
                "Membership, AUC by pixels",
                "how well nearness to the synthetic images tells who was in training; 0.5 is guessing",
                ("memorisation.pixels.membership_auc",),
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
        "Control: the curve of the grade",
        ("synthetic", "real test images"),
        tuple(
            Line(
                f"Grade {grade}: mean grade seen",
                "that the classifier expects of eyes of this grade; it should rise from line to line",
                _both(f"control.judge.{{}}.dr_grade.curve.grade_{grade}"),
            )
            for grade in range(5)
        ),
    ),
    Table(
        "Control: do pictures and captions find each other?",
        ("synthetic", "real test images"),
        (
            Line(
                "Captions for a picture",
                "chance that its own caption fits better than another one, to a model of the real training pairs; "
                "50 % is guessing",
                _both("control.pairing.{}.image_to_text"),
                percent=True,
            ),
            Line(
                "Pictures for a caption",
                "the same of a caption's own picture",
                _both("control.pairing.{}.text_to_image"),
                percent=True,
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
            Line(
                "Distance of disc and fovea",
                "mean, as a share of the picture's side; synthetic eyes should have that of real ones",
                _both("control.measured.{}.disc_fovea"),
            ),
            Line("Spread of that distance", "standard deviation of eyes", _both("control.measured.{}.disc_fovea_sd")),
            Line(
                "Fovea below the disc",
                "mean angle in degrees, of real eyes about 7",
                _both("control.measured.{}.fovea_angle"),
            ),
            Line("Spread of that angle", "standard deviation of eyes", _both("control.measured.{}.fovea_angle_sd")),
            *(
                Line(
                    f"Lesion load at grade {grade}",
                    "mean share of the field; it should rise from line to line",
                    _both(f"control.measured.{{}}.load_by_grade.grade_{grade}"),
                    percent=True,
                )
                for grade in range(5)
            ),
        ),
    ),
)


_CHANGES = {"eye": "Side changed", "dr_grade": "Retinopathy added", "glaucoma": "Glaucoma added"}
_SCORES = {
    "judge": {"eye": "side seen", "dr_grade": "mean grade seen, of 4", "glaucoma": "glaucoma seen"},
    "measured": {"eye": "side measured", "dr_grade": "lesion load", "glaucoma": "cup-to-disc ratio"},
}


def _counterfactual_lines() -> tuple[Line, ...]:
    lines = []
    for change, name in _CHANGES.items():
        path = f"counterfactual.{change}"
        for witness, scores in _SCORES.items():
            lines.append(
                Line(
                    f"{name}: {scores[change]}",
                    "mean change in the direction asked for; it should be large",
                    _both(f"{path}.{witness}.target.{{}}", "changed", "other_seed"),
                )
            )
            lines += [
                Line(
                    f"{name}: {score}",
                    "mean absolute change of what was not to change; it should be small",
                    _both(f"{path}.{witness}.others.{other}.{{}}", "changed", "other_seed"),
                )
                for other, score in scores.items()
                if other != change
            ]
        lines.append(
            Line(
                f"{name}: vessels kept",
                "correlation of the fine structure with the eye as asked, 1 for the same picture",
                _both(f"{path}.vessels.{{}}", "changed", "other_seed"),
            )
        )
    return tuple(lines)


COUNTERFACTUAL = Table(
    "Counterfactuals: one word changed, does one thing change?",
    ("one attribute changed", "another seed"),
    _counterfactual_lines(),
)


def assessment(results: Results) -> list[Filled]:
    """The tables of the assessment: realism in each feature space, then the others."""
    realism, *others = fill((*ASSESSMENT, *_by_name(results), COUNTERFACTUAL), results)
    elsewhere = [
        Filled(f"{table.title} In the space {space['feature_space']}.", table.columns, table.lines)
        for space in results.get("other_spaces", [])
        for table in fill(ASSESSMENT[:1], space)
    ]
    return [realism, *elsewhere, *others]


_SEGMENTER = {
    "dice": ("Dice", "against the map that was asked for, or drawn by hand", False),
    "iou": ("intersection over union", "the same", False),
    "auc": ("AUC of pixels", "the same", False),
    "average_precision": ("average precision of pixels", "the same", False),
    "area": ("share of the picture", "mean; synthetic images should have as much as real ones", True),
    "finding_auc": ("AUC of the finding", "chance that an eye for which it was asked shows more of it", False),
}


def _by_name(results: Results) -> tuple[Table, ...]:
    """The tables whose lines are the findings and the structures of this cohort."""
    columns = ("synthetic", "real test images")
    findings = {name for kind in ("real", "synthetic") for name in _at(results, f"control.judge.{kind}.findings.each")}
    structures = _at(results, "control.segmenter.real.structures")
    of_finding = "chance that an eye for which it was asked, or recorded, scores above one without; 0.5 is guessing"
    return (
        Table(
            "Control: does a classifier of real images see the findings? (AUC)",
            columns,
            (
                Line("Mean of the findings", of_finding, _both("control.judge.{}.findings.mean.auc")),
                *(
                    Line(words(name), of_finding, _both(f"control.judge.{{}}.findings.each.{name}.auc"))
                    for name in sorted(findings)
                ),
            ),
        ),
        Table(
            "Control: what does a segmenter of real images see?",
            columns,
            (
                *(
                    Line(
                        f"{words(name)}: {figure}",
                        means,
                        _both(f"control.segmenter.{{}}.structures.{name}.{key}"),
                        percent=percent,
                    )
                    for name in structures
                    for key, (figure, means, percent) in _SEGMENTER.items()
                ),
                Line("Disc on the right side", "for the eye asked for", _both("control.segmenter.{}.disc_side"), True),
                Line(
                    "Error of the cup-to-disc ratio",
                    "mean absolute difference of segmented and asked-for vertical ratio",
                    _both("control.segmenter.{}.vcdr_error"),
                ),
                Line(
                    "Correlation of the cup-to-disc ratio",
                    "segmented against asked for; 1 is perfect",
                    _both("control.segmenter.{}.vcdr_correlation"),
                ),
            ),
        ),
    )


# What the pictures of both steps show, by the name of the file; of an external set its own name stands before.
PICTURES = {
    "realism": "Distances of synthetic images, and of other real ones, to the real ones, with 95 % intervals.",
    "memorisation": "How near each image comes to its nearest training image, relative to the next ones: copies would "
    "lie left of the dashed line. In pixels, in features, and laid over each other.",
    "classes": "The first real test eyes and the first synthetic ones of each class; nothing is picked.",
    "judge": "What the classifier of real images sees (columns) of what was asked for, or recorded (rows): shares of a "
    "row. Above synthetic eyes, below real test eyes, on which it cannot do better than this.",
    "measured": "Measured in phantom eyes: cup-to-disc ratio against the one asked for, and area of lesions by grade.",
    "counterfactuals": "One eye a column. First as it was asked for; then, from the same seed, with one attribute "
    "changed; last as asked for from another seed.",
    "figures": "The figure of each task by which mixes are compared, with 95 % intervals.",
    "difference": "Differences to what each mix is compared with, with 95 % intervals; right of the line it is better.",
    "confusion": "Truth (rows) and decision (columns), counts over all trainings.",
}
# Of these the page has charts that a reader can point at, or pictures side by side.
DRAWN_ANEW = ("sample_size", "grades", "closest_pairs")


def picture_words(file: str) -> str:
    """What a picture of the results shows."""
    stem = file.removesuffix(".png")
    if stem in PICTURES:
        return PICTURES[stem]
    of, _, kind = stem.rpartition("_")
    if kind == "confusion":
        return f"{task_words(of.removeprefix('test_'))}. {PICTURES[kind]}"
    if kind in PICTURES:
        return f"{'Real test eyes' if of == 'test' else f'Eyes of {words(of)}'}. {PICTURES[kind]}"
    return words(stem)


def fill(tables: tuple[Table, ...], results: Results) -> list[Filled]:
    """The tables with the figures of these results; tables without any are left out."""
    filled = []
    for table in tables:
        lines = [(line, [find(results, name) for name in line.figures]) for line in table.lines]
        lines = [(line, figures) for line, figures in lines if any(figure.value is not None for figure in figures)]
        if lines:
            filled.append(Filled(table.title, table.columns, lines))
    return filled


def _beside(synthetic: str, *real: str) -> tuple[str, ...]:
    return f"with.{synthetic}", f"without.{synthetic}", *(f"with.{name}" for name in real)


def ablation(purified: Results, unpurified: Results) -> list[Filled]:
    """The tables of the assessment with the figures of two generators, and those of real images beside them."""
    both = {"with": purified, "without": unpurified}
    tables = tuple(
        Table(
            table.title,
            ("with purification", "without", *table.columns[1:]),
            tuple(replace(line, figures=_beside(*line.figures)) for line in table.lines),
        )
        for table in ASSESSMENT
    )
    return fill(tables, both)


# What the figures of a classifier are called on the page, in the order of the columns.
_MERITS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "auc": "AUC",
    "qwk": "Weighted kappa",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "sensitivity_at_specificity": "Sensitivity at {specificity} specificity",
    "ece": "Calibration error",
    "dice": "Dice",
    "iou": "Intersection over union",
    "average_precision": "Average precision",
}
_TASKS = {
    "dr_grade": "DR grade (five classes)",
    "referable_dr": "Referable DR (yes or no)",
    "glaucoma": "Glaucoma (yes or no)",
    "findings": "Findings (mean of each, present or not)",
}
_SEGMENTED = {
    "vessels": "Vessels, segmented",
    "lesions": "Lesions, segmented (mean of each kind)",
    "disc_cup": "Disc and cup, segmented (mean of both)",
}
_TASKS |= _SEGMENTED


def sets(results: Results) -> dict[str, str]:
    """Dotted name of each set of images that classifiers were judged on → words for it."""
    elsewhere = results.get("external", {})
    return {"test": ""} | {f"external.{name}": f", on eyes of {words(name)}" for name in elsewhere}


def classification(results: Results) -> list[Filled]:
    """For each task: the figures of every mix, their differences to its reference, and the groups of people."""
    filled = []
    for of_set, place in sets(results).items():
        found = _at(results, of_set)
        for task in found.get("figures", {}):
            name = f"{task_words(task)}{place}"
            for kind, says in (("figures", ""), ("difference", ": difference to what each is compared with")):
                arms = found.get(kind, {}).get(task, {})
                if arms:
                    filled.append(_arms_table(f"{name}{says}", f"{of_set}.{kind}.{task}", arms, results))
            if task in found.get("subgroups", {}):
                filled += _subgroup_tables(name, f"{of_set}.subgroups.{task}", found["subgroups"][task], results)
        filled += [
            _arms_table(f"{words(structure)}, segmented{place}", f"{of_set}.structures.{structure}", arms, results)
            for structure, arms in found.get("structures", {}).items()
        ]
    return filled


def _at(results: Results, path: str) -> Results:
    for key in path.split("."):
        results = results.get(key, {})
    return results


def _arms_table(name: str, path: str, arms: Results, results: Results) -> Filled:
    merits = [merit for merit in _MERITS if any(merit in figures for figures in arms.values())]
    rows = {arm: [find(results, f"{path}.{arm}.{merit}") for merit in merits] for arm in arms}
    titles = [_MERITS[merit].format(specificity=number(results.get("specificity"), True)) for merit in merits]
    difference = ".difference." in path
    scale = _scale(rows.values(), difference)
    lines = [
        (Line(arm_words(arm), _means(results, path, arm, difference), (), scale=scale), figures)
        for arm, figures in rows.items()
    ]
    return Filled(name, tuple(titles), lines)


def _subgroup_tables(name: str, path: str, attributes: Results, results: Results) -> list[Filled]:
    """A row for each mix, a column for each group of people; the figure is the task's own."""
    tables = []
    for attribute, groups in attributes.items():
        for kind, says in (("figures", ""), ("difference", ": difference to what each is compared with")):
            arms = list(dict.fromkeys(arm for group in groups.values() for arm in group[kind]))
            rows = {
                arm: [find(results, f"{path}.{attribute}.{group}.{kind}.{arm}") for group in groups] for arm in arms
            }
            if not rows:
                continue
            scale = _scale(rows.values(), kind == "difference")
            merit = _MERITS[results["primary"][path.rpartition(".")[2]]]
            title = f"{name}, by {attribute}: {merit}{says}"
            lines = [
                (Line(arm_words(arm), _means(results, path, arm, kind == "difference"), (), scale=scale), figures)
                for arm, figures in rows.items()
            ]
            tables.append(Filled(title, tuple(words(group) for group in groups), lines))
    return tables


def _scale(rows: Iterable[Sequence[Figure]], difference: bool) -> tuple[float, float]:
    ends = [end for figures in rows for f in figures for end in (f.low, f.value, f.high) if end is not None]
    largest = max((abs(end) for end in ends), default=1.0)
    # Figures lie between 0 and 1, differences on both sides of 0.
    return (-largest, largest) if difference else (min(0.0, *ends, 1.0), 1.0)


def place_words(of_set: str) -> str:
    """On whose eyes classifiers were judged: ``test``, or ``external`` and the name of the set."""
    return "real test eyes" if of_set == "test" else f"eyes of {words(of_set.removeprefix('external.'))}"


def arm_words(arm: str) -> str:
    """What a classifier was trained on, as the first words of a line."""
    return words(mixes.words(arm))


def _means(results: Results, path: str, arm: str, difference: bool) -> str:
    """What an arm had, or what it is compared with; segmenters have of each mix the images with maps."""
    segmented = path.rpartition(".")[2] in _SEGMENTED or ".structures." in path
    entry = (results.get("segmentation", {}) if segmented else results).get("arms", {}).get(arm)
    if entry is None:
        return ""
    if difference:
        return f"against {mixes.words(entry['against'])}"
    return f"{entry['real']} real and {entry['synthetic']} synthetic images"


def conclusion(results: Results) -> list[str]:
    """The sentences of the summary: those of all real and all synthetic images, or of the first mix that has both."""
    return help_sentences(results, {headline(results)})


def headline(results: Results) -> str | None:
    """The mix that the summary speaks of."""
    arms = [arm for arm in results.get("arms", {}) if mixes.parse(arm).has_synthetic]
    return "real_plus_100" if "real_plus_100" in arms else next(iter(arms), None)


def task_words(task: str) -> str:
    """A task as a reader would say it."""
    return _TASKS.get(task, words(task))


def help_sentences(results: Results, of_arms: Container[str | None] | None = None) -> list[str]:
    """Whether synthetic eyes help, task by task and set by set, as the verdicts of `classify` have it.

    A mix helps or harms where the interval of the difference leaves zero out and its test, corrected for the number of
    comparisons on these images, says the same; else no difference is shown. Of all mixes, or of those given.
    """
    sentences = []
    for of_set, place in sets(results).items():
        for task, verdicts in _at(results, of_set).get("verdicts", {}).items():
            for arm, verdict in verdicts.items():
                path = f"{of_set}.verdicts.{task}.{arm}"
                change, p = find(results, f"{path}.difference"), find(results, f"{path}.p_holm")
                if not mixes.parse(arm).has_synthetic or change.value is None:
                    continue
                if of_arms is not None and arm not in of_arms:
                    continue
                if change.low is None or change.high is None:
                    continue
                low, middle, high = (signed(part) for part in (change.low, change.value, change.high))
                base = find(results, f"{of_set}.figures.{task}.{verdict['against']}.{verdict['figure']}")
                sentences.append(
                    f"{task_words(task)}{place}, training on {mixes.words(arm)}: {verdict['says']} "
                    f"({_MERITS[verdict['figure']]} {base} with {mixes.words(verdict['against'])}, change {middle}, "
                    f"95 % interval {low} to {high}, corrected p {_p(p.value)})."
                )
    return sentences


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def left_out(results: Results) -> list[str]:
    """Tasks and mixes that could not be compared, each with its reason."""
    skipped = {"tasks": {}, "arms": {}} | results.get("skipped", {})
    of_maps = results.get("segmentation", {}).get("skipped", {}).get("arms", {})
    entries = [
        *((task_words(task), reason) for task, reason in skipped["tasks"].items()),
        *((arm_words(arm), reason) for arm, reason in skipped["arms"].items()),
        *((f"{arm_words(arm)}, segmented", reason) for arm, reason in of_maps.items()),
    ]
    return [f"Left out: {name}: {reason}." for name, reason in entries]


def effect(what: str, measure: str, change: Figure) -> list[str]:
    """A sentence on whether something helps: where the interval leaves zero out. None where it was not measured.

    Intervals are not corrected for the number of comparisons, and the sentence says so where it claims a difference.
    """
    if change.value is None or change.low is None or change.high is None:
        return []
    says = "helps" if change.low > 0 else "harms" if change.high < 0 else "no difference is shown"
    low, middle, high = (signed(part) for part in (change.low, change.value, change.high))
    alone = "" if change.low <= 0 <= change.high else ", of this comparison alone"
    return [f"{what}: {says} (change of {measure} {middle}, 95 % interval {low} to {high}{alone})."]


def signed(value: float) -> str:
    """A difference with its sign, three decimals."""
    return f"{value:+.3f}".replace("-", "−")


def words(name: str) -> str:
    """A key or file name as words."""
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
