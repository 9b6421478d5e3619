"""What is expected of a cohort and of captions: great_expectations suites, one for each table of ``tables``.

An expectation of severity ``critical`` is an error and stops the workflow; ``warning`` does not. Each has a name, and
``notes`` that say why it is expected; both stand in the Data Docs.
"""

from collections.abc import Collection, Iterable
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.metadata_types import FailureSeverity

from components.validate.parameters import ValidateParams
from retinalogos.captions.rules import RULES
from retinalogos.captions.template import GRANULARITIES
from retinalogos.cohort.schema import EYES, GLAUCOMA, ICDR_GRADES, SEXES, SPLITS

ERROR, WARNING = FailureSeverity.CRITICAL, FailureSeverity.WARNING
Suites = dict[str, gx.ExpectationSuite]

# Rules whose violation teaches the generator a wrong attribute or leaks an identity; the others cost quality.
GRAVE_RULES = frozenset({"over_budget", "laterality", "grade", "glaucoma", "identifier"})


def cohort_suites(params: ValidateParams) -> Suites:
    """Table name → suite."""
    return _suites(
        cohort_rows=_cohort_rows(params),
        cohort_patients=[_equals("splits", 1, "patient in one split", "a patient in two splits leaks into the test")],
        cohort_duplicates=[_equals("splits", 1, "duplicates in one split", "a copy in another split leaks likewise")],
        cohort_classes=[
            _between(
                "images",
                (params.min_class_images, None),
                "images of each class in each split",
                "a class with fewer can be neither learnt nor judged",
                WARNING,
            )
        ],
        cohort_whole=_cohort_whole(params),
    )


def captions_suites(params: ValidateParams, token_budget: int) -> Suites:
    """Table name → suite."""
    return _suites(
        captions_rows=_captions_rows(params, token_budget),
        captions_images=[
            _between("captions", (1, None), "every image has a caption", "an image without one is not learnt"),
            _same(
                "captions",
                "distinct_texts",
                "wordings of an image differ",
                "wordings that are alike teach nothing more",
                WARNING,
            ),
        ],
        captions_whole=[
            _same(
                "captions",
                "stated_captions",
                "as many captions as stated",
                "captions.json and captions.parquet must be of one run",
            ),
            _equals("repeated_wordings", 0, "a wording stands once", "captions are named by their wording"),
            _between(
                "distinct_share",
                (params.min_distinct_share, None),
                "share of distinct texts",
                "a generator that reads few texts obeys few",
                WARNING,
            ),
        ],
    )


def _cohort_rows(params: ValidateParams) -> Iterable[Expectation]:
    yield _matches("image_id", r"^[0-9a-f]{16}$", "image_id is a content hash", "lineage is by content")
    yield _matches("sha256", r"^[0-9a-f]{64}$", "sha256 is a hash", "lineage is by content")
    yield _among("patient_known", [True], "patient_id is given", "splits are by patient")
    yield _given("source", "says where an image comes from")
    yield _given("split", "every row belongs to one")
    yield _given("licence", "what may be done with an image hangs on it", WARNING)
    for column, values in (("eye", EYES), ("sex", SEXES), ("split", SPLITS), ("glaucoma", GLAUCOMA)):
        yield _among(column, values, f"{column} in the vocabulary", "the vocabulary of the cohort schema")
    grades = range(len(ICDR_GRADES))
    yield _among("dr_grade", grades, "dr_grade is an ICDR grade", "International Clinical Diabetic Retinopathy scale")
    yield _among("dme", [0, 1], "dme is 0 or 1", "0 no, 1 yes")
    yield _between("age", (0, 120), "age in years", "beyond it a unit or a column is wrong")
    yield _between("vcdr", (0, 1), "vertical cup-to-disc ratio", "a cup is no larger than its disc")
    yield _between("quality", (0, 1), "quality score in its range", "0 unusable to 1")
    floor, most = (params.quality_floor, None), 1 - params.max_poor_share
    yield _between("quality", floor, "quality above the floor", "blurred pictures teach blur", WARNING, most)
    yield _between("width", (params.min_side, None), "image size", "below it vessels are gone")
    yield _same("width", "height", "images are square", "ingest pads to a square, and latents are square")
    yield _among("findings_in_vocabulary", [True], "findings in the vocabulary", "codes of cohort.findings.FINDINGS")
    why, most = "a lesion that the grade excludes: one of the two is wrong", 1 - params.max_inconsistent_share
    yield _among("findings_fit_grade", [True], "findings fit the grade", why, WARNING)
    yield _among("findings_fit_grade", [True], "findings fit the grade in most eyes", why, ERROR, most)
    yield _among("cup_fits_glaucoma", [True], "cup fits the glaucoma status", "one of the two is wrong", WARNING)
    yield _among("report_identifies", [False], "reports hold no identifier", "they must be de-identified", WARNING)
    yield _among(
        "labelled", [True], "eye has a grade, glaucoma status or findings", "else its caption says little", WARNING
    )


