"""What a filter is to the page and to the metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Filter:
    """A filter and what it found.

    Attributes:
        name: as in metrics and in the column ``dropped_by``.
        title, means: for a reader of the page.
        score: the column that is shown as its score.
        on: whether it was applied.
        judge: what gave the score, where there is a choice.
        limit: which scores stay, in words.
        columns: column of ``scores.parquet`` → number of a caption → value.
        drops: number of a caption → rule and detail.
    """

    name: str
    title: str
    means: str
    score: str
    on: bool = True
    judge: str = ""
    limit: str = ""
    columns: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    drops: Mapping[int, tuple[str, str]] = field(default_factory=dict)


TEXT = Filter(
    "text",
    "Text",
    "A caption is read back and held against the record of its eye (side, grade, glaucoma, findings, cup); repetition, "
    "length, forbidden claims and identifiers are looked for. The score is the number of broken rules.",
    "broken_rules",
)
JUDGE = Filter(
    "judge",
    "Language model",
    "A language model is given record and caption, not the picture, and says how sure it is that they contradict each "
    "other. Captions that it gave no usable answer on stay.",
    "contradiction",
)
AGREEMENT = Filter(
    "agreement",
    "Picture and text",
    "A model says how well a caption goes with its picture. Only training images are judged. Readers of statements "
    "give a probability; of other models the share that agrees least is dropped, whatever its score.",
    "agreement",
)
IMAGE = Filter(
    "image",
    "Picture",
    "Captions of poor pictures and of near duplicates of another picture. The score is the poorest of the "
    "picture's sharpness, contrast and evenness of light; their mean, which ingest took, has a limit of its own.",
    "quality",
)
