"""What of a synthetic cohort may be given away: all but what the assessment takes for copies of training images."""

import csv
from pathlib import Path

from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.errors import DataError, UsageError

FLAGGED = "flagged.csv"  # written by the step `assess` beside its results


def release(cohort: Cohort, assessment: Path, out: Path) -> int:
    """Writes the cohort without the images that its assessment flags.

    The list itself stays where it is: it names training images.

    Args:
        cohort: the synthetic cohort that was assessed.
        assessment: folder that the step ``assess`` wrote about it.
        out: folder of the new cohort, which must not exist yet.

    Returns:
        Number of images left out.

    Raises:
        UsageError: there is no list, or ``out`` exists.
        DataError: the list names images that are not in the cohort (it is of another one), or nothing is left.
    """
    try:
        listed = (assessment / FLAGGED).read_text(encoding="utf-8")
    except OSError:
        raise UsageError(f"{assessment} holds no {FLAGGED}; give the folder that the step `assess` wrote") from None
    if out.exists():
        raise UsageError(f"{out} exists; name a new folder for the released cohort")
    flagged = {row["image_id"] for row in csv.DictReader(listed.splitlines())}
    ids = set(cohort.table(("image_id",))["image_id"].to_pylist())
    unknown = sorted(flagged - ids)
    if unknown:
        raise DataError(
            f"{assessment / FLAGGED} names {unknown[0]}, which {cohort.folder} does not hold: assess it again"
        )
    if flagged == ids:
        raise DataError(f"every image of {cohort.folder} is flagged as a copy: there is nothing to release")
    with CohortWriter(out, cohort.meta["name"]) as writer:
        for row in cohort.rows():
            if row["image_id"] not in flagged:
                writer.add(row)
    return len(flagged)
