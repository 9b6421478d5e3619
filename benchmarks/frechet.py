"""Fréchet distance by symmetric eigenvalues against the usual ``scipy.linalg.sqrtm`` of the product.

python -m benchmarks.frechet                                  # 4,000 × 768, a few seconds
python -m benchmarks.frechet --images 10000 --features 2048   # the size of an Inception FID, minutes

Seconds are those of the processor, all threads together: what else runs on the machine matters little.
"""

import argparse
import time

import numpy as np
from scipy.linalg import sqrtm

from retinalogos.metrics.realism import Moments, frechet_from_moments


def by_matrix_root(a: Moments, b: Moments) -> float:
    """The Fréchet distance as it is usually computed: trace of the matrix root of Σ_a Σ_b."""
    root = sqrtm(a.covariance @ b.covariance)
    shift = a.mean - b.mean
    return float(shift @ shift + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root).real)


def main() -> None:
    """Prints both values, both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(args.features, args.features)) / np.sqrt(args.features)
    a = Moments.of(rng.normal(size=(args.images, args.features)) @ mixing)
    b = Moments.of(rng.normal(0.1, 1.1, size=(args.images, args.features)) @ mixing)
    times, values = {}, {}
    for name, function in (("symmetric eigenvalues", frechet_from_moments), ("scipy.linalg.sqrtm", by_matrix_root)):
        best = np.inf
        for _ in range(args.repeats):
            start = time.process_time()
            values[name] = function(a, b)
            best = min(best, time.process_time() - start)
        times[name] = best
        print(f"{name:22} {values[name]:.10f}   {best:.3f} s")
    ours, usual = times.values()
    print(
        f"{args.images:,} x {args.features:,}: {usual / ours:.1f} times faster, "
        f"difference {abs(np.diff(list(values.values()))[0]):.1e}"
    )


if __name__ == "__main__":
    main()
