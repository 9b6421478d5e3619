"""Judges the synthetic cohort of lesion maps against the real one."""

from typing import Any

import numpy as np

from components.judge_lesion_maps import pictures
from components.judge_lesion_maps.step import JudgeLesionMapsParams
from components.step import Metrics, Paths
from retinalogos.classifiers.grader import Grader
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import judging, maps
from retinalogos.generators.lesion_map.copies import find_copies
from retinalogos.generators.lesion_map.examples import Examples, read, read_real
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.generators.lesion_map.segmentation import dice_of, fit_segmenter
from retinalogos.metrics.features import feature_space
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.realism import frechet_with_interval, kernel_with_interval, matched_draw
from retinalogos.metrics.results import flat, write_results
from retinalogos.provenance import page_notice


def run(params: JudgeLesionMapsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module.

    Raises:
        DataError: the test split has no eye with a grade and a whole map.
    """
    pipeline = LesionMapPipeline.from_pretrained(inputs["generator"])
    cohort = Cohort(inputs["cohort"])
    training, validation, test = read_real(cohort, pipeline.size, "validation", "test")
    drawn = read(Cohort(inputs["synthetic"]), None, pipeline.size)
    seeds = [row["seed"] for row in Cohort(inputs["synthetic"]).rows(("seed",))]
    resamples, seed = params.resamples, params.seed
    photo_grader = judging.fit_photo_grader(training, params.grader, seed)
    segmenter = fit_segmenter(training.candidates, training.images, params.segmenter, seed)
    in_other_styles = judging.restyled(pipeline, test)
    shown = {
        "real": (test.images, test),
        "rerendered": (judging.restyled(pipeline, test, 0), test),
        "restyled": (in_other_styles, test),
        "drawn": (drawn.images, drawn),
    }
    copied = dict(find_copies(training, test, drawn, params.copies, resamples, seed))
    if training.by_grade:
        by_grade = _by_grade(params, training, validation, test, drawn, photo_grader)
    else:
        # Maps of training eyes are copies, and are rendered in place of drawn ones.
        by_grade = {"left_out": ["grade_from_map", "grade_from_photograph", "lesions", "copies.maps"]}
        del copied["maps"]
    results = {
        "images": {"training": len(training), "test": len(test), "drawn": len(drawn)},
        **by_grade,
        "found_again": {
            name: dice_of(segmenter.find(images), eyes.classes, eyes.patients, resamples, seed)
            for name, (images, eyes) in shown.items()
        },
        "realism": _realism(params, pipeline, photo_grader, training, test, drawn),
        "style": vars(judging.judge_style(test, in_other_styles, resamples, seed)),
        "copies": {name: report.figures for name, report in copied.items()},
        "edits": vars(
            judging.judge_edits(
                pipeline, drawn.classes[: params.edits], seeds[: params.edits], params.margin, resamples, seed
            )
        ),
    }
    folder = outputs["judgement"]
    write_results(folder / "results.json", results)
    first = pictures.first_maps(pipeline, drawn, seeds, params.columns * maps.GRADES)
    pictures.grid(folder / "grid.png", pipeline, first)
    pictures.edits(folder / "edits.png", pipeline, drawn.classes, seeds, params.margin)
    notice = page_notice({*cohort.meta["sources"], "synthetic"})
    pictures.beside_real(folder / "beside_real.png", training.whole(), drawn, params.columns, notice)
    pictures.styles(folder / "styles.png", pipeline, first, test, notice)
    for name, report in copied.items():
        pictures.copies(folder / f"closest_{name}.png", report, training, drawn, notice)
    # Lesions have a table of their own on the page.
    return flat({name: found for name, found in results.items() if name not in ("lesions", "left_out")})


def _by_grade(
    params: JudgeLesionMapsParams,
    training: Examples,
    validation: Examples,
    test: Examples,
    drawn: Examples,
    photo_grader: Grader,
) -> dict[str, Any]:
    """Grades read back from maps and from photographs, and lesions by grade."""
    whole, held, unseen = training.fully_marked(), validation.fully_marked(), test.fully_marked()
    if not (len(whole) and len(unseen)):
        raise DataError("training or test split has no eye with a grade and every class marked")
    map_grader = judging.fit_map_grader(whole, held if len(held) else None, params.grader, params.seed)

    def read_back(grader: Grader, of_maps: bool) -> dict[str, dict[str, Estimate]]:
        found = {}
        for name, each in (("real", unseen), ("drawn", drawn)):
            shown = maps.to_rgb(each.classes) if of_maps else each.images
            found[name] = vars(
                judging.recover_grades(grader, shown, each.grades, each.patients, params.resamples, params.seed)
            )
        return found

    return {
        "grade_from_map": read_back(map_grader, True),
        "grade_from_photograph": read_back(photo_grader, False),
        "lesions": judging.compare_lesions(whole, drawn, unseen, params.resamples, params.seed),
    }


def _realism(
    params: JudgeLesionMapsParams,
    pipeline: LesionMapPipeline,
    grader: Grader,
    training: Examples,
    test: Examples,
    drawn: Examples,
) -> dict[str, Any]:
    """Distances to the test eyes of drawn eyes, and of as many training eyes of the same grades: the floor.

    The same training eyes rendered again tell what the renderer, the drawn styles and the drawn maps each add.
    """
    space = feature_space(params.feature_space, params.seed, grader)
    made, real = (
        (each.grades if training.by_grade else np.zeros(len(each), int)).astype(str).tolist()
        for each in (drawn, training)
    )
    mine, theirs = matched_draw(made, real, params.seed)
    if len(mine) < 2:
        raise DataError("the distances need two drawn and two training eyes of the same grades; draw more")
    synthetic, known = drawn.take(mine), training.take(theirs)
    styles = pipeline.style_of(np.roll(known.images, -1, 0))
    pictures_of = {
        "drawn": (synthetic.images, synthetic),
        "floor": (known.images, known),
        "rerendered": (judging.restyled(pipeline, known, 0), known),
        "restyled": (judging.restyled(pipeline, known), known),
        "drawn_styles": (pipeline.render(known.filled, list(range(len(known)))), known),
        "drawn_maps": (pipeline.render(synthetic.classes, styles=styles), synthetic),
    }
    reference = space.features(test.images)
    sides = {name: space.features(images) for name, (images, _) in pictures_of.items()}
    people = {name: eyes.patients for name, (_, eyes) in pictures_of.items()}
    return {
        "feature_space": space.name,
        "eyes": len(mine),
        **{
            name: {
                side: distance(reference, found, params.resamples, params.seed, patients=(test.patients, people[side]))
                for side, found in sides.items()
            }
            for name, distance in (("frechet", frechet_with_interval), ("kernel", kernel_with_interval))
        },
    }
