"""Whether a cohort, or its captions, are fit to work on: Data Docs, a verdict, and a stop where they are not."""

import json
from dataclasses import asdict

import pyarrow.parquet as pq

from components.step import Metrics, Paths, Port, Step
from components.validate.parameters import ValidateParams
from retinalogos.captions.table import read_captions_meta
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import DataError

_NAMED = 3  # failed expectations that the error's one line names


def run(params: ValidateParams, inputs: Paths, outputs: Paths) -> Metrics:
    """Validates the captions where they are given, else the cohort.

    Raises:
        DataError: an expectation of severity error failed. Docs and verdict are written before.
    """
    # great_expectations takes seconds to import, and only this step needs it.
    from components.validate.docs import validate_tables
    from components.validate.suites import captions_suites, cohort_suites
    from components.validate.tables import captions_tables, cohort_tables

    cohort = Cohort(inputs["cohort"])
    folder = outputs["validation"]
    folder.mkdir(parents=True)
    if "captions" in inputs:
        meta = read_captions_meta(inputs["captions"])
        captions = pq.ParquetFile(inputs["captions"] / "captions.parquet")
        tables = captions_tables(cohort, captions, meta, params.chunk_rows, params.checked_captions)
        suites = captions_suites(params, meta["token_budget"])
    else:
        tables, suites = cohort_tables(cohort, params.chunk_rows), cohort_suites(params)
    findings = validate_tables(tables, suites, folder / "data_docs")

    errors = [finding for finding in findings if not finding.passed and finding.severity == "error"]
    warnings = [finding for finding in findings if not finding.passed and finding.severity == "warning"]
    held = len(findings) - len(errors) - len(warnings)
    verdict = {
        "passed": not errors,
        "says": f"{held} of {len(findings)} expectations hold, {len(errors)} errors, {len(warnings)} warnings",
        "errors": len(errors),
        "warnings": len(warnings),
        "findings": [asdict(finding) for finding in findings],
    }
    (folder / "verdict.json").write_text(json.dumps(verdict, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if errors:
        named = "; ".join(f"{finding.name} ({finding.observed})" for finding in errors[:_NAMED])
        more = f" and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        where = inputs["captions"] if "captions" in inputs else inputs["cohort"]
        raise DataError(f"{where} failed validation: {named}{more}; see {folder / 'data_docs' / 'index.html'}")
    return {"passed": True, "expectations": len(findings), "errors": 0, "warnings": len(warnings)}


STEP = Step(
    name="validate",
    summary="great_expectations over the cohort's table, or over its captions: Data Docs and a verdict",
    params=ValidateParams,
    run=run,
    inputs={
        "cohort": Port("cohort to validate", "Dataset"),
        "captions": Port("captions to validate against the cohort; without it the cohort is", "Dataset", optional=True),
    },
    outputs={"validation": Port("data_docs/ (HTML) and verdict.json")},
)
