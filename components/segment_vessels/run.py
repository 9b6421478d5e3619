"""Trains the artery and vein segmenter on the cohort and further sets, and judges it on each one's test split."""

import tempfile
from pathlib import Path

from components.segment_vessels.step import SegmentVesselsParams
from components.step import Metrics, Paths
from retinalogos.cohort.external import read_external
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.agreement import of_eyes, summary
from retinalogos.generators.vessel_map.examples import has_vessels, read_examples
from retinalogos.generators.vessel_map.segmenter import train_segmenter
from retinalogos.metrics.results import flat, write_results


def run(params: SegmentVesselsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    if params.train + params.validation > 1:
        raise UsageError(f"segment_vessels.train {params.train} and validation {params.validation} exceed 1 together")
    cohorts = {"cohort": Cohort(inputs["cohort"])}
    fractions = {
        "train": params.train,
        "validation": params.validation,
        "test": round(1 - params.train - params.validation, 9),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for entry in params.external:
            if entry.title in cohorts:
                raise UsageError(f"segment_vessels.external: two sets are called {entry.title}: give each a `name`")
            folder = Path(scratch) / "sets" / entry.title
            cohorts[entry.title] = read_external(entry, params.segmenter.size, fractions, params.seed, folder)
        segmenter, eyes = train_segmenter(
            list(cohorts.values()),
            params.segmenter,
            params,
            params.seed,
            Path(params.checkpoints),
            outputs["log"],
        )
        segmenter.save(outputs["segmenter"])
        results = {}
        for name, cohort in cohorts.items():
            judged = read_examples(cohort, "test", segmenter.size, Path(scratch) / f"test-{name}", has_vessels)
            results[name] = {
                "eyes": len(judged),
                "figures": summary(of_eyes(segmenter, judged), judged.patients, params.resamples, params.seed),
            }
    write_results(outputs["quality"] / "results.json", results)
    return {"train_eyes": eyes, **flat({name: found["figures"] for name, found in results.items()})}
