"""The step ``assess``: realism, diversity, memorisation and control of a synthetic cohort."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.assess import figures
from components.assess.maps import segmented
from components.assess.step import AssessParams
from components.step import Metrics, Paths
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.release import FLAGGED
from retinalogos.cohort.schema import ICDR_GRADES
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.metrics import assessment, diversity
from retinalogos.metrics.features import COHORT, feature_space
from retinalogos.metrics.intervals import Estimate
from retinalogos.metrics.observation import (
    Asked,
    Observed,
    captions_of,
    fit_judge,
    measure_phantoms,
    observe,
    pictures,
    read_labels,
)
from retinalogos.metrics.pairing import fit_pairing_judge, pairing

PHANTOM = "phantom"
# Whose tokens the captions of real images are counted with: it comes with the code.
MINILM = "minilm"


def run(params: AssessParams, inputs: Paths, outputs: Paths) -> Metrics:
    """Looks at every image once, judges, draws, and writes ``results.json`` and the figures."""
    real_cohort, synthetic_cohort = Cohort(inputs["cohort"]), Cohort(inputs["synthetic"])
    settings = assessment.Settings(
        resamples=params.resamples,
        distance_resamples=params.distance_resamples,
        extrapolation_points=params.extrapolation_points,
        extrapolation_resamples=params.extrapolation_resamples,
        kernel_subsets=params.kernel_subsets,
        kernel_subset_size=params.kernel_subset_size,
        neighbours=params.neighbours,
        memorised_neighbours=params.memorised_neighbours,
        memorised_quantile=params.memorised_quantile,
        rare_share=params.rare_share,
        seed=params.seed,
    )
    # Spaces of other names are loaded before the judge is trained: a wrong name is told at once.
    loaded = {name: feature_space(name, params.seed) for name in params.feature_spaces if name != COHORT}
    judge = fit_judge(real_cohort, params.judge, params.size, params.judge_images, params.seed, params.finding_images)
    spaces = [loaded.get(name) or feature_space(name, params.seed, judge) for name in params.feature_spaces]
    if len({space.name for space in spaces}) < len(spaces):
        raise UsageError(f"assess.feature_spaces names a space twice: {', '.join(params.feature_spaces)}")
    space = spaces[0]
    measure = measure_phantoms if set(real_cohort.meta["sources"]) == {PHANTOM} else None
    patients = {
        name: read_labels(cohort, split).patient_id
        for name, cohort, split in (("synthetic", synthetic_cohort, None), ("real", real_cohort, "test"))
    }
    pairs = {
        name: diversity.disjoint_pairs(len(of), params.ms_ssim_pairs, params.seed, of) for name, of in patients.items()
    }

    def look(cohort: Cohort, split: str | None, keep: np.ndarray, witnesses: bool = True) -> Observed:
        return observe(
            cohort,
            split,
            params.size,
            spaces,
            params.descriptor_side,
            judge if witnesses else None,
            measure if witnesses else None,
            keep.ravel().tolist(),
        )

    train = look(real_cohort, "train", np.empty(0, int), witnesses=False)
    test = look(real_cohort, "test", pairs["real"])
    synthetic = look(synthetic_cohort, None, pairs["synthetic"])

    realism = {
        of.name: {
            name: assessment.realism(real, synthetic, other, settings, of.name, getattr(of, "probabilities", None))
            for name, real, other in (("train", train, test), ("test", test, train))
        }
        for of in spaces
    }
    similarity = {
        name: diversity.mean_similarity(
            diversity.ms_ssim(*(np.stack([seen.kept[i] for i in column]) for column in pairs[name].T)),
            params.resamples,
            params.seed,
        )
        for name, seen in (("synthetic", synthetic), ("real", test))
    }
    copies = assessment.copies(train, test, synthetic, settings)
    control = {
        "judge": {
            "synthetic": assessment.judged(synthetic, None, settings),
            "real": assessment.judged(test, train.asked.codes, settings),
        },
        "measured": {
            "synthetic": assessment.measured(synthetic, settings),
            "real": assessment.measured(test, settings),
        },
        "pairing": _pairing(
            params, {"train": train, "real": test, "synthetic": synthetic}, real_cohort, synthetic_cohort
        ),
        "segmenter": segmented(params, real_cohort, synthetic_cohort) if params.segment else {},
    }

    prolonged = all("frechet_by_size" in result for result in realism[space.name].values())
    closest = (copies.pairs[: params.closest_pairs], copies.pairs_real[: params.closest_pairs])
    drawn_pairs: list[tuple[str, np.ndarray]] = []
    counterfactual: dict[str, Any] = {}
    if params.counterfactual_pairs and "generator" in inputs:
        # Drawing needs the generator's libraries, which take seconds to load.
        from components.assess.pairs import counterfactuals

        counterfactual, drawn_pairs = counterfactuals(
            inputs["generator"],
            real_cohort,
            params.counterfactual_pairs,
            judge,
            measure,
            params.resamples,
            params.seed,
        )
    folder = outputs["assessment"]
    folder.mkdir(parents=True)
    drawn = [
        figures.realism(folder / "realism.png", realism[space.name], space.name),
        *([figures.sample_size(folder / "sample_size.png", realism[space.name])] if prolonged else []),
        figures.memorisation(folder / "memorisation.png", copies.distances),
        _closest(folder / "closest_pairs.png", closest, real_cohort, synthetic_cohort, params.size),
        _classes(folder / "classes.png", test.asked, synthetic.asked, real_cohort, synthetic_cohort, params),
    ]
    if control["judge"]["synthetic"]:
        drawn.append(figures.confusions(folder / "judge.png", control["judge"]["synthetic"], control["judge"]["real"]))
    curves = figures.grade_curves(folder / "grades.png", control["judge"])
    drawn += [curves] if curves else []
    if measure:
        drawn.append(figures.measurements(folder / "measured.png", synthetic, test))
    if drawn_pairs:
        drawn.append(figures.counterfactuals(folder / "counterfactuals.png", drawn_pairs, params.grid_columns))
    results = {
        "feature_space": space.name,
        "dimensions": train.features.shape[1],
        "size": params.size,
        "images": {"train": len(train), "test": len(test), "synthetic": len(synthetic)},
        "realism": realism[space.name],
        # By its place: a dot, as in a file's name, would part the name of a figure.
        "other_spaces": [
            {"feature_space": of.name, "dimensions": train.spaces[of.name].shape[1], "realism": realism[of.name]}
            for of in spaces[1:]
        ],
        "diversity": {"ms_ssim": similarity, "scales": len(diversity.scale_weights(params.size))},
        "memorisation": {**copies.figures, "closest": closest[0], "closest_real": closest[1]},
        "control": control,
        "counterfactual": counterfactual,
        "figures": drawn,
    }
    _write_flagged(folder / FLAGGED, copies.flagged)
    text = json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    return _metrics(results)


def _pairing(
    params: AssessParams, sets: Mapping[str, Observed], real: Cohort, synthetic: Cohort
) -> dict[str, dict[str, Estimate]]:
    """Whether pictures and captions find each other, by a judge of the real training pairs, in all feature spaces."""
    budget = TokenBudget(MINILM, params.pairing_tokens)
    cohorts = {"train": (real, "train"), "real": (real, "test"), "synthetic": (synthetic, None)}
    # A sample of so many pictures at most, as of the judge of labels: their features are in memory together.
    rows = {
        name: np.sort(np.random.default_rng(params.seed).permutation(len(seen))[: params.judge_images])
        for name, seen in sets.items()
    }
    features = {
        name: np.concatenate([values[rows[name]] for values in seen.spaces.values()], 1) for name, seen in sets.items()
    }
    captions = {}
    for name, (cohort, split) in cohorts.items():
        written = captions_of(cohort, split, budget, params.seed)
        captions[name] = [written[row] for row in rows[name]]
    judge = fit_pairing_judge(features["train"], captions["train"], params.pairing, params.seed)
    if judge is None:
        return {}
    return {
        name: pairing(
            judge,
            features[name],
            captions[name],
            params.resamples,
            params.seed,
            sets[name].asked.patients[rows[name]],
        )
        for name in ("synthetic", "real")
    }


def _write_flagged(path: Path, pairs: list[assessment.Pair]) -> None:
    """The synthetic images that are taken for copies, for whoever releases the cohort."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "train_id", "space", "relative", "ratio", "rare"])
        writer.writerows(
            [p.image_id, p.train_id, p.space, f"{p.relative:.6g}", f"{p.ratio:.6g}", int(p.rare)] for p in pairs
        )


