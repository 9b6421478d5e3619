"""Near duplicates: a perceptual hash of the picture, and a lookup of its neighbours."""

from collections import defaultdict

import cv2
import numpy as np

HASH_BITS = 256
_SIDE = 16


def perceptual_hash(image: np.ndarray) -> int:
    """Gradient hash: for 16 × 16 cells, whether the grey level rises to the right (256 bits).

    Args:
        image: uint8, height × width × 3, cropped to the field of view.
    """
    green = image[..., 1]
    cells = cv2.resize(green, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


class Neighbours:
    """Hashes seen so far; finds those within ``distance`` bits without comparing all pairs.

    The bits are cut into ``distance`` + 1 bands: two hashes that differ in at most ``distance`` bits agree in at least
    one whole band (pigeonhole), so only hashes that share a band are compared.
    """

    def __init__(self, distance: int, bits: int = HASH_BITS):
        self.distance = distance
        edges = np.linspace(0, bits, distance + 2).round().astype(int)
        self._bands = [(int(low), (1 << int(high - low)) - 1) for low, high in zip(edges[:-1], edges[1:], strict=True)]
        self._hashes: list[int] = []
        self._tables: list[dict[int, list[int]]] = [defaultdict(list) for _ in self._bands]

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, value: int) -> int:
        """Adds a hash and returns its index."""
        index = len(self._hashes)
        self._hashes.append(value)
        for (shift, mask), table in zip(self._bands, self._tables, strict=True):
            table[value >> shift & mask].append(index)
        return index

    def near(self, value: int) -> list[int]:
        """Indices of the hashes within ``distance`` bits, in the order in which they were added."""
        candidates: set[int] = set()
        for (shift, mask), table in zip(self._bands, self._tables, strict=True):
            candidates.update(table.get(value >> shift & mask, ()))
        return sorted(i for i in candidates if (self._hashes[i] ^ value).bit_count() <= self.distance)
