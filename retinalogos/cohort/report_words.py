"""Words that reports of eyes are written in: what is capitalised and not among them is taken for a name.

They stand in ``report_words.txt``, in lower case; plurals in -s are found by their singular.
"""

from importlib.resources import files


def _lists() -> dict[str, frozenset[str]]:
    """Heading → words."""
    lists: dict[str, set[str]] = {}
    for line in files(__package__).joinpath("report_words.txt").read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].strip()
        if words.startswith("["):
            current = lists.setdefault(words.strip("[]"), set())
        elif words:
            current.update(words.split())
    return {heading: frozenset(words) for heading, words in lists.items()}


_LISTS = _lists()
WORDS = _LISTS["words"] | _LISTS["clinical"]
# People, places and makers that signs, diseases, tests, drugs and devices are called after: no name by themselves.
EPONYMS = _LISTS["eponyms"]
# Words that are names too: beside a name, after a title, or after a cue like "by".
ALSO_NAMES = _LISTS["also names"]
# Given names among them: followed by another of them, they are a name.
GIVEN = _LISTS["given"]
ABBREVIATIONS = _LISTS["abbreviations"]
TITLES = _LISTS["titles"]
# After these a word that may be a name is one.
CUES = _LISTS["cues"]
PARTICLES = _LISTS["particles"]
# What may be called after the word before it: "Weiss ring", "white spots".
CALLED_AFTER = _LISTS["called after"]
# After these an unknown word is who it is called after, and not whose it is: "Cohen syndrome", and not "Cohen eye".
EPONYMIC = _LISTS["eponymic"]
