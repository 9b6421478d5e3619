"""Splits a cohort by patient: stratified, seeded, duplicates on one side."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from retinalogos.cohort.schema import SPLITS
from retinalogos.errors import UsageError


class Groups:
    """Disjoint sets of indices (union-find): who must stay on one side."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def find(self, index: int) -> int:
        """The first member of the set that ``index`` is in."""
        root = index
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[index] != root:
            self._parent[index], index = root, self._parent[index]
        return root

    def join(self, one: int, other: int) -> None:
        """Makes two sets one."""
        one, other = self.find(one), self.find(other)
        self._parent[max(one, other)] = min(one, other)


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Raises UsageError where these are not the shares (0-1) of all splits, of sum 1."""
    if set(fractions) != set(SPLITS) or abs(sum(fractions.values()) - 1) > 1e-6:
        said = ", ".join(f"{split} {share:g}" for split, share in fractions.items())
        raise UsageError(f"the shares must be of {', '.join(SPLITS)} and sum to 1, not {said}")


def split_rows(
    patients: Sequence[str],
    classes: Sequence[Sequence[str]],
    duplicates: Sequence[tuple[int, int]],
    fractions: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Assigns every row to a split.

    Rows of a patient stay together, and so do patients who share a picture. Such a unit counts for its rarest class
    (of all units); units are put in order by class, within a class by a hash of seed and patient, and each goes to the
    split that is furthest behind its share of the images so far. So every class is spread in the proportions asked
    for, to about one unit per class.

    Args:
        patients: patient of each row.
        classes: classes of each row (grade, glaucoma, findings), any number.
        duplicates: pairs of rows that show the same picture.
        fractions: split → share, summing to 1.
        seed: another seed, another split.

    Returns:
        The split of each row.
    """
    groups = Groups(len(patients))
    first: dict[str, int] = {}
    for row, patient in enumerate(patients):
        groups.join(first.setdefault(patient, row), row)
    for one, other in duplicates:
        groups.join(one, other)

    sizes: Counter[int] = Counter()
    held: dict[int, set[str]] = {}
    for row in range(len(patients)):
        unit = groups.find(row)
        sizes[unit] += 1
        held.setdefault(unit, set()).update(classes[row])
    frequency = Counter(name for names in held.values() for name in names)

    def order(unit: int) -> tuple[int, str, str]:
        rarest = min(held[unit], key=lambda name: (frequency[name], name), default="")
        ticket = hashlib.sha256(f"{seed}:{patients[unit]}".encode()).hexdigest()
        return frequency.get(rarest, len(patients)), rarest, ticket

    split_of: dict[int, str] = {}
    given = dict.fromkeys(fractions, 0)
    seen = 0
    for unit in sorted(held, key=order):
        seen += sizes[unit]
        split = max(fractions, key=lambda name: fractions[name] * seen - given[name])
        split_of[unit] = split
        given[split] += sizes[unit]
    return [split_of[groups.find(row)] for row in range(len(patients))]
