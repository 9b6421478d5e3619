"""Speed of drawing phantom eyes: images per second on one core, picture and all maps.

Run: OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/phantom.py
"""

import argparse
import time

import cv2

from retinalogos.phantom import draw, sample_records


def main() -> None:
    """Prints one line per size: images per second, best of the rounds (the machine may be shared)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eyes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    args = parser.parse_args()
    cv2.setNumThreads(1)
    start = time.process_time()
    records = sample_records(args.eyes, seed=0)
    rows = [record.cohort_row() for record in records]
    print(f"records and rows: {len(rows) / (time.process_time() - start):.0f} eyes/s")
    for size in args.sizes:
        seconds = []
        for _ in range(args.rounds):
            start = time.process_time()
            draw(records, size)
            seconds.append(time.process_time() - start)
        print(f"{size} px: {args.eyes / min(seconds):.1f} images/s of processor time")


if __name__ == "__main__":
    main()