def _cohort_whole(params: ValidateParams) -> Iterable[Expectation]:
    yield _between("images", (params.min_images, None), "number of images", "too few to train and test on")
    yield _same("images", "stated_images", "as many images as stated", "cohort.json and shards must be of one run")
    yield _among("content_as_written", [True], "shards are as written", "content_sha256 of cohort.json must be theirs")
    yield _equals("repeated_image_ids", 0, "image_id stands once", "captions and latents are keyed by it")
    yield _equals("unmarked_copies", 0, "copies are marked", "the same file twice, in no duplicate group", WARNING)
    most = (None, params.max_duplicate_share)
    yield _between("duplicate_share", most, "share of duplicates", "many copies: a source was read twice", WARNING)
    for split in SPLITS:
        yield _between(f"{split}_images", (1, None), f"{split} split has images", "the stages need all three")


def _captions_rows(params: ValidateParams, token_budget: int) -> Iterable[Expectation]:
    yield _among("image_known", [True], "caption is of an image of the cohort", "captions are joined by image_id")
    yield _among("granularity", GRANULARITIES, "granularity in the vocabulary", "coarse or fine")
    yield _between("wording", (0, None), "wording is counted from 0", "wordings are named by number")
    yield _between("counted_tokens", (3, token_budget), "length in tokens", "what is longer is cut by the text encoder")
    yield _same("tokens", "counted_tokens", "tokens as the encoder counts them", "another tokenizer, another budget")
    yield _given("engine", "says what wrote it")
    yield _given("prompt_version", "says what wrote it")
    most = params.min_laterality_share
    yield _among("states_eye", [True], "caption names the eye", "only what is said can be obeyed", WARNING, most)
    for rule in RULES.values():
        severity = ERROR if rule.name in GRAVE_RULES else WARNING
        yield _among(
            rule.name, [False], f"text rule {rule.name}", rule.reason, severity, 1 - params.max_violation_share
        )


def _suites(**tables: Iterable[Expectation]) -> Suites:
    return {name: gx.ExpectationSuite(name=name, expectations=list(items)) for name, items in tables.items()}


def _said(name: str, why: str, severity: FailureSeverity) -> dict[str, Any]:
    return {"severity": severity, "notes": why, "meta": {"name": name}}


def _among(
    column: str,
    values: Collection[Any],
    name: str,
    why: str,
    severity: FailureSeverity = ERROR,
    mostly: float = 1.0,
) -> Expectation:
    return gxe.ExpectColumnValuesToBeInSet(
        column=column, value_set=list(values), mostly=mostly, **_said(name, why, severity)
    )


def _between(
    column: str,
    bounds: tuple[float | None, float | None],
    name: str,
    why: str,
    severity: FailureSeverity = ERROR,
    mostly: float = 1.0,
) -> Expectation:
    return gxe.ExpectColumnValuesToBeBetween(
        column=column, min_value=bounds[0], max_value=bounds[1], mostly=mostly, **_said(name, why, severity)
    )


def _equals(column: str, value: int, name: str, why: str, severity: FailureSeverity = ERROR) -> Expectation:
    return _between(column, (value, value), name, why, severity)


def _same(one: str, other: str, name: str, why: str, severity: FailureSeverity = ERROR) -> Expectation:
    return gxe.ExpectColumnPairValuesToBeEqual(column_A=one, column_B=other, **_said(name, why, severity))


def _given(column: str, why: str, severity: FailureSeverity = ERROR) -> Expectation:
    return gxe.ExpectColumnValuesToNotBeNull(column=column, **_said(f"{column} is given", why, severity))


def _matches(column: str, pattern: str, name: str, why: str) -> Expectation:
    return gxe.ExpectColumnValuesToMatchRegex(column=column, regex=pattern, **_said(name, why, ERROR))
