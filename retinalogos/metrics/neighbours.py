"""Nearest rows of features, a band of distances at a time."""

from collections.abc import Iterator

import numpy as np

from retinalogos.metrics.bands import Banded, bands


def pairwise_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances, n × m, of rows of a (n × d) and b (m × d), in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(np.clip(squared, 0, None))


def nearest_distances(
    queries: Banded, references: Banded, k: int, exclude_self: bool = False
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Of each band of queries their places, the k smallest distances (rows × k, ascending) and the nearest reference.

    Args:
        queries: n × d.
        references: m × d.
        k: at most m, of which the query itself is none with ``exclude_self``.
        exclude_self: queries and references are the same rows, and a row is not its own neighbour.
    """
    for places, query in bands(queries):
        best, nearest = np.full((len(query), k), np.inf), np.zeros(len(query), int)
        for where, reference in bands(references):
            distance = pairwise_distance(query, reference)
            if exclude_self and where == places:
                np.fill_diagonal(distance, np.inf)
            nearest = np.where(distance.min(1) < best.min(1), distance.argmin(1) + where.start, nearest)
            best = np.partition(np.concatenate([best, distance], axis=1), k - 1, axis=1)[:, :k]
        yield places, np.sort(best, axis=1), nearest
