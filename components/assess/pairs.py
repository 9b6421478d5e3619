"""Draws the pictures of the counterfactual test with the generator that is assessed."""

from pathlib import Path
from typing import Any

import numpy as np

from retinalogos.captions.template import write_caption
from retinalogos.captions.tokens import TokenBudget
from retinalogos.classifiers.grader import Grader
from retinalogos.cohort.shards import Cohort
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.metrics import counterfactual
from retinalogos.metrics.counterfactual import Record, Scores
from retinalogos.metrics.observation import ASKED, Measurement

# Seeds of other eyes lie this far off those of the eyes.
_OTHER = 1_000_000


def counterfactuals(
    generator: Path,
    cohort: Cohort,
    pairs: int,
    judge: Grader | None,
    measure: Measurement | None,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], list[tuple[str, np.ndarray]]]:
    """Figures of :func:`retinalogos.metrics.counterfactual.compare`, and the pictures, row by row.

    Args:
        generator: folder of a generator.
        cohort: the real cohort, whose training split says what is asked for.
        pairs: number of eyes.
        judge: classifier trained on real images, if there is one.
        measure: of phantom eyes, if these are.
        resamples: of the bootstrap.
        seed: of eyes, captions and pictures.
    """
    pipeline = TextToFundusPipeline.from_pretrained(generator)
    budget = TokenBudget(pipeline.config.text_encoder_name, pipeline.config.token_budget)
    rows = cohort.table(ASKED, split="train").to_pylist()
    asked = counterfactual.wishes(rows, pairs, seed)
    seeds = [seed + number for number in range(pairs)]

    def draw(records: list[Record], other: int = 0) -> np.ndarray:
        prompts = [
            write_caption(record, granularity="fine", wording=0, seed=own, budget=budget).text
            for record, own in zip(records, seeds, strict=True)
        ]
        return pipeline(prompts, seeds=[own + other for own in seeds])

    plain = draw(asked.plain)
    changed = {attribute: draw(records) for attribute, records in asked.changed.items()}
    other_seed = draw(asked.plain, _OTHER)
    witnesses = {}
    if judge is not None:
        witnesses["judge"] = lambda images: counterfactual.judge_scores(judge.predict(images))
    if measure is not None:
        witnesses["measured"] = lambda images: _measured(measure, images)
    figures = counterfactual.compare(plain, changed, other_seed, asked.signs, witnesses, resamples, seed)
    names = {"eye": "other side", "dr_grade": "with retinopathy", "glaucoma": "with glaucoma"}
    shown = [("as asked", plain)] + [(names[attribute], pictures) for attribute, pictures in changed.items()]
    return {"pairs": pairs, **figures}, [*shown, ("other seed", other_seed)]


def _measured(measure: Measurement, images: np.ndarray) -> Scores:
    return counterfactual.measured_scores(measure(images))
