"""Contact sheet of phantom eyes: ``python -m retinalogos.phantom --out docs/images/phantom.png``."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from retinalogos.phantom import draw, sample_records
from retinalogos.phantom.records import PhantomRecord


def sheet_records(columns: int, seed: int) -> list[list[PhantomRecord]]:
    """Six rows of ``columns`` eyes: ICDR grades 0 to 4 without glaucoma, and glaucoma without retinopathy."""
    rows: list[list[PhantomRecord]] = []
    for row in range(6):
        grades = [0.0] * 5
        grades[row % 5] = 1.0
        status = (0, 0, 1) if row == 5 else (1, 0, 0)
        wanted = (row % 5, "glaucoma" if row == 5 else "no")
        pool = sample_records(8 * columns, seed + row, grades, status)
        # One eye a patient, left and right in turn.
        one = [next(r for r in pool if r.patient_id == p) for p in dict.fromkeys(r.patient_id for r in pool)]
        fellow = {r.patient_id: r for r in pool if r.eye == "right"}
        eyes = [fellow.get(r.patient_id, r) if i % 2 else r for i, r in enumerate(one)]
        rows.append([r for r in eyes if (r.dr_grade, r.glaucoma) == wanted][:columns])
    return rows


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(prog="python -m retinalogos.phantom", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--size", type=int, default=124, help="pixels of one eye")
    parser.add_argument("--columns", type=int, default=5, help="eyes in a row")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = [np.hstack([eye.image for eye in draw(row, args.size)]) for row in sheet_records(args.columns, args.seed)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
