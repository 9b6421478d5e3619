"""Judges the synthetic cohort of lesion maps against the real one."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.judge_lesion_maps import pictures
from components.judge_lesion_maps.step import JudgeLesionMapsParams
from components.step import Metrics, Paths
from retinalogos.classifiers.grader import Grader, fit_grader
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import judging, maps
from retinalogos.generators.lesion_map.copies import find_copies
from retinalogos.generators.lesion_map.examples import Examples, read
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
    training, validation, test = (read(cohort, split, pipeline.size) for split in ("train", "validation", "test"))
    drawn = read(Cohort(inputs["synthetic"]), None, pipeline.size)
    whole = {"training": training.fully_marked(), "test": test.fully_marked()}
    if not (len(whole["training"]) and len(whole["test"])):
        raise DataError(f"{inputs['cohort']}: training or test split has no eye with a grade and every class marked")
    seeds = [row["seed"] for row in Cohort(inputs["synthetic"]).rows(("seed",))]
    resamples, seed = params.resamples, params.seed

    held = validation.fully_marked()
    map_grader = judging.fit_map_grader(whole["training"], held if len(held) else None, params.grader, seed)
    graded = {"real": whole["test"], "drawn": drawn}

    def read_back(grader: Grader, pictures: Mapping[str, np.ndarray]) -> dict[str, dict[str, Estimate]]:
        found = {}
        for name, each in graded.items():
            told = judging.recover_grades(grader, pictures[name], each.grades, each.patients, resamples, seed)
            found[name] = vars(told)
        return found

    photo_grader = fit_grader(
        training.images, {judging.TASK: training.grades}, {judging.TASK: maps.GRADES}, params.grader, seed
    )
    segmenter = fit_segmenter(training.candidates, training.images, params.segmenter, seed)
    in_other_styles = judging.restyled(pipeline, test)
    shown = {
        "real": (test.images, test),
        "rerendered": (_rerendered(pipeline, test), test),
        "restyled": (in_other_styles, test),
        "drawn": (drawn.images, drawn),
    }
    copied = find_copies(training, test, drawn, params.copies, resamples, seed)
    results = {
        "images": {"training": len(training), "test": len(test), "drawn": len(drawn)},
        "grade_from_map": read_back(map_grader, {name: maps.to_rgb(each.classes) for name, each in graded.items()}),
        "grade_from_photograph": read_back(photo_grader, {name: each.images for name, each in graded.items()}),
        "lesions": judging.compare_lesions(whole["training"], drawn, whole["test"], resamples, seed),
        "found_again": {
            name: dice_of(segmenter.find(images), eyes.classes, eyes.patients, resamples, seed)
            for name, (images, eyes) in shown.items()
        },
        "realism": _realism(params, photo_grader, training, test, drawn),
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
    pictures.grid(folder / "grid.png", pipeline, params.columns)
    pictures.edits(folder / "edits.png", pipeline, drawn.classes, seeds, params.margin)
    notice = page_notice({*cohort.meta["sources"], "synthetic"})
    pictures.beside_real(folder / "beside_real.png", whole["training"], drawn, params.columns, notice)
    pictures.styles(folder / "styles.png", pipeline, test, notice)
    for name, report in copied.items():
        pictures.copies(folder / f"closest_{name}.png", report, training, drawn, notice)
    # Lesions have a table of their own on the page.
    return flat({name: found for name, found in results.items() if name != "lesions"})


def _rerendered(pipeline: LesionMapPipeline, examples: Examples) -> np.ndarray:
    """Photographs of the eyes' own maps in their own style; unknown pixels as retina."""
    classes = np.where(examples.classes == maps.UNKNOWN, np.uint8(maps.VB), examples.classes)
    return pipeline.render(classes, styles=pipeline.style_of(examples.images))


def _realism(
    params: JudgeLesionMapsParams, grader: Any, training: Examples, test: Examples, drawn: Examples
) -> dict[str, Any]:
    """Distances to the test eyes; the floor is that of as many training eyes of the same grades."""
    space = feature_space(params.feature_space, params.seed, grader)
    mine, theirs = matched_draw(drawn.grades.astype(str).tolist(), training.grades.astype(str).tolist(), params.seed)
    if len(mine) < 2:
        raise DataError("the distances need two drawn and two training eyes of the same grades; draw more")
    reference = space.features(test.images)
    sides = {"drawn": space.features(drawn.images[mine]), "floor": space.features(training.images[theirs])}
    people = {"drawn": drawn.patients[mine], "floor": training.patients[theirs]}
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
