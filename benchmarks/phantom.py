"""Speed of drawing phantom eyes, and how exactly ``measure`` reads their attributes back.

Run: OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/phantom.py [--judge 400]
"""

import argparse
import json
import time

import cv2
import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from retinalogos.phantom import draw, measure, sample_records
from retinalogos.phantom.measure import true_loads


def judge(eyes: int, seed: int, size: int) -> None:
    """Prints the error of ``measure`` on fresh eyes of the cohort's default mix, sharp and blurred."""
    records = sample_records(eyes, seed)
    rows = [record.cohort_row() for record in records]
    truth = [json.loads(row["truth"]) for row in rows]
    grade = np.array([row["dr_grade"] for row in rows])
    loads = np.array([true_loads(t["lesion_areas"]) for t in truth])
    sharp = np.stack([eye.image for eye in draw(records, size)])
    pictures = {"as drawn": sharp}
    pictures |= {
        f"blurred by {sigma} px": np.stack([cv2.GaussianBlur(p, (0, 0), sigma) for p in sharp]) for sigma in (1.0, 1.5)
    }
    for name, images in pictures.items():
        start = time.process_time()
        found = measure(images)
        seconds = time.process_time() - start
        seen = np.array([f["disc_side"] is not None for f in found])
        side = np.mean([f["disc_side"] == t["disc_side"] for f, t in zip(found, truth, strict=True)])
        value = {key: np.array([f[key] for f in found]) for key in found[0] if key != "disc_side"}
        known = ("disc_x", "disc_y", "fovea_x", "fovea_y", "vcdr")
        target = {key: np.array([t[key] for t in truth]) for key in known}
        off = np.hypot(value["disc_x"] - target["disc_x"], value["disc_y"] - target["disc_y"])[seen]
        error = np.abs(value["vcdr"] - target["vcdr"])[seen]
        r = np.corrcoef(value["vcdr"][seen], target["vcdr"][seen])[0, 1]
        print(f"{name}, {size} px, {eyes} eyes ({1000 * seconds / eyes:.0f} ms an eye):")
        print(
            f"  disc found {seen.mean():.3f}, side right {side:.3f}, off by {np.median(off):.4f} of the side (median)"
        )
        print(f"  vcdr: mean absolute error {error.mean():.3f}, correlation {r:.3f}")
        away = np.hypot(value["fovea_x"] - target["fovea_x"], value["fovea_y"] - target["fovea_y"])[seen]
        seen_distance, distance = (
            np.hypot(of["fovea_x"] - of["disc_x"], of["fovea_y"] - of["disc_y"])[seen] for of in (value, target)
        )
        r = np.corrcoef(seen_distance, distance)[0, 1]
        print(f"  fovea off by {np.median(away):.4f} of the side (median)")
        print(f"  its distance: mean absolute error {np.abs(seen_distance - distance).mean():.4f}, correlation {r:.3f}")
        for kind, column in (("dark", 0), ("bright", 1)):
            load = value[f"{kind}_load"]
            rank = spearmanr(load[seen], loads[seen, column])[0]
            areas = []
            for low, high in ((0, 1), (0, 2), (0, 3), (0, 4), (2, 3)):
                pair = seen & np.isin(grade, (low, high))
                areas.append(f"{low} v {high} {roc_auc_score(grade[pair] == high, load[pair]):.3f}")
            print(f"  {kind} load: rank correlation {rank:.3f}; AUC of grades {', '.join(areas)}")
        glaucoma = np.array([row["glaucoma"] == "glaucoma" for row in rows])
        print(f"  glaucoma by vcdr: AUC {roc_auc_score(glaucoma[seen], value['vcdr'][seen]):.3f}")


def main() -> None:
    """Prints images per second for each size (best of the rounds: the machine may be shared), or the judge's error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eyes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--judge", type=int, default=0, metavar="EYES", help="measure this many fresh eyes instead")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.judge:
        judge(args.judge, args.seed, args.sizes[0])
        return
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
