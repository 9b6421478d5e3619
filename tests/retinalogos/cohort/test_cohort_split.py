from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.cohort.split import split_rows

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}

rows = st.lists(
    st.tuples(st.integers(0, 60), st.sets(st.sampled_from("abcdef"), max_size=3)),
    min_size=1,
    max_size=200,
)


@settings(max_examples=80)
@given(rows, st.lists(st.tuples(st.integers(0, 199), st.integers(0, 199)), max_size=12), st.integers(0, 5))
def test_patients_and_duplicates_stay_on_one_side(rows, duplicates, seed) -> None:
    patients = [f"p{number}" for number, _ in rows]
    classes = [tuple(sorted(names)) for _, names in rows]
    pairs = [(i % len(rows), j % len(rows)) for i, j in duplicates]
    splits = split_rows(patients, classes, pairs, FRACTIONS, seed)
    assert set(splits) <= FRACTIONS.keys()
    sides: dict[str, set[str]] = {}
    for patient, split in zip(patients, splits, strict=True):
        sides.setdefault(patient, set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert all(splits[i] == splits[j] for i, j in pairs)
    assert splits == split_rows(patients, classes, pairs, FRACTIONS, seed)


@settings(max_examples=30)
@given(st.integers(100, 600), st.integers(0, 1000), st.floats(0.1, 0.8))
def test_fractions_are_kept_within_a_patient(patients, seed, train) -> None:
    rest = (1 - train) / 2
    fractions = {"train": train, "validation": rest, "test": rest}
    names = [f"p{number}" for number in range(patients) for _ in range(2)]
    counts = Counter(split_rows(names, [()] * len(names), [], fractions, seed))
    for split, fraction in fractions.items():
        assert abs(counts[split] - fraction * len(names)) <= 4


def test_every_class_is_spread_in_proportion() -> None:
    # 5 rare, 50 less rare, 445 common patients of two eyes each.
    kinds = ["rare"] * 10 + ["less"] * 100 + ["common"] * 890
    patients = [f"p{row // 2}" for row in range(1000)]
    splits = split_rows(patients, [(kind,) for kind in kinds], [], FRACTIONS, seed=1)
    counts = Counter(zip(kinds, splits, strict=True))
    assert abs(counts["less", "test"] - 10) <= 2
    assert abs(counts["less", "validation"] - 10) <= 2
    assert abs(counts["common", "test"] - 89) <= 2
    assert counts["rare", "train"] in (6, 8, 10)


def test_another_seed_is_another_split() -> None:
    patients = [f"p{row}" for row in range(200)]
    one, two = (split_rows(patients, [()] * 200, [], FRACTIONS, seed) for seed in (0, 1))
    assert one != two


def test_a_chain_of_shared_pictures_is_one_unit() -> None:
    patients = [f"p{row}" for row in range(100)]
    chain = [(row, row + 1) for row in range(40)]
    splits = split_rows(patients, [()] * 100, chain, FRACTIONS, seed=0)
    assert len(set(splits[:41])) == 1
