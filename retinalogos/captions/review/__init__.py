"""A page on which a clinician reviews captions, and the agreement of those who did.

The checklist is that of the RetinaLogos paper (arXiv 2505.12887, figure 2): optic disc, macula, vessels, nerve fibre,
lesions. The page is one file that needs no network; each reviewer downloads the answers as a JSON file.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinalogos.captions.prompts import statement
from retinalogos.captions.quality import draw_captions, find_records
from retinalogos.captions.rules import identifiers
from retinalogos.captions.shards import RECORD_COLUMNS
from retinalogos.captions.table import read_captions_meta
from retinalogos.captions.template import Granularity
from retinalogos.cohort.shards import Cohort, decode_image
from retinalogos.errors import UsageError
from retinalogos.pages import jpeg_uri
from retinalogos.provenance import page_notice

FORMAT = "retinalogos-review-1"
ITEMS: Mapping[str, str] = {
    "disc": "Optic disc",
    "macula": "Macula",
    "vessels": "Vessels",
    "fibre": "Nerve fibre",
    "lesions": "Lesions",
}
VERDICTS: Mapping[str, str] = {"right": "right", "wrong": "wrong", "unclear": "not judgeable"}

_JPEG_QUALITY = 95  # as ingest.jpeg_quality: microaneurysms are a few pixels


def write_review(
    cohort: Cohort, captions: Path, out: Path, n: int, seed: int, granularity: Granularity, size: int
) -> int:
    """Writes the page of a sample by lot; the same arguments give the same bytes.

    It holds no identifier of a patient or picture: of the record what an engine with a model is told of it, the report
    de-identified; a caption that may identify a person is left out.

    Args:
        cohort: of the pictures and records.
        captions: captions folder.
        out: HTML file.
        n: captions drawn; all where there are fewer.
        seed: of the lot.
        granularity: of the captions.
        size: most pixels of a picture's side.

    Returns:
        Captions on the page.

    Raises:
        UsageError: there is no caption to show.
        DataError: a caption has no record in the cohort.
    """
    drawn = draw_captions(captions, n, seed, granularity)
    shown = [row for row in drawn if not identifiers(row["text"])]
    if not shown:
        raise UsageError(f"{captions} has no {granularity} caption to review; --granularity names the other kind")
    rows = find_records(cohort, {row["image_id"] for row in shown}, (*RECORD_COLUMNS, "image"))
    page = {
        "format": FORMAT,
        "set": set_of(captions, n, seed, granularity),
        "notice": page_notice(cohort.meta["sources"]),
        "items": ITEMS,
        "verdicts": VERDICTS,
        "cases": [
            {
                "key": key_of(row),
                "text": row["text"],
                "record": _record(rows[row["image_id"]]),
                "image": jpeg_uri(decode_image(rows[row["image_id"]]["image"]["bytes"]), size, _JPEG_QUALITY),
            }
            for row in shown
        ],
    }
    # Within a script element only "<" could end it.
    data = json.dumps(page, ensure_ascii=False).replace("<", "\\u003c")
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(template.replace("__DATA__", data), encoding="utf-8")
    return len(shown)


def set_of(captions: Path, n: int, seed: int, granularity: str) -> str:
    """Name of a sample: answers to another are refused."""
    content = read_captions_meta(captions)["content_sha256"]
    return hashlib.sha256(json.dumps([content, n, seed, granularity]).encode()).hexdigest()[:12]


def key_of(row: Mapping[str, Any]) -> str:
    """Name of a caption in files of answers: found again by who has the captions, and saying nothing to others."""
    text = json.dumps([row["image_id"], row["granularity"], row["wording"]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _record(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the record knows of the eye, a line each."""

    def said(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value))
        if isinstance(value, dict):
            return ", ".join(f"{count} {name}" for name, count in value.items())
        return str(value)

    return [(name.replace("_", " "), said(value)) for name, value in statement(row).items()]
