"""Near duplicates: a perceptual hash of the picture, and the search for its neighbours."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np

HASH_BITS = 1024
_WORDS = HASH_BITS // 64
_CELLS = 16
# The hash is taken at this side; blur in pixels of it that separates vessels and lesions from the light's fall-off.
_SIDE, _BLUR, _WINDOW = 64, 6.0, 31
# Neighbouring cells agree by nature. The bits are dealt out over the hash in this (fixed) order, so that a band of
# neighbouring bits looks at all of the picture and fewer strangers share it.
_ORDER = np.random.default_rng(20031).permutation(HASH_BITS)

# Up to so many hashes all pairs are compared, which is then the faster way (ODIR-5K and mixtures of its hashes, 72
# bits); and so many at a time against those that come after them.
_FEW, _BLOCK = 50_000, 512


def perceptual_hash(image: np.ndarray) -> int:
    """Gradient hash of 1,024 bits: where the green channel rises to the right and downwards.

    After dHash (Krawetz 2013), on 16 × 16 cells and twice: on the picture, and on the picture less its blur. Eyes are
    alike in the first (bright disc, dark margin); pictures without vessels are alike in the second, by noise.

    Args:
        image: uint8, height × width × 3, cropped to the field of view.

    Returns:
        0 … 2**1024 - 1. Unlike pictures differ in about 300-500 bits; see docs/cohorts.md for the distances measured.
    """
    level = cv2.resize(cv2.extractChannel(image, 1), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    bits = np.empty((4, _CELLS, _CELLS), bool)
    for part, plane in enumerate((level, level - cv2.GaussianBlur(level, (_WINDOW, _WINDOW), _BLUR))):
        across = cv2.resize(plane, (_CELLS + 1, _CELLS), interpolation=cv2.INTER_AREA)
        down = cv2.resize(plane, (_CELLS, _CELLS + 1), interpolation=cv2.INTER_AREA)
        bits[2 * part] = across[:, 1:] > across[:, :-1]
        bits[2 * part + 1] = down[1:] > down[:-1]
    return int.from_bytes(np.packbits(bits.ravel()[_ORDER], bitorder="little").tobytes(), "little")


def _words(hashes: Sequence[int]) -> np.ndarray:
    data = b"".join(value.to_bytes(HASH_BITS // 8, "little") for value in hashes)
    return np.frombuffer(data, "<u8").reshape(-1, _WORDS)


def near_pairs(hashes: Sequence[int], distance: int) -> list[tuple[int, int]]:
    """All pairs of hashes that differ in at most ``distance`` bits: by comparing all pairs, or of many hashes by bands.

    Bands: the bits are cut into bands, half as many as the distance allows differences (and one): two hashes within the
    distance differ in at most one bit of at least one band (pigeonhole). So for each band, and each bit of it left out,
    only hashes that agree in the rest are compared. Memory grows with the number of hashes alone.

    Args:
        hashes: of :func:`perceptual_hash`.
        distance: bits, 0 … 1023.

    Returns:
        Index pairs (i, j), i < j, sorted.
    """
    if len(hashes) < 2:
        return []
    words = _words(hashes)
    return sorted(set(_pairs_of_all(words, distance) if len(hashes) <= _FEW else _pairs_of_bands(words, distance)))


def _pairs_of_all(words: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    matcher, bits = cv2.BFMatcher(cv2.NORM_HAMMING), words.view(np.uint8)
    for start in range(0, len(bits), _BLOCK):
        for matches in matcher.radiusMatch(bits[start : start + _BLOCK], bits[start:], distance + 0.5):
            for match in matches:
                if match.queryIdx < match.trainIdx:
                    yield start + match.queryIdx, start + match.trainIdx


def _pairs_of_bands(words: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    edges = np.linspace(0, HASH_BITS, distance // 2 + 2).round().astype(int)
    for low, high in pairwise(edges):
        for i, j in _pairs_of_band(words, int(low), min(int(high), int(low) + 64), distance):
            yield int(i), int(j)


def _pairs_of_band(words: np.ndarray, low: int, high: int, distance: int) -> np.ndarray:
    word, shift = divmod(low, 64)
    band = words[:, word] >> np.uint64(shift)
    if shift and word + 1 < _WORDS:
        band = band | (words[:, word + 1] << np.uint64(64 - shift))
    if high - low < 64:
        band = band & np.uint64((1 << (high - low)) - 1)
    keys = (band & ~np.uint64(1 << bit) for bit in range(high - low))
    return np.concatenate([_pairs_of_key(words, key, distance) for key in keys])


def _pairs_of_key(words: np.ndarray, key: np.ndarray, distance: int) -> np.ndarray:
    order = np.argsort(key)
    key = key[order]
    # Positions whose neighbour `step` places on has the same key: all pairs of a run, one step at a time.
    places, step = np.arange(len(order)), 0
    pairs = [np.empty((0, 2), order.dtype)]
    while True:
        step += 1
        places = places[places + step < len(order)]
        places = places[key[places] == key[places + step]]
        if not len(places):
            return np.concatenate(pairs)
        one, other = order[places], order[places + step]
        # A quarter of the bits refutes nearly all of those that share a key by chance.
        near = np.bitwise_count(words[one, :4] ^ words[other, :4]).sum(1, dtype=np.int64) <= distance
        one, other = one[near], other[near]
        near = np.bitwise_count(words[one] ^ words[other]).sum(1, dtype=np.int64) <= distance
        pairs.append(np.sort(np.stack([one[near], other[near]], axis=1), axis=1))


class Neighbours:
    """Hashes that grow one by one, and the nearest of them: for filters that accept pictures as they come.

    A scan of all hashes (128 bytes each), so meant for up to some 100,000; :func:`near_pairs` is for whole cohorts.

    Args:
        hashes: hashes to begin with.
    """

    def __init__(self, hashes: Sequence[int] = ()):
        self._words = np.empty((max(64, 2 * len(hashes)), _WORDS), np.uint64)
        self._words[: len(hashes)] = _words(hashes)
        self._count = len(hashes)

    def __len__(self) -> int:
        return self._count

    def add(self, value: int) -> int:
        """Adds a hash and returns its index."""
        if self._count == len(self._words):
            self._words = np.concatenate([self._words, np.empty_like(self._words)])
        self._words[self._count] = _words([value])
        self._count += 1
        return self._count - 1

    def distances(self, value: int) -> np.ndarray:
        """Bits in which ``value`` differs from each hash, in the order in which they were added."""
        return np.bitwise_count(self._words[: self._count] ^ _words([value])).sum(1, dtype=np.int64)

    def near(self, value: int, distance: int) -> list[int]:
        """Indices of the hashes within ``distance`` bits."""
        return np.flatnonzero(self.distances(value) <= distance).tolist()
