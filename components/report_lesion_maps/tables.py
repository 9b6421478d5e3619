"""Which figures stand in which table of the page of lesion maps, and what each of them means to a reader."""

from components.report.layout import Line, Table

_LESIONS = {"EX": "Hard exudates", "HE": "Haemorrhages", "SE": "Soft exudates", "MA": "Microaneurysms"}
_FOUND = {**_LESIONS, "OD": "Optic disc"}
_ARMS = {
    "real": "real eyes alone",
    "undersampled": "as many of each grade as of the rarest",
    "oversampled": "rare grades repeated",
    "padded": "rare grades filled up with drawn eyes",
}
_SIDES = ("drawn", "floor", "rerendered", "restyled", "drawn_styles", "drawn_maps")
_SEGMENTED = {"real": "real eyes", "synthetic": "drawn eyes", "synthetic_then_real": "drawn, then real eyes"}


def _of_grades(measure: str, unit: str) -> tuple[Line, ...]:
    return tuple(
        Line(
            f"Grade {grade}: {lesion.lower()}",
            unit,
            tuple(
                f"lesions.{grade}.{measure}.{code}.{figure}"
                for figure in ("mean_drawn", "mean_reference", "drawn", "floor")
            ),
        )
        for grade in range(5)
        for code, lesion in _LESIONS.items()
    )


_COLUMNS = ("mean, drawn", "mean, training maps", "distance, drawn", "distance, unseen real maps")
JUDGEMENT = (
    Table(
        "Grade: does a classifier of real ones see the grade that was asked for?",
        ("drawn", "unseen real"),
        (
            Line(
                "From maps, weighted kappa",
                "agreement on the five grades beyond chance; far misses count more (quadratic weights)",
                ("grade_from_map.drawn.qwk", "grade_from_map.real.qwk"),
            ),
            Line(
                "From maps, accuracy",
                "share with the grade itself",
                ("grade_from_map.drawn.accuracy", "grade_from_map.real.accuracy"),
                percent=True,
            ),
            Line(
                "From photographs, weighted kappa",
                "the same from the photographs of the maps",
                ("grade_from_photograph.drawn.qwk", "grade_from_photograph.real.qwk"),
            ),
            Line(
                "From photographs, accuracy",
                "share with the grade itself",
                ("grade_from_photograph.drawn.accuracy", "grade_from_photograph.real.accuracy"),
                percent=True,
            ),
        ),
    ),
    Table("Lesions: how many by grade?", _COLUMNS, _of_grades("counts", "regions in a map; distances: Wasserstein-1")),
    Table("Lesions: how large by grade?", _COLUMNS, _of_grades("areas", "per cent of the field; Wasserstein-1")),
    Table(
        "Photographs: does a segmenter trained on real ones find what the map has?",
        ("unseen real", "their maps rendered again", "their maps in another eye's style", "drawn"),
        tuple(
            Line(
                lesion,
                "Dice with the map, of all pixels of the set",
                tuple(f"found_again.{name}.{code}" for name in ("real", "rerendered", "restyled", "drawn")),
                scale=(0.0, 1.0),
            )
            for code, lesion in _FOUND.items()
        ),
    ),
    Table(
        "Photographs: how close to real ones?",
        (
            "drawn",
            "as many training photographs",
            "their maps rendered again",
            "their maps in another eye's style",
            "their maps in drawn styles",
            "drawn maps in real eyes' styles",
        ),
        (
            Line(
                "FID to the test photographs",
                "Fréchet distance in the feature space; lower is closer, and real ones do not reach zero either",
                tuple(f"realism.frechet.{side}" for side in _SIDES),
            ),
            Line(
                "KID to the test photographs",
                "kernel distance, which does not depend on the number of images",
                tuple(f"realism.kernel.{side}" for side in _SIDES),
            ),
        ),
    ),
    Table(
        "Style: does a map take over the colours of a reference photograph?",
        ("map in the reference's style", "the map's own photograph"),
        (
            Line(
                "Difference of mean colours",
                "to the reference photograph, of 255",
                ("style.after", "style.before"),
            ),
        ),
    ),
    Table(
        "Copies: are they training eyes?",
        ("drawn", "unseen real"),
        tuple(
            line
            for name in ("maps", "photographs")
            for line in (
                Line(
                    f"{name.capitalize()} flagged",
                    "nearer to one training eye than all but a few unseen real ones are",
                    (f"copies.{name}.share", f"copies.{name}.share_real"),
                    percent=True,
                ),
                Line(
                    f"Membership, AUC by {name}",
                    "how well nearness to the drawn eyes tells who was in training; 0.5 is guessing",
                    (f"copies.{name}.membership_auc",),
                    scale=(0.0, 1.0),
                ),
            )
        ),
    ),
    Table(
        "Edits: what changes when the largest lesion of a map is erased?",
        ("value",),
        (
            Line("Kept bit for bit", "pixels farther from the edit than the margin", ("edits.kept",), percent=True),
            Line("Change at the edit", "mean difference, of 255", ("edits.inside",)),
            Line(
                "Change elsewhere if all is rendered anew",
                "mean difference farther than the margin, of 255",
                ("edits.rendered_outside",),
            ),
            Line(
                "Visible change elsewhere if all is rendered anew",
                "pixels farther than the margin that differ by 8 of 255 or more",
                ("edits.visible_outside",),
                percent=True,
            ),
        ),
    ),
)
TRIAL = (
    Table(
        "Grading: trained on folds of patients, judged on the test eyes",
        tuple(_ARMS.values()),
        tuple(
            Line(name, means, tuple(f"grading.{arm}.{figure}" for arm in _ARMS), scale=(0.0, 1.0))
            for figure, name, means in (
                ("qwk", "Weighted kappa", "mean over the runs"),
                ("accuracy", "Accuracy", "mean over the runs"),
            )
        ),
    ),
    Table(
        "Grading: difference to real eyes alone",
        tuple(_ARMS.values())[1:],
        (
            Line(
                "Weighted kappa",
                "paired by test eye and run; above zero it helps",
                tuple(f"grading_against_real.{arm}.qwk" for arm in tuple(_ARMS)[1:]),
            ),
        ),
    ),
    Table(
        "Segmentation: Dice on the test eyes",
        tuple(_SEGMENTED.values()),
        tuple(
            Line(
                lesion,
                "mean over the runs",
                tuple(f"segmentation.{arm}.{code}" for arm in _SEGMENTED),
                scale=(0.0, 1.0),
            )
            for code, lesion in _FOUND.items()
        ),
    ),
    Table(
        "Segmentation: difference to real eyes alone",
        tuple(_SEGMENTED.values())[1:],
        tuple(
            Line(
                lesion,
                "Dice, paired by test eye and run; above zero it helps",
                tuple(f"segmentation_against_real.{arm}.{code}" for arm in tuple(_SEGMENTED)[1:]),
            )
            for code, lesion in _FOUND.items()
        ),
    ),
)
