"""How far reviewers of captions agree, and what they found, from the files that they downloaded."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinalogos.captions.review import FORMAT, ITEMS, VERDICTS
from retinalogos.errors import UsageError
from retinalogos.metrics.agreement import counts, krippendorff
from retinalogos.metrics.intervals import Estimate, bootstrap

ALL = "all"  # the items together
_CODES = {verdict: code for code, verdict in enumerate(VERDICTS)}
_RIGHT, _WRONG = _CODES["right"], _CODES["wrong"]


@dataclass(frozen=True)
class Answers:
    """The answers of one reviewer.

    Attributes:
        set: name of the sample that was reviewed.
        reviewer: code of the reviewer.
        verdicts: key of a caption → item → a key of VERDICTS; items may be missing.
    """

    set: str
    reviewer: str
    verdicts: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class ItemAgreement:
    """Agreement on an item of the checklist.

    Attributes:
        alpha: Krippendorff's; its n is the number of captions judged by two reviewers or more.
        same: share of those captions on which all reviewers gave the same verdict.
        right: share of "right" among the verdicts "right" and "wrong".
    """

    alpha: Estimate
    same: Estimate
    right: Estimate


def read_answers(paths: Sequence[Path]) -> list[Answers]:
    """Files of several reviewers of one sample.

    Raises:
        UsageError: fewer than two files, one is not of a review, two are of different samples or of one reviewer.
    """
    if len(paths) < 2:
        raise UsageError("agreement takes the files of two reviewers or more")
    found: dict[str, Answers] = {}
    for path in paths:
        one = _read(path)
        if one.reviewer in found:
            raise UsageError(f"{path}: reviewer {one.reviewer!r} has another file already; each has one")
        first = next(iter(found.values()), one)
        if one.set != first.set:
            raise UsageError(f"{path} answers sample {one.set}, {paths[0]} sample {first.set}: review the same page")
        found[one.reviewer] = one
    return list(found.values())


def _read(path: Path) -> Answers:
    try:
        file = json.loads(path.read_text(encoding="utf-8"))
        if file["format"] != FORMAT:
            raise ValueError(f"format {file['format']!r}, and not {FORMAT}")
        verdicts = {
            str(key): {item: given[item] for item in ITEMS if item in given} for key, given in file["answers"].items()
        }
        unknown = {verdict for given in verdicts.values() for verdict in given.values()} - VERDICTS.keys()
        if unknown:
            raise ValueError(f"verdict {min(unknown)!r}; known are {', '.join(VERDICTS)}")
        return Answers(str(file["set"]), str(file["reviewer"]), verdicts)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; give files that the review page downloaded") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} holds no answers of a review ({type(error).__name__}: {error})") from None


def ratings(answers: Sequence[Answers]) -> np.ndarray:
    """Verdicts as integers, captions × items × reviewers; -1 where a reviewer gave none.

    Captions are those with a verdict of any reviewer, in the order of their keys; items are in the order of ITEMS.
    """
    keys = sorted({key for one in answers for key, given in one.verdicts.items() if given})
    cells = [
        [
            [_CODES[one.verdicts.get(key, {})[item]] if item in one.verdicts.get(key, {}) else -1 for one in answers]
            for item in ITEMS
        ]
        for key in keys
    ]
    return np.array(cells, int).reshape(len(keys), len(ITEMS), len(answers))


def agreement(answers: Sequence[Answers], resamples: int, seed: int) -> dict[str, ItemAgreement]:
    """Agreement on each item, and on all together (ALL); intervals by bootstrap over captions.

    "Not judgeable" is a verdict as the others: who cannot judge disagrees with who can.

    Args:
        answers: of :func:`read_answers`.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    given = counts(np.moveaxis(ratings(answers), -1, 0), len(VERDICTS))  # captions × items × verdicts
    parts = {**{item: given[:, [index]] for index, item in enumerate(ITEMS)}, ALL: given}
    found = {}
    for name, part in parts.items():
        judged = part[(part.sum(-1) > 1).any(1)]
        answered = part[(part[..., [_RIGHT, _WRONG]].sum(-1) > 0).any(1)]
        found[name] = ItemAgreement(
            bootstrap(krippendorff, judged, resamples=resamples, seed=seed),
            bootstrap(_same, judged, resamples=resamples, seed=seed),
            bootstrap(_right, answered, resamples=resamples, seed=seed),
        )
    return found


def _same(given: np.ndarray) -> float:
    each = given.sum(-1)
    return float((given.max(-1) == each)[each > 1].mean())


def _right(given: np.ndarray) -> float:
    of_verdict = given.reshape(-1, given.shape[-1]).sum(0)
    return float(of_verdict[_RIGHT] / (of_verdict[_RIGHT] + of_verdict[_WRONG]))


def pairs(answers: Sequence[Answers]) -> dict[tuple[str, str], dict[str, float]]:
    """Cohen's kappa of each pair of reviewers, by item and for all; nan where chance agrees always."""
    from sklearn.metrics import cohen_kappa_score  # takes a second to import

    cells = ratings(answers)
    found = {}
    for one, other in itertools.combinations(range(len(answers)), 2):
        kappas = {}
        for name, part in {**{item: cells[:, [i]] for i, item in enumerate(ITEMS)}, ALL: cells}.items():
            first, second = part[..., one].ravel(), part[..., other].ravel()
            both = (first >= 0) & (second >= 0)
            several = len({*first[both].tolist(), *second[both].tolist()}) > 1
            kappas[name] = float(cohen_kappa_score(first[both], second[both])) if several else math.nan
        found[answers[one].reviewer, answers[other].reviewer] = kappas
    return found


def lines(answers: Sequence[Answers], found: Mapping[str, ItemAgreement]) -> list[str]:
    """The agreement as it is printed."""
    captions = len(ratings(answers))
    told = [f"{len(answers)} reviewers ({', '.join(one.reviewer for one in answers)}), {captions} captions"]
    told += ["", f"{'':12} {'captions':>8}  {'all agree':22} {'alpha':22} right, of right and wrong"]
    for name, one in found.items():
        title = ITEMS.get(name, "All items")
        told.append(
            f"{title:12} {one.alpha.n:8}  {_interval(one.same):22} {_interval(one.alpha):22} {_interval(one.right)}"
        )
    told += ["", "In brackets 95 % intervals by bootstrap over captions. Cohen's kappa of pairs:"]
    for pair, kappas in pairs(answers).items():
        told.append(
            f"{' and '.join(pair)}: " + ", ".join(f"{ITEMS.get(k, 'All')} {_number(v)}" for k, v in kappas.items())
        )
    return told


def as_json(answers: Sequence[Answers], found: Mapping[str, ItemAgreement]) -> dict[str, Any]:
    """The agreement as JSON has it; what is not defined is null."""
    return {
        "set": answers[0].set,
        "reviewers": [one.reviewer for one in answers],
        "captions": len(ratings(answers)),
        "items": {
            name: {figure: getattr(one, figure).as_json() for figure in ("alpha", "same", "right")}
            for name, one in found.items()
        },
        "cohen_kappa": [
            {"reviewers": list(pair), **{name: None if math.isnan(v) else v for name, v in kappas.items()}}
            for pair, kappas in pairs(answers).items()
        ],
    }


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _interval(one: Estimate) -> str:
    if one.low is None or one.high is None:
        return _number(one.value)
    return f"{_number(one.value)} [{_number(one.low)}, {_number(one.high)}]"
