"""Ingest against a plain Pillow chain, on the same files with the same number of processes, turn by turn.

    python benchmarks/ingest.py --data ../shared/data

The plain chain decodes, resizes with Lanczos and encodes, and writes nothing. Ingest does all that it does: header and
bounds checks, field of view, resize, quality, hashes, de-identification, duplicates, split, shards on disk. A ratio
above 1 means that ingest is faster. Files of 2,000 pixels and more are made by enlarging HRF and IDRiD pictures.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from retinalogos.cohort.ingest import Ingestion, ingest
from retinalogos.cohort.readers import Record

QUALITY = 95


def plain(file: Path, size: int) -> int:
    """Decode, Lanczos, encode as stored by ingest; returns the bytes made."""
    with Image.open(file) as image:
        small = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.tell()


def plain_chunk(files: list[Path], size: int) -> int:
    """The plain chain over some files."""
    return sum(plain(file, size) for file in files)


def run_plain(files: list[Path], size: int, processes: int) -> None:
    """The plain chain over all files in a pool."""
    chunks = [files[start : start + 16] for start in range(0, len(files), 16)]
    if processes == 1:
        for chunk in chunks:
            plain_chunk(chunk, size)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload(["PIL.Image"])
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(plain_chunk, chunks, [size] * len(chunks)))


def run_ingest(files: list[Path], size: int, processes: int) -> None:
    """All of ingest into a folder that is thrown away."""
    how = Ingestion(
        size=size,
        jpeg_quality=QUALITY,
        fractions={"train": 0.8, "validation": 0.1, "test": 0.1},
        seed=0,
        quarantine_share=0.05,
        near_distance=72,
        key=b"benchmark",
        workers=processes,
    )
    with tempfile.TemporaryDirectory() as folder:
        ingest([Record(file, "benchmark") for file in files], Path(folder), "benchmark", how)


def clock(work: Callable[[list[Path], int, int], None], files: list[Path], size: int, processes: int) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    work(files, size, processes)
    return time.perf_counter() - start


def compare(what: str, files: list[Path], size: int, processes: int, rounds: int) -> None:
    """Times both in turn, the first one changing from round to round, and prints the median of the ratios."""
    ratios, rates = [], []
    for turn in range(rounds):
        pair = [run_plain, run_ingest] if turn % 2 == 0 else [run_ingest, run_plain]
        seconds = {work: clock(work, files, size, processes) for work in pair}
        ratios.append(seconds[run_plain] / seconds[run_ingest])
        rates.append((len(files) / seconds[run_plain], len(files) / seconds[run_ingest]))
    plain_rate, ingest_rate = (statistics.median(rate) for rate in zip(*rates, strict=True))
    print(
        f"{what:28} {len(files):5} files -> {size:4} px, {processes} processes: plain {plain_rate:7.1f}/s, "
        f"ingest {ingest_rate:7.1f}/s, ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    )


def enlarge(files: list[Path], folder: Path, width: int) -> list[Path]:
    """Enlarged copies, as a camera of ``width`` pixels would have stored them."""
    made = []
    for file in files:
        with Image.open(file) as image:
            height = round(width * image.height / image.width)
            big = image.resize((width, height), Image.Resampling.BICUBIC)
        made.append(folder / f"{file.parent.parent.name}_{file.name}")
        big.save(made[-1], "JPEG", quality=92)
    return made


def main() -> None:
    """Runs the comparison on ODIR-5K and on enlarged files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with odir5k, hrf and idrid_seg")
    parser.add_argument("--files", type=int, default=5000, help="ODIR-5K files at most")
    parser.add_argument("--width", type=int, default=3504, help="width of the enlarged files; 3504 is HRF's own")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    small = sorted((arguments.data / "odir5k/images").glob("*.jpg"))[: arguments.files]
    sources = [
        file for name in ("hrf", "idrid_seg") for file in sorted((arguments.data / name / "images").glob("*.jpg"))
    ]
    if not small or not sources:
        sys.exit(f"{arguments.data} lacks odir5k/images, hrf/images or idrid_seg/images")
    with tempfile.TemporaryDirectory() as folder:
        big = enlarge(sources, Path(folder), arguments.width)
        for size in arguments.sizes:
            compare("ODIR-5K, 256 px", small, size, arguments.processes, arguments.rounds)
            compare(f"HRF and IDRiD, {arguments.width} px", big, size, arguments.processes, arguments.rounds)


if __name__ == "__main__":
    main()
