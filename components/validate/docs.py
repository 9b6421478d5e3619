"""Runs suites over tables and writes great_expectations' Data Docs, the same bytes for the same data."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

import great_expectations as gx
import pandas as pd
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.metadata_types import FailureSeverity

# Outputs do not depend on when they were made: all times are this one.
_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_TIME_TEXT = "20000101T000000.000000Z"
_SITE = "data_docs"
# Columns that name a row of a table; the others' rows have no name that may be shown.
_KEYS = {
    "cohort_rows": ("image_id",),
    "cohort_classes": ("class", "split"),
    "captions_rows": ("image_id", "granularity", "wording"),
}
# Unexpected values that the docs show of each expectation.
_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """The outcome of one expectation over all chunks of its table.

    Attributes:
        suite: name of the suite, which is that of the table.
        name: what is expected, in words.
        severity: error or warning.
        passed: whether it held in every chunk.
        observed: what was seen, in words.
        why: why it is expected.
    """

    suite: str
    name: str
    severity: str
    passed: bool
    observed: str
    why: str


def validate_tables(
    tables: Iterable[tuple[str, pd.DataFrame]], suites: Mapping[str, gx.ExpectationSuite], folder: Path | None
) -> list[Finding]:
    """Validates each table with the suite of its name and writes the Data Docs to ``folder``.

    A table may come in chunks, each of which is validated by itself and has a page of its own.

    Args:
        tables: (name, rows); one chunk is in memory at a time.
        suites: by table name.
        folder: of the Data Docs, ``index.html`` and its pages; None writes none.

    Returns:
        one finding for each expectation, in the order of the suites.
    """
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("table")
    for suite in suites.values():
        context.suites.add(suite)
    outcomes: dict[str, list[list[Any]]] = {name: [] for name in suites}
    last: dict[str, pd.DataFrame] = {}
    for name, rows in tables:
        chunk = f"{name}_{len(outcomes[name]) + 1}"
        batch = source.add_dataframe_asset(chunk).add_batch_definition_whole_dataframe("rows")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=chunk, data=batch, suite=suites[name])
        )
        result_format = {
            "result_format": "SUMMARY",
            "partial_unexpected_count": _EXAMPLES,
            "unexpected_index_column_names": list(_KEYS.get(name, ())),
        }
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(name=chunk, validation_definitions=[definition], result_format=result_format)
        )
        outcome = checkpoint.run(
            batch_parameters={"dataframe": rows},
            run_id=RunIdentifier(run_name=f"chunk-{len(outcomes[name]) + 1:04d}", run_time=_TIME),
        )
        results = [result for run in outcome.run_results.values() for result in run.results]
        outcomes[name].append(_in_order(suites[name], results))
        last[name] = rows.iloc[:1] if len(rows) == 1 else rows.iloc[:0]
    if folder is not None:
        _build_docs(context, folder)
    return [
        _merge(name, [chunk[index] for chunk in outcomes[name]], last[name])
        for name in suites
        if outcomes[name]
        for index in range(len(outcomes[name][0]))
    ]


def _build_docs(context: Any, folder: Path) -> None:
    """The pages of all results that the context holds."""
    site = {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())},
        "show_how_to_buttons": False,
    }
    context.variables.data_docs_sites = {}
    context.add_data_docs_site(site_name=_SITE, site_config=site)
    context.build_data_docs(site_names=[_SITE])
    make_reproducible(folder)


def _in_order(suite: gx.ExpectationSuite, results: list[Any]) -> list[Any]:
    place = {expectation.id: number for number, expectation in enumerate(suite.expectations)}
    return sorted(results, key=lambda result: place[result.expectation_config.id])


def _merge(suite: str, results: list[Any], only: pd.DataFrame) -> Finding:
    """One finding of an expectation's results in all chunks; ``only`` is the row of a table of one row."""
    config = results[0].expectation_config
    raised = [reason for result in results if (reason := _reason(result.exception_info))]
    return Finding(
        suite=suite,
        name=config.meta["name"],
        severity="error" if config.severity is FailureSeverity.CRITICAL else "warning",
        passed=all(result.success for result in results),
        observed=f"could not be evaluated: {raised[0]}" if raised else _observed(results, only),
        why=config.notes,
    )


def _observed(results: list[Any], only: pd.DataFrame) -> str:
    bounds = results[0].expectation_config.kwargs
    if len(only) == 1:
        columns = [bounds[key] for key in ("column", "column_A", "column_B") if key in bounds]
        return _plain(tuple(only.iloc[0][column] for column in columns))
    unexpected = sum(result.result["unexpected_count"] for result in results)
    known = sum(result.result["element_count"] - result.result.get("missing_count", 0) for result in results)
    if not unexpected:
        return f"{known} of {known} as expected"
    named = [row for result in results for row in result.result.get("partial_unexpected_index_list") or ()]
    examples = [", ".join(_plain(value) for value in row.values()) for row in named if isinstance(row, dict)]
    if not examples:
        examples = [_plain(value) for result in results for value in result.result["partial_unexpected_list"]]
    return f"{unexpected} of {known} unexpected: {'; '.join(list(dict.fromkeys(examples))[:_EXAMPLES])}"


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " against ".join(_plain(part) for part in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _reason(info: Mapping[str, Any]) -> str:
    """The message of an exception; great_expectations nests them by metric."""
    if info.get("raised_exception"):
        return str(info.get("exception_message"))
    return next((_reason(part) for part in info.values() if isinstance(part, Mapping) and _reason(part)), "")


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIMESTAMP = re.compile(r"\b20\d{6}T\d{6}\.\d{6}Z")
# The logo of every page is fetched with the time of the run in its address.
_REMOTE_LOGO = re.compile(r"https://great-expectations-web-assets[^\"']*/logo-long\.png\?d=[^\"']*")


def make_reproducible(folder: Path) -> None:
    """Makes the Data Docs a function of data and suites alone.

    Times become one time, random identifiers are numbered in the order of their appearance, the logo is the local copy,
    and pictures and fonts that no page uses (3 MB of tutorial animations) are dropped.
    """
    pages = sorted(folder.rglob("*.html"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        up = "../" * len(page.relative_to(folder).parent.parts)
        text = _REMOTE_LOGO.sub(f"{up}static/images/logo-long.png", text)
        text = _TIMESTAMP.sub(_TIME_TEXT, text)
        for number, identifier in enumerate(dict.fromkeys(_UUID.findall(text))):
            text = text.replace(identifier, f"id-{number}")
        page.write_text(text, encoding="utf-8")
    styles = list(folder.glob("static/styles/*.css"))
    used = "".join(file.read_text(encoding="utf-8") for file in [*pages, *styles])
    for file in sorted(folder.glob("static/images/*")) + sorted(folder.glob("static/fonts/*/*")):
        if file.name not in used:
            file.unlink()
    for empty in folder.glob("static/fonts/*"):
        if not any(empty.iterdir()):
            shutil.rmtree(empty)
