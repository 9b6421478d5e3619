"""Reads or draws hyperspectral cubes into a cohort."""

import os
from itertools import islice
from pathlib import Path

from components.ingest_cubes.step import IngestCubesParams
from components.step import Metrics, Paths
from retinalogos.cohort.deidentify import pseudonym_key
from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.readers import cubes, phantom_cubes
from retinalogos.cohort.schema import SPLITS
from retinalogos.phantom.cubes import Camera


def run(params: IngestCubesParams, inputs: Paths, outputs: Paths) -> Metrics:
    """See :func:`retinalogos.cohort.ingest.ingest`."""
    if params.reader == "phantom":
        assert params.n is not None
        assert params.wavelengths is not None
        wavelengths = tuple(params.wavelengths)
        total = params.n
        records = phantom_cubes.read(
            params.n,
            params.seed,
            params.size,
            wavelengths,
            Camera(params.electrons, params.jitter),
            params.marker_share,
            params.marker_strength,
        )
    else:
        assert params.source is not None
        folder = Path(params.source)
        wavelengths = tuple(params.wavelengths) if params.wavelengths else cubes.wavelengths_of(folder)
        table = None if params.mapping is None else Path(params.mapping)
        found = list(islice(cubes.read(folder, table, params.size, wavelengths, params.most_shift), params.n))
        total, records = len(found), iter(found)
    how = Ingestion(
        size=params.size,
        jpeg_quality=params.jpeg_quality,
        fractions={split: getattr(params, split) for split in SPLITS},
        seed=params.seed,
        quarantine_share=params.quarantine_share,
        near_distance=params.near_distance,
        key=pseudonym_key(open_source=params.reader == "phantom"),
        workers=params.workers or len(os.sched_getaffinity(0)),
        wavelengths=wavelengths,
    )
    summary = ingest(records, outputs["cohort"], f"{params.reader}-hyperspectral", how, total)
    return {
        "rows": summary.rows,
        "quarantined": summary.quarantined,
        "duplicates": summary.duplicates,
        "bands": len(wavelengths),
        **{f"rows_{split}": count for split, count in summary.splits.items()},
    }
