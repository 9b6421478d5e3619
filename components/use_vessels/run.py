"""Do drawn eyes help to segment vessels? The same segmenter, as many steps, other training sets."""

import shutil
import tempfile
from pathlib import Path

from components.step import Metrics, Paths
from components.use_vessels.step import UseVesselsParams
from retinalogos.cohort.external import read_external
from retinalogos.cohort.shards import Cohort
from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.examples import has_vessels, read_examples
from retinalogos.generators.vessel_map.judgement import use
from retinalogos.metrics.results import flat, write_results


def run(params: UseVesselsParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See the module."""
    cohort, size = Cohort(inputs["cohort"]), params.segmenter.size
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        train, validation, test = (
            read_examples(cohort, split, size, where / split, has_vessels) for split in ("train", "validation", "test")
        )
        synthetic = read_examples(Cohort(inputs["synthetic"]), None, size, where / "synthetic", has_vessels)
        if not len(synthetic):
            # That a generator draws no vessel is a result, not an error.
            print(
                f"use_vessels: no eye of {inputs['synthetic']} has a vessel: only real eyes are learned from",
                flush=True,
            )
        judged = {"test": test}
        for entry in params.external:
            if entry.title in judged:
                raise UsageError(f"use_vessels.external: two sets are called {entry.title}: give each a `name`")
            fractions = {"train": 0.0, "validation": 0.0, "test": 1.0}
            other = read_external(entry, size, fractions, params.seed, where / "sets" / entry.title)
            judged[entry.title] = read_examples(other, None, size, where / f"read-{entry.title}", has_vessels)
        if missing := [name for name, eyes in judged.items() if not len(eyes)]:
            raise UsageError(f"use_vessels: no eye of {missing[0]} has a vessel map to judge by")
        kept = Path(params.checkpoints) / "use_vessels"
        results = use(
            train,
            synthetic,
            validation,
            judged,
            params.ratios,
            params.segmenter,
            params,
            [params.seed + number for number in range(params.runs)],
            params.resamples,
            kept,
            where / "logs",
        )
    shutil.rmtree(kept, ignore_errors=True)
    write_results(outputs["use"] / "results.json", results)
    return flat({name: found for name, found in results.items() if name != "eyes"})
