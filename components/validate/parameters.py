"""Parameters of ``validate``; apart from the step, so that the suites can be read without running it."""

from pydantic import Field

from components.step import Params


class ValidateParams(Params):
    """Bounds of the expectations, for the cohort and for captions."""

    chunk_rows: int = Field(ge=1, description="rows validated at a time")
    min_images: int = Field(ge=1)
    min_side: int = Field(ge=1, description="pixels")
    quality_floor: float = Field(ge=0, le=1)
    max_poor_share: float = Field(ge=0, le=1, description="share of images that may lie below quality_floor")
    max_duplicate_share: float = Field(ge=0, le=1)
    min_class_images: int = Field(ge=0, description="images of each class in each split")
    max_inconsistent_share: float = Field(ge=0, le=1, description="share of eyes whose findings contradict the grade")
    checked_captions: int = Field(ge=0, description="captions read against the text rules, evenly spaced")
    max_violation_share: float = Field(ge=0, le=1, description="share of checked captions that may break one rule")
    min_laterality_share: float = Field(ge=0, le=1, description="share of captions that name the eye, where known")
    min_distinct_share: float = Field(ge=0, le=1, description="share of distinct texts among the captions")