def _closest(
    path: Path, pairs: tuple[list[assessment.Pair], list[assessment.Pair]], real: Cohort, synthetic: Cohort, size: int
) -> str:
    made, unseen = pairs
    ids = {p.train_id for p in made + unseen} | {p.image_id for p in unseen}
    images = pictures(real, ids, size) | pictures(synthetic, {p.image_id for p in made}, size)
    return figures.closest_pairs(path, made, unseen, images)


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
    "fid_infinity": ("realism", "train", "frechet_infinity", "synthetic"),
    "fid_infinity_floor": ("realism", "train", "frechet_infinity", "floor"),
    "cmmd": ("realism", "train", "gaussian", "synthetic"),
    "cmmd_floor": ("realism", "train", "gaussian", "floor"),
    "kid": ("realism", "train", "kernel", "synthetic"),
    "kid_floor": ("realism", "train", "kernel", "floor"),
    "kid_test": ("realism", "test", "kernel", "synthetic"),
    "kid_test_floor": ("realism", "test", "kernel", "floor"),
    "ms_ssim": ("diversity", "ms_ssim", "synthetic"),
    "ms_ssim_real": ("diversity", "ms_ssim", "real"),
    "memorised_share": ("memorisation", "share"),
    "memorised_share_real": ("memorisation", "share_real"),
    "memorised_rare_share": ("memorisation", "rare", "share"),
    "membership_auc": ("memorisation", "pixels", "membership_auc"),
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
    "findings_auc": ("control", "judge", "synthetic", "findings", "mean", "auc"),
    "judge_findings_auc": ("control", "judge", "real", "findings", "mean", "auc"),
    "image_to_text": ("control", "pairing", "synthetic", "image_to_text"),
    "image_to_text_real": ("control", "pairing", "real", "image_to_text"),
    "text_to_image": ("control", "pairing", "synthetic", "text_to_image"),
    "text_to_image_real": ("control", "pairing", "real", "text_to_image"),
    "disc_side_accuracy": ("control", "measured", "synthetic", "disc_side"),
    "disc_side_accuracy_real": ("control", "measured", "real", "disc_side"),
    "vessels_kept": ("counterfactual", "dr_grade", "vessels", "changed"),
    "vessels_other_seed": ("counterfactual", "dr_grade", "vessels", "other_seed"),
    "vcdr_mae": ("control", "measured", "synthetic", "vcdr_error"),
    "vcdr_mae_real": ("control", "measured", "real", "vcdr_error"),
    "vcdr_correlation": ("control", "measured", "synthetic", "vcdr_correlation"),
    "vcdr_correlation_real": ("control", "measured", "real", "vcdr_correlation"),
    "disc_fovea": ("control", "measured", "synthetic", "disc_fovea"),
    "disc_fovea_real": ("control", "measured", "real", "disc_fovea"),
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
        flat[name] = _plain(getattr(manifold["synthetic"], name).value) if manifold else None
    return flat
