"""Speed and memory of the template engine, from a cohort's shards to a captions folder.

    python -m benchmarks.captions [--records 40000] [--full] [--budget 64]

Records are those of the phantom, drawn anew up to --distinct and then repeated under new image ids; they carry no
pictures, which the template engine does not read. Each has one coarse and one fine caption. Shards are captioned in one
process, whose processor time is counted, with the loading of the tokenizer and the merging of the parts; captions/s =
processors / (processor seconds a caption), as shards are captioned side by side (caption.jobs).
"""

import argparse
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from retinalogos.captions.engine import CaptionEngine, TemplateEngine
from retinalogos.captions.shards import Captioning, caption_shards, merge
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.phantom.records import sample_records

FULL = 1_400_000  # records of RetinaLogos-1400k
WORDINGS = {"coarse": 1, "fine": 1}


def write_cohort(folder: Path, records: int, distinct: int, shards: int) -> Path:
    """A cohort of phantom records without pictures, in about so many shards."""
    drawn = [record.cohort_row() for record in sample_records(min(records, distinct), seed=0)]
    rows = [{**row, "split": "train", "source": "phantom", "quality": (i % 50) / 50} for i, row in enumerate(drawn)]
    fixed = {"width": 128, "height": 128, "sha256": "", "image": {"bytes": b"", "path": ""}}
    size = sum(len(row["truth"]) for row in rows) / len(rows)
    with CohortWriter(folder, "benchmark", shard_bytes=int(size * records / shards)) as writer:
        for number in range(records):
            writer.add({**rows[number % len(rows)], **fixed, "image_id": f"{number:016x}"})
    return folder


def engine(budget: int) -> CaptionEngine:
    """The template engine."""
    return TemplateEngine(TokenBudget("minilm", budget))


def main(arguments: list[str] | None = None) -> None:
    """Prints processor time a caption, the rate that it gives, and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--full", action="store_true", help=f"{FULL} records")
    parser.add_argument("--distinct", type=int, default=10_000, help="records drawn; the others repeat them")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--budget", type=int, default=64, help="tokens of a caption")
    options = parser.parse_args(arguments)
    records = FULL if options.full else options.records
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cohort"
        # In a process of its own: its memory is not that of captioning.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            apart.submit(write_cohort, folder, records, options.distinct, options.shards).result()
        cohort = Cohort(folder)
        job = Captioning(folder, partial(engine, options.budget), WORDINGS, 0, options.budget, "minilm", of_model=False)
        start = time.process_time()
        parts = caption_shards(job, Path(scratch) / "work", range(len(cohort.shards)), jobs=1)
        metrics = merge(parts, Path(scratch) / "captions", options.budget, "minilm").metrics()
        seconds = time.process_time() - start
    captions = int(metrics["captions"])
    cores = len(os.sched_getaffinity(0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts kibibytes
    print(f"{captions} captions of {records} records in {len(cohort.shards)} shards")
    print(f"{1e6 * seconds / captions:.1f} microseconds of processor time a caption")
    print(f"{cores * captions / seconds:.0f} captions/s on {cores} processors")
    print(f"peak memory {peak:.0f} MiB; distinct texts {metrics['distinct_share']:.2f}")


if __name__ == "__main__":
    main()
