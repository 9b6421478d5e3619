"""The step ``assess``: realism, diversity, memorisation and control of a synthetic cohort."""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.assess import figures
from components.assess.step import AssessParams
from components.step import Metrics, Paths
from retinalogos.cohort.schema import ICDR_GRADES
from retinalogos.cohort.shards import Cohort
from retinalogos.metrics import assessment, diversity
from retinalogos.metrics.features import COHORT, feature_space
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.observation import (
    Asked,
    Observed,
    fit_judge,
    measure_phantoms,
    observe,
    pictures,
    read_labels,
)

PHANTOM = "phantom"


def run(params: AssessParams, inputs: Paths, outputs: Paths) -> Metrics:
    """Looks at every image once, judges, draws, and writes ``results.json`` and the figures."""
    real_cohort, synthetic_cohort = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    settings = assessment.Settings(
        resamples=params.resamples,
        distance_resamples=params.distance_resamples,
        kernel_subsets=params.kernel_subsets,
        kernel_subset_size=params.kernel_subset_size,
        neighbours=params.neighbours,
        memorised_neighbours=params.memorised_neighbours,
        memorised_quantile=params.memorised_quantile,
        seed=params.seed,
    )
    # A space of another name is loaded before the judge is trained: a wrong name is told at once.
    other_space = None if params.feature_space == COHORT else feature_space(params.feature_space, params.seed)
    judge = fit_judge(real_cohort, params.judge, params.size, params.judge_images, params.seed)
    space = other_space or feature_space(COHORT, params.seed, judge)
    measure = measure_phantoms if set(real_cohort.meta["sources"]) == {PHANTOM} else None
    pairs = {
        name: diversity.disjoint_pairs(len(read_labels(cohort, split).image_id), params.ms_ssim_pairs, params.seed)
        for name, cohort, split in (("synthetic", synthetic_cohort, None), ("real", real_cohort, "test"))
    }

    def look(cohort: Cohort, split: str | None, keep: np.ndarray, witnesses: bool = True) -> Observed:
        return observe(
            cohort,
            split,
            params.size,
            space,
            params.descriptor_side,
            judge if witnesses else None,
            measure if witnesses else None,
            keep.ravel().tolist(),
        )

    train = look(real_cohort, "train", np.empty(0, int), witnesses=False)
    test = look(real_cohort, "test", pairs["real"])
    synthetic = look(synthetic_cohort, None, pairs["synthetic"])

    realism = {
        "train": assessment.realism(train, synthetic, test, settings),
        "test": assessment.realism(test, synthetic, train, settings),
    }
    similarity = {
        name: diversity.mean_similarity(
            diversity.ms_ssim(*(np.stack([seen.kept[i] for i in column]) for column in pairs[name].T)),
            params.resamples,
            params.seed,
        )
        for name, seen in (("synthetic", synthetic), ("real", test))
    }
    copies = assessment.copies(train, test, synthetic, params.closest_pairs, settings)
    control = {
        "judge": {
            "synthetic": assessment.judged(synthetic, None, settings),
            "real": assessment.judged(test, train.asked.codes, settings),
        },
        "measured": {
            "synthetic": assessment.measured(synthetic, settings),
            "real": assessment.measured(test, settings),
        },
    }

    folder = outputs["assessment"]
    folder.mkdir(parents=True)
    drawn = [
        figures.realism(folder / "realism.png", realism, space.name),
        figures.memorisation(folder / "memorisation.png", copies.distances),
        _closest(folder / "closest_pairs.png", copies, real_cohort, synthetic_cohort, params.size),
        _classes(folder / "classes.png", test.asked, synthetic.asked, real_cohort, synthetic_cohort, params),
    ]
    if control["judge"]["synthetic"]:
        drawn.append(figures.confusions(folder / "judge.png", control["judge"]["synthetic"], control["judge"]["real"]))
    if measure:
        drawn.append(figures.measurements(folder / "measured.png", synthetic, test))
    results = {
        "feature_space": space.name,
        "dimensions": train.features.shape[1],
        "size": params.size,
        "images": {"train": len(train), "test": len(test), "synthetic": len(synthetic)},
        "realism": realism,
        "diversity": {"ms_ssim": similarity, "scales": len(diversity.scale_weights(params.size))},
        "memorisation": {**copies.figures, "closest": copies.closest, "closest_real": copies.closest_real},
        "control": control,
        "figures": drawn,
    }
    text = json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    return _metrics(results)


def _closest(path: Path, copies: assessment.Copies, real: Cohort, synthetic: Cohort, size: int) -> str:
    ids = {p.train_id for p in copies.closest + copies.closest_real} | {p.image_id for p in copies.closest_real}
    images = pictures(real, ids, size) | pictures(synthetic, {p.image_id for p in copies.closest}, size)
    return figures.closest_pairs(path, copies.closest, copies.closest_real, images)


