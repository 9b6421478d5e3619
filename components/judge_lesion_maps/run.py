"""Judges the synthetic cohort of lesion maps against the real one."""

import json
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np

from components.judge_lesion_maps.step import JudgeLesionMapsParams
from components.step import Metrics, Paths
from retinalogos.classifiers.grader import fit_grader
from retinalogos.cohort.shards import Cohort
from retinalogos.contact_sheet import make_sheet
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import judging, maps
from retinalogos.generators.lesion_map.examples import Examples, read
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.generators.lesion_map.segmentation import dice_of, fit_segmenter
from retinalogos.metrics.features import feature_space
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.realism import frechet_with_interval, kernel_with_interval, matched_draw
from retinalogos.provenance import write_png


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
    grade_from_map = {
        name: judging.recover_grades(map_grader, maps.to_rgb(each.classes), each.grades, resamples, seed)
        for name, each in graded.items()
    }
    photo_grader = fit_grader(
        training.images, {judging.TASK: training.grades}, {judging.TASK: maps.GRADES}, params.grader, seed
    )
    segmenter = fit_segmenter(training.candidates, training.images, params.segmenter, seed)
    shown = {
        "real": (test.images, test.classes),
        "rerendered": (_rerendered(pipeline, test), test.classes),
        "drawn": (drawn.images, drawn.classes),
    }
    results = {
        "images": {"training": len(training), "test": len(test), "drawn": len(drawn)},
        "grade_from_map": grade_from_map,
        "grade_from_photograph": {
            name: judging.recover_grades(photo_grader, each.images, each.grades, resamples, seed)
            for name, each in graded.items()
        },
        "lesions": judging.compare_lesions(whole["training"], drawn, whole["test"], resamples, seed),
        "found_again": {
            name: dice_of(segmenter.find(images), classes, resamples, seed) for name, (images, classes) in shown.items()
        },
        "realism": _realism(params, photo_grader, training, test, drawn),
        "edits": judging.judge_edits(
            pipeline, drawn.classes[: params.edits], seeds[: params.edits], params.margin, resamples, seed
        ),
    }
    folder = outputs["judgement"]
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(_plain(results), indent=2) + "\n")
    _draw_grid(folder / "grid.png", pipeline, params)
    return _metrics(results)


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
    return {
        "feature_space": space.name,
        "eyes": len(mine),
        **{
            name: {side: distance(reference, found, params.resamples, params.seed) for side, found in sides.items()}
            for name, distance in (("frechet", frechet_with_interval), ("kernel", kernel_with_interval))
        },
    }


def _draw_grid(path: Any, pipeline: LesionMapPipeline, params: JudgeLesionMapsParams) -> None:
    """Maps of grades 0 to 4, and below them their photographs, of the first seeds: nothing is chosen."""
    grades = [grade for _ in range(params.columns) for grade in range(maps.GRADES)]
    seeds = list(range(len(grades)))
    drawn = pipeline.draw(grades, seeds)
    images = pipeline.render(drawn, seeds)
    pictures, labels = [], []
    for start in range(0, len(grades), maps.GRADES):
        rows = slice(start, start + maps.GRADES)
        pictures += [*maps.to_rgb(drawn[rows]), *images[rows]]
        labels += [f"grade {grade}, seed {seed}" for grade, seed in zip(grades[rows], seeds[rows], strict=True)]
        labels += [""] * maps.GRADES
    write_png(path, make_sheet(pictures, labels, maps.GRADES), {"seeds": f"0-{len(seeds) - 1}"})


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.as_json()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({name: getattr(value, name) for name in asdict(value)})
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _metrics(results: dict[str, Any]) -> Metrics:
    found: dict[str, float | None] = {}
    for task in ("grade_from_map", "grade_from_photograph"):
        found |= {f"{task}_qwk_{name}": each.qwk.value for name, each in results[task].items()}
    for name, each in results["found_again"].items():
        found |= {f"dice_{name}_{lesion}": estimate.value for lesion, estimate in each.items()}
    for name in ("frechet", "kernel"):
        found |= {f"{name}_{side}": estimate.value for side, estimate in results["realism"][name].items()}
    found["edit_kept"] = results["edits"].kept.value
    found["edit_rendered_outside"] = results["edits"].rendered_outside.value
    return {name: None if value is None or value != value else value for name, value in found.items()}
