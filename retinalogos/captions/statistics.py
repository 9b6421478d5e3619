"""How long and how varied a set of captions is."""

import re
from collections import defaultdict
from hashlib import blake2b

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*", re.I)


class CaptionStatistics:
    """Gathers over a stream of captions; memory is eight bytes and some for each distinct text."""

    def __init__(self) -> None:
        self._captions: dict[str, int] = defaultdict(int)
        self._words: dict[str, int] = defaultdict(int)
        self._vocabulary: set[str] = set()
        self._texts: set[bytes] = set()
        self._tokens, self._longest = 0, 0

    def add(self, granularity: str, text: str, tokens: int) -> None:
        """Counts one caption."""
        words = [word.lower() for word in _WORD.findall(text)]
        self._captions[granularity] += 1
        self._words[granularity] += len(words)
        self._vocabulary.update(words)
        self._texts.add(blake2b(text.encode(), digest_size=8).digest())
        self._tokens += tokens
        self._longest = max(self._longest, tokens)

    def metrics(self) -> dict[str, float | int]:
        """captions, mean_tokens, max_tokens, vocabulary (distinct words), distinct_share (distinct texts of all),
        and of each granularity ``captions_*``, ``mean_words_*`` and ``words_share_*`` (its share of all words).
        """
        captions, words = sum(self._captions.values()), sum(self._words.values())
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