def _classes(path: Path, test: Asked, made: Asked, real: Cohort, synthetic: Cohort, params: AssessParams) -> str:
    """The first images of each grade and of glaucoma, in the order of the cohorts: nothing is picked."""
    chosen: dict[str, list[list[str]]] = {}
    for name, task, code in [
        *((f"DR {grade}", "dr_grade", grade) for grade in range(len(ICDR_GRADES))),
        ("glaucoma", "glaucoma", 1),
    ]:
        chosen[name] = [
            [asked.image_id[i] for i in np.flatnonzero(asked.codes[task] == code)[: params.grid_columns]]
            for asked in (test, made)
        ]
    if not any(ids for sides in chosen.values() for ids in sides):
        chosen = {"any": [asked.image_id[: params.grid_columns] for asked in (test, made)]}
    looked_up = [
        pictures(cohort, [i for ids in chosen.values() for i in ids[side]], params.size)
        for side, cohort in enumerate((real, synthetic))
    ]
    groups = []
    for name, sides in chosen.items():
        of_test, of_made = ([shown[i] for i in ids] for shown, ids in zip(looked_up, sides, strict=True))
        if of_test or of_made:
            groups.append((name, of_test, of_made))
    return figures.class_grid(path, groups, params.grid_columns)


def _plain(value: Any) -> Any:
    """As JSON has it; six digits, since the last ones depend on the processor."""
    if isinstance(value, Estimate):
        return _plain(value.as_json())
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


# Flat metric → where its figure stands in the results.
_FLAT: dict[str, tuple[str, ...]] = {
    "fid": ("realism", "train", "frechet", "synthetic"),
    "fid_floor": ("realism", "train", "frechet", "floor"),
    "fid_test": ("realism", "test", "frechet", "synthetic"),
    "fid_test_floor": ("realism", "test", "frechet", "floor"),
    "kid": ("realism", "train", "kernel", "synthetic"),
    "kid_floor": ("realism", "train", "kernel", "floor"),
    "kid_test": ("realism", "test", "kernel", "synthetic"),
    "kid_test_floor": ("realism", "test", "kernel", "floor"),
    "ms_ssim": ("diversity", "ms_ssim", "synthetic"),
    "ms_ssim_real": ("diversity", "ms_ssim", "real"),
    "memorised_share": ("memorisation", "share"),
    "memorised_share_real": ("memorisation", "share_real"),
    "authenticity": ("memorisation", "features", "authenticity"),
    "authenticity_real": ("memorisation", "features", "authenticity_real"),
    "laterality_accuracy": ("control", "judge", "synthetic", "eye", "accuracy"),
    "judge_laterality_accuracy": ("control", "judge", "real", "eye", "accuracy"),
    "grade_accuracy": ("control", "judge", "synthetic", "dr_grade", "accuracy"),
    "judge_grade_accuracy": ("control", "judge", "real", "dr_grade", "accuracy"),
    "grade_qwk": ("control", "judge", "synthetic", "dr_grade", "kappa"),
    "judge_grade_qwk": ("control", "judge", "real", "dr_grade", "kappa"),
    "grade_rank": ("control", "judge", "synthetic", "dr_grade", "rank"),
    "judge_grade_rank": ("control", "judge", "real", "dr_grade", "rank"),
    "glaucoma_auc": ("control", "judge", "synthetic", "glaucoma", "auc"),
    "judge_glaucoma_auc": ("control", "judge", "real", "glaucoma", "auc"),
    "disc_side_accuracy": ("control", "measured", "synthetic", "disc_side"),
    "disc_side_accuracy_real": ("control", "measured", "real", "disc_side"),
    "vcdr_mae": ("control", "measured", "synthetic", "vcdr_error"),
    "vcdr_mae_real": ("control", "measured", "real", "vcdr_error"),
    "vcdr_correlation": ("control", "measured", "synthetic", "vcdr_correlation"),
    "vcdr_correlation_real": ("control", "measured", "real", "vcdr_correlation"),
    "lesion_load_spearman": ("control", "measured", "synthetic", "lesion_load"),
    "lesion_load_spearman_real": ("control", "measured", "real", "lesion_load"),
}


def _metrics(results: Mapping[str, Any]) -> Metrics:
    """The figures that gates and trackers read; null where the cohort has no such label or measurement."""
    flat: dict[str, float | int | str | None] = {"feature_space": results["feature_space"]}
    flat["images_compared"] = results["realism"]["train"]["n"]
    for name, keys in _FLAT.items():
        node: Any = results
        for key in keys:
            node = node.get(key, {}) if isinstance(node, Mapping) else {}
        flat[name] = _plain(node.value) if isinstance(node, Estimate) else None
    manifold = results["realism"]["train"].get("manifold")
    for name in ("precision", "recall", "density", "coverage"):
        flat[name] = _plain(getattr(manifold["synthetic"], name)) if manifold else None
    return flat
