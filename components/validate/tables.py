"""The tables that the suites look at: the rows themselves, and what only shows over all of them.

Rows come in chunks, so that a table larger than memory is validated; what crosses chunks (patients, duplicates,
classes, counts) is gathered on the way and comes last. No picture is decoded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from retinalogos.captions.description import COMPATIBLE_LESIONS, DIABETIC_LESIONS
from retinalogos.captions.reading import read_statements
from retinalogos.captions.rules import RULES, check, identifiers
from retinalogos.captions.tokens import TokenBudget
from retinalogos.cohort.findings import FINDINGS
from retinalogos.cohort.schema import ICDR_GRADES, SPLITS, TABLE_COLUMNS
from retinalogos.cohort.shards import Cohort, content_sha256
from retinalogos.errors import DataError
from retinalogos.progress import track

# Name of a table and its rows; the name is that of its suite.
Tables = Iterator[tuple[str, pd.DataFrame]]

Row = Mapping[str, Any]

# Columns that the suites look at as they are; the others are free text, identifiers or lists.
_NUMBERS = ("age", "dr_grade", "dme", "vcdr", "quality", "width", "height")
_JUDGED = ["image_id", "sha256", "source", "split", "licence", "eye", "sex", "glaucoma", *_NUMBERS]
# These lesions have hardly another cause than diabetes; haemorrhages and exudates have many.
_DIABETIC_ONLY = frozenset({"microaneurysm", "irma", "venous_beading"})
_MANY_CAUSES = frozenset({"haemorrhage", "hard_exudate", "soft_exudate"})
_NEW_VESSELS = frozenset({"neovascularisation", "preretinal_haemorrhage", "vitreous_haemorrhage"})
# Diseases in which such vessels and bleedings occur without diabetes.
_OTHER_CAUSES = frozenset(code for code in FINDINGS if code.endswith("_occlusion")) | {"wet_amd"}


def cohort_tables(cohort: Cohort, chunk_rows: int) -> Tables:
    """``cohort_rows`` (in chunks), ``cohort_patients``, ``cohort_duplicates``, ``cohort_classes``, ``cohort_whole``."""
    gathered = _Gathered()
    for chunk in track(_chunks(cohort, chunk_rows), "validate", -(-len(cohort) // chunk_rows), "chunk"):
        records = chunk.to_pylist()
        for record in records:
            gathered.add(record)
        yield "cohort_rows", _cohort_rows(chunk, records)
    yield "cohort_patients", pd.DataFrame({"splits": gathered.splits_of(gathered.patients)})
    yield "cohort_duplicates", pd.DataFrame({"splits": gathered.splits_of(gathered.groups)}, dtype="int64")
    yield "cohort_classes", gathered.classes()
    yield "cohort_whole", gathered.whole(cohort)


def _chunks(cohort: Cohort, chunk_rows: int) -> Iterator[pa.Table]:
    batches: list[pa.RecordBatch] = []
    rows = 0
    for shard in cohort.shards:
        for batch in pq.ParquetFile(shard).iter_batches(batch_size=chunk_rows, columns=list(TABLE_COLUMNS)):
            batches.append(batch)
            rows += batch.num_rows
            if rows >= chunk_rows:
                yield pa.Table.from_batches(batches)
                batches, rows = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _cohort_rows(chunk: pa.Table, records: Sequence[Row]) -> pd.DataFrame:
    """The columns that are judged as they are, and derived ones; no identifier and no free text."""
    rows = chunk.select(_JUDGED).to_pandas()
    for name in _NUMBERS:
        rows[name] = pd.to_numeric(rows[name]).astype("float64")
    rows["patient_known"] = [bool(record["patient_id"]) for record in records]
    rows["findings_in_vocabulary"] = [
        None if record["findings"] is None else set(record["findings"]) <= FINDINGS.keys() for record in records
    ]
    rows["findings_fit_grade"] = [_findings_fit(record) for record in records]
    rows["cup_fits_glaucoma"] = [_cup_fits(record["glaucoma"], record["vcdr"]) for record in records]
    rows["report_identifies"] = [
        None if record["report"] is None else bool(identifiers(record["report"])) for record in records
    ]
    rows["labelled"] = [
        any(record[name] is not None for name in ("dr_grade", "glaucoma", "findings")) for record in records
    ]
    return rows


def _findings_fit(record: Row) -> bool | None:
    """Whether the findings can stand beside the ICDR grade (Wilkinson et al., Ophthalmology 2003, 110:1677)."""
    if record["findings"] is None:
        return None
    found, grade = set(record["findings"]), record["dr_grade"]
    if record["dme"] == 0 and "macular_oedema" in found:
        return False
    if grade not in range(len(ICDR_GRADES)):
        return None
    if grade == 0:
        return not found & _DIABETIC_ONLY
    if found & _OTHER_CAUSES:
        return True
    if grade == 1:
        return not found & (DIABETIC_LESIONS - COMPATIBLE_LESIONS[1] - _MANY_CAUSES)
    return grade == 4 or not found & _NEW_VESSELS


def _cup_fits(glaucoma: str | None, vcdr: float | None) -> bool | None:
    """Whether status and cup can go together: 97.5 % of healthy discs are below 0.7 to 0.8, and damage needs a cup."""
    if glaucoma is None or vcdr is None:
        return None
    return vcdr <= 0.8 if glaucoma == "no" else vcdr >= 0.3


class _Gathered:
    """What is known only when all rows were seen."""

    def __init__(self) -> None:
        self.patients: dict[str, int] = {}  # patient → one bit for each split
        self.groups: dict[str, int] = {}
        self._ids: set[str] = set()
        self._hashes: set[str] = set()
        self._rows, self._repeated, self._unmarked, self._duplicates = 0, 0, 0, 0
        self._splits: Counter[str] = Counter()
        self._classes: Counter[tuple[str, str]] = Counter()

    def add(self, record: Row) -> None:
        """Takes note of one row."""
        split, group = record["split"], record["duplicate_group"]
        bit = 1 << (SPLITS.index(split) if split in SPLITS else len(SPLITS))
        self.patients[record["patient_id"]] = self.patients.get(record["patient_id"], 0) | bit
        if group is not None:
            self.groups[group] = self.groups.get(group, 0) | bit
            self._duplicates += group != record["image_id"]
        self._rows += 1
        self._repeated += record["image_id"] in self._ids
        self._unmarked += record["sha256"] in self._hashes and group is None
        self._ids.add(record["image_id"])
        self._hashes.add(record["sha256"])
        self._splits[split] += 1
        for column in ("dr_grade", "glaucoma", "eye"):
            if record[column] is not None:
                self._classes[split, f"{column} {record[column]}"] += 1

    @staticmethod
    def splits_of(sides: Mapping[str, int]) -> list[int]:
        """Number of splits of each patient or group; no identifier goes into the table."""
        return [bits.bit_count() for bits in sides.values()]

    def classes(self) -> pd.DataFrame:
        """Images of each class that the cohort has, in each split."""
        labels = sorted({label for _, label in self._classes})
        rows = [
            {"class": label, "split": split, "images": self._classes[split, label]}
            for label in labels
            for split in SPLITS
        ]
        return pd.DataFrame(rows, columns=["class", "split", "images"])

    def whole(self, cohort: Cohort) -> pd.DataFrame:
        """One row on the cohort as a whole."""
        return pd.DataFrame(
            [
                {
                    "images": self._rows,
                    "stated_images": len(cohort),
                    "content_as_written": content_sha256(cohort.shards) == cohort.meta["content_sha256"],
                    "patients": len(self.patients),
                    "repeated_image_ids": self._repeated,
                    "unmarked_copies": self._unmarked,
                    "duplicate_share": self._duplicates / max(self._rows, 1),
                    **{f"{split}_images": self._splits[split] for split in SPLITS},
                }
            ]
        )


def captions_tables(
    cohort: Cohort, captions: pq.ParquetFile, meta: Mapping[str, Any], chunk_rows: int, checked: int
) -> Tables:
    """``captions_rows`` (in chunks), ``captions_images``, ``captions_whole``.

    Args:
        checked: captions that are read against the text rules, evenly spaced over the table; their columns are null
            in the other rows.
    """
    budget = TokenBudget(meta["text_encoder"], meta["token_budget"])
    total = captions.metadata.num_rows
    stride = max(1, -(-total // checked)) if checked else total + 1
    records = _records_of(cohort, captions.read(["image_id"])["image_id"][::stride].to_pylist() if checked else ())
    counts: Counter[str] = Counter()
    texts: dict[str, set[int]] = {image_id: set() for image_id in cohort.table(["image_id"])["image_id"].to_pylist()}
    keys: set[int] = set()
    all_texts: set[int] = set()
    number, repeated = 0, 0
    batches = captions.iter_batches(batch_size=chunk_rows)
    for batch in track(batches, "validate: captions", -(-total // chunk_rows), "chunk"):
        rows = batch.to_pandas()
        lengths = budget.count_all(rows["text"].tolist())
        derived = []
        for row, length in zip(batch.to_pylist(), lengths, strict=True):
            image_id, text = row["image_id"], row["text"]
            record = records.get(image_id) if checked and number % stride == 0 else None
            derived.append({"image_known": image_id in texts, **_read(text, record, budget, length)})
            number += 1
            key = hash((image_id, row["granularity"], row["wording"]))
            repeated += key in keys
            keys.add(key)
            counts[image_id] += 1
            all_texts.add(hash(text))
            if image_id in texts:
                texts[image_id].add(hash(text))
        rows["counted_tokens"] = lengths
        rows = pd.concat([rows.drop(columns=["text"]), pd.DataFrame(derived, index=rows.index)], axis=1)
        yield "captions_rows", rows
    yield (
        "captions_images",
        pd.DataFrame(
            {
                "captions": [counts[image_id] for image_id in texts],
                "distinct_texts": [len(texts[image_id]) for image_id in texts],
            }
        ),
    )
    yield (
        "captions_whole",
        pd.DataFrame(
            [
                {
                    "captions": number,
                    "stated_captions": meta["captions"],
                    "repeated_wordings": repeated,
                    "distinct_share": len(all_texts) / max(number, 1),
                }
            ]
        ),
    )


def _records_of(cohort: Cohort, image_ids: Iterable[str]) -> dict[str, Row]:
    """The rows of some images, without pixels."""
    wanted = set(image_ids)
    if not wanted:
        return {}
    return {row["image_id"]: row for row in cohort.rows(TABLE_COLUMNS) if row["image_id"] in wanted}


def _read(text: str, record: Row | None, budget: TokenBudget, length: int) -> dict[str, bool | None]:
    """Whether each text rule is broken, and whether the eye is named; all null where the caption is not checked."""
    unknown: dict[str, bool | None] = {"states_eye": None, **dict.fromkeys(RULES)}
    if record is None:
        return unknown
    try:
        broken = {violation.rule for violation in check(text, record, budget, length)}
    except DataError:  # the record is outside the vocabulary, which the suites of the cohort report
        return unknown
    states_eye = None if record["eye"] is None else record["eye"] in read_statements(text).eyes
    return {"states_eye": states_eye, **{rule: rule in broken for rule in RULES}}
