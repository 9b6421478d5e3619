"""How long and how varied a set of captions is."""

import re
from collections import Counter
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

WORD = re.compile(r"[a-z]+(?:-[a-z]+)*")


class CaptionStatistics:
    """Gathers over a stream of captions; memory is eight bytes for each distinct text."""

    def __init__(self) -> None:
        self._captions: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._vocabulary: set[str] = set()
        self._texts = np.empty(0, np.uint64)  # hashes of the distinct texts
        self._tokens, self._longest = 0, 0

    def add(self, table: pa.Table) -> None:
        """Counts captions: the columns granularity, text and tokens of :data:`retinalogos.captions.table.SCHEMA`."""
        if not table.num_rows:
            return
        lower = pc.utf8_lower(table["text"])
        words = pc.count_substring_regex(lower, WORD.pattern)
        granularities = table["granularity"]
        for granularity in pc.unique(granularities).to_pylist():
            chosen = pc.equal(granularities, granularity)
            self._captions[granularity] += pc.sum(chosen).as_py()
            self._words[granularity] += pc.sum(pc.filter(words, chosen)).as_py()
        # Pieces between spaces recur, so the pattern is tried on few.
        for piece in pc.unique(pc.list_flatten(pc.utf8_split_whitespace(lower))).to_pylist():
            self._vocabulary.update(WORD.findall(piece))
        digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in table["text"].to_pylist())
        self._texts = np.union1d(self._texts, np.frombuffer(digests, np.uint64))
        self._tokens += pc.sum(table["tokens"]).as_py()
        self._longest = max(self._longest, pc.max(table["tokens"]).as_py())

    def metrics(self) -> dict[str, float | int]:
        """captions, mean_tokens, max_tokens, vocabulary (distinct words), distinct_share (distinct texts of all),
        and of each granularity ``captions_*``, ``mean_words_*`` and ``words_share_*`` (its share of all words).
        """
        captions, words = self._captions.total(), self._words.total()
        found: dict[str, float | int] = {
            "captions": captions,
            "mean_tokens": self._tokens / max(captions, 1),
            "max_tokens": self._longest,
            "vocabulary": len(self._vocabulary),
            "distinct_share": len(self._texts) / max(captions, 1),
        }
        for granularity in sorted(self._captions):
            count = self._captions[granularity]
            found[f"captions_{granularity}"] = count
            found[f"mean_words_{granularity}"] = self._words[granularity] / count
            found[f"words_share_{granularity}"] = self._words[granularity] / max(words, 1)
        return found
