"""Counterfactuals: one seed, one attribute changed in the caption. Does that attribute change, and nothing else?

For a number of eyes three pictures are compared: of the eye's caption, of the same caption with one attribute changed
under the *same seed*, and of the same caption under *another seed*. The first two should differ in that attribute and
be one eye otherwise; how far two different eyes lie apart in everything, the third says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinalogos.captions.description import DIABETIC_LESIONS
from retinalogos.cohort.schema import EYES
from retinalogos.errors import DataError
from retinalogos.metrics.alignment import likeness, structure
from retinalogos.metrics.intervals import Estimate, bootstrap, undefined
from retinalogos.metrics.observation import ASKED, TASKS, Measured

# Findings that come with glaucoma and go with it.
_GLAUCOMA_FINDINGS = frozenset(
    {"rim_notch", "disc_haemorrhage", "nerve_fibre_layer_defect", "increased_cup_disc", "optic_atrophy"}
)
# A grade is an attribute of more than one step, so the change is to the severest that the cohort has.
_SEVERE = 3

Record = Mapping[str, Any]
# Scores of n images by attribute, each higher the more of it is seen; nan where it cannot be told.
Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Wishes:
    """What is asked for: records of n eyes, and by attribute the same records with that attribute changed.

    ``signs`` says per attribute whether the change should raise (1) or lower (-1) its score, n each.
    """

    plain: list[Record]
    changed: dict[str, list[Record]]
    signs: dict[str, np.ndarray]


def wishes(training: Sequence[Record], pairs: int, seed: int) -> Wishes:
    """Draws eyes without retinopathy and glaucoma, and gives each, one at a time, the other side and both diseases.

    What a disease brings with it (lesions, cup) is taken from a training eye that has it, so that findings occur
    together as they do in life.

    Args:
        training: rows of the training split with the columns :data:`ASKED`.
        pairs: number of eyes.
        seed: of the draws.

    Raises:
        DataError: no training eye is known to be without both, or whose side is known.
    """
    healthy = [
        row
        for row in training
        if row["eye"] in EYES and row["dr_grade"] in (0, None) and row["glaucoma"] in ("no", None)
    ]
    if not healthy:
        raise DataError("counterfactuals begin with training eyes of known side without retinopathy and glaucoma: none")
    grades = [row["dr_grade"] for row in training if row["dr_grade"] is not None]
    worst = max(grades, default=0)
    donors = {
        "dr_grade": [row for row in training if row["dr_grade"] == worst] if worst >= _SEVERE else [],
        "glaucoma": [row for row in training if row["glaucoma"] == "glaucoma"],
    }
    rng = np.random.default_rng(seed)
    plain: list[Record] = []
    for _ in range(pairs):
        model = healthy[rng.integers(len(healthy))]
        plain.append({name: model[name] for name in ASKED})
    changed: dict[str, list[Record]] = {"eye": [{**row, "eye": EYES[1 - EYES.index(row["eye"])]} for row in plain]}
    signs = {"eye": np.array([1.0 if row["eye"] == EYES[0] else -1.0 for row in plain])}
    for attribute, columns, own in (
        ("dr_grade", ("dr_grade", "dme"), DIABETIC_LESIONS),
        ("glaucoma", ("glaucoma", "vcdr"), _GLAUCOMA_FINDINGS),
    ):
        if not donors[attribute]:
            continue
        rows: list[Record] = []
        for row in plain:
            donor = donors[attribute][rng.integers(len(donors[attribute]))]
            findings = [name for name in row["findings"] or [] if name not in own]
            findings += [name for name in donor["findings"] or [] if name in own]
            rows.append({**row, **{name: donor[name] for name in columns}, "findings": findings})
        changed[attribute] = rows
        signs[attribute] = np.ones(len(plain))
    return Wishes(plain, changed, signs)


def judge_scores(seen: Mapping[str, np.ndarray]) -> Scores:
    """What a judge's probabilities, n × classes by task, say: the mean class over the last, 0-1."""
    scores = {}
    for task in [name for name in TASKS if name in seen]:
        probabilities = seen[task]
        classes = probabilities.shape[1]
        scores[task] = probabilities @ np.arange(classes) / (classes - 1)
    return scores


def measured_scores(found: Measured) -> Scores:
    """What is measured in phantom eyes: side (0 the first of EYES, 1 the second), lesion load, cup-to-disc ratio."""
    side = np.array([EYES.index(s) if s in EYES else np.nan for s in found.side], float)
    return {"eye": side, "dr_grade": found.load, "glaucoma": found.vcdr}


def compare(
    plain: np.ndarray,
    changed: Mapping[str, np.ndarray],
    other_seed: np.ndarray,
    signs: Mapping[str, np.ndarray],
    witnesses: Mapping[str, Callable[[np.ndarray], Scores]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Effects of each change beside those of another seed.

    Args:
        plain: pictures of the captions, uint8 n × h × w × 3.
        changed: by attribute, those of the changed captions under the same seeds.
        other_seed: those of the unchanged captions under other seeds.
        signs: of :class:`Wishes`.
        witnesses: who sees: name to scores of pictures.
        resamples: of the bootstrap over eyes.
        seed: of the bootstrap.

    Returns:
        By attribute: ``vessels``, the correlation of fine structure with the plain picture (or its mirror image, where
        the side is changed); by witness ``target``, the mean change of the attribute's score in the direction asked
        for, and ``others``, the mean absolute change of each other score. Each for the changed caption and for
        another seed.
    """

    def mean(values: np.ndarray) -> Estimate:
        known = values[np.isfinite(values)]
        return bootstrap(np.mean, known, resamples=resamples, seed=seed) if len(known) else undefined()

    maps = structure(plain)
    before = {name: scores(plain) for name, scores in witnesses.items()}
    result: dict[str, Any] = {}
    for attribute, pictures in changed.items():
        after = {"changed": pictures, "other_seed": other_seed}
        seen = {which: {name: scores(images) for name, scores in witnesses.items()} for which, images in after.items()}
        figures: dict[str, Any] = {
            "vessels": {
                which: mean(likeness(structure(images), maps, mirrored=attribute == "eye"))
                for which, images in after.items()
            }
        }
        for name, scores in before.items():
            if attribute not in scores:
                continue
            figures[name] = {
                "target": {
                    which: mean(signs[attribute] * (seen[which][name][attribute] - scores[attribute]))
                    for which in after
                },
                "others": {
                    other: {which: mean(np.abs(seen[which][name][other] - scores[other])) for which in after}
                    for other in scores
                    if other != attribute
                },
            }
        result[attribute] = figures
    return result
