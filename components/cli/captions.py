"""Captions before clinicians: ``review-captions``, ``review-agreement``."""

import argparse
import json
from pathlib import Path

from retinalogos.arguments import Commands, at_least

_REVIEW = """\
Writes one HTML page with a sample of captions, each with picture and record, on which a clinician marks optic disc,
macula, vessels, nerve fibre and lesions as right, wrong or not judgeable. It opens from a file and asks for nothing
from elsewhere; each reviewer downloads the answers, and review-agreement reads the files of several. Real photographs
on it are data of patients.

example:
  retinalogos review-captions --cohort data/cohort --captions data/captions --n 50 --out review.html
"""

_AGREEMENT = """\
Agreement of those who reviewed a page of review-captions: Krippendorff's alpha for each item with a bootstrap interval,
the share on which all agree, the share found right, and Cohen's kappa of each pair.

example:
  retinalogos review-agreement review-a.json review-b.json --out agreement.json
"""


def add_commands(commands: Commands) -> None:
    """Adds `review-captions` and `review-agreement`."""
    review = commands.add_parser("review-captions", help="page to review captions on", description=_REVIEW)
    review.add_argument("--cohort", type=Path, required=True, metavar="DIR", help="folder of a cohort")
    review.add_argument("--captions", type=Path, required=True, metavar="DIR", help="folder of its captions")
    review.add_argument("--out", type=Path, required=True, metavar="HTML", help="page to write")
    # The interval of a share of 0.9 is then ±0.08, and a reviewer needs an hour.
    review.add_argument("--n", type=at_least(1), default=50, help="captions, drawn by lot (default 50)")
    review.add_argument("--seed", type=at_least(0), default=0, help="of the lot (default 0)")
    review.add_argument(
        "--granularity", choices=("coarse", "fine"), default="fine", help="of the captions (default fine)"
    )
    review.add_argument("--size", type=at_least(32), default=512, help="most pixels of a picture's side (default 512)")
    review.set_defaults(run=_review)
    agreement = commands.add_parser("review-agreement", help="agreement of those who reviewed", description=_AGREEMENT)
    agreement.add_argument("files", nargs="+", type=Path, metavar="JSON", help="answers, a file of each reviewer")
    agreement.add_argument("--out", type=Path, metavar="JSON", help="write the figures to this file too")
    # As params.yaml, assess.resamples.
    agreement.add_argument("--resamples", type=at_least(0), default=1000, help="of the bootstrap (default 1000)")
    agreement.add_argument("--seed", type=at_least(0), default=0, help="of the bootstrap (default 0)")
    agreement.set_defaults(run=_agreement)


def _review(arguments: argparse.Namespace) -> None:
    from retinalogos.captions.review import write_review
    from retinalogos.cohort.shards import Cohort

    drawn = (arguments.n, arguments.seed, arguments.granularity, arguments.size)
    shown = write_review(Cohort(arguments.cohort), arguments.captions, arguments.out, *drawn)
    print(f"{shown} captions to review: {arguments.out}")


def _agreement(arguments: argparse.Namespace) -> None:
    from retinalogos.captions.review.agreement import agreement, as_json, lines, read_answers

    answers = read_answers(arguments.files)
    found = agreement(answers, arguments.resamples, arguments.seed)
    if arguments.out is not None:
        text = json.dumps(as_json(answers, found), indent=2, ensure_ascii=False, allow_nan=False)
        arguments.out.write_text(f"{text}\n", encoding="utf-8")
    print("\n".join(lines(answers, found)))
