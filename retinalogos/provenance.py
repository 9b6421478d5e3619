"""Where a synthetic picture comes from, written into the picture itself."""

import base64
import hashlib
import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from retinalogos import __version__

NOTICE = "Synthetic images: for research use only, not for diagnosis."
_PHANTOM = "Phantom eyes: drawn by a program, no patient was photographed. For research use only, not for diagnosis."
_REAL = "Real photographs of patients: keep this page where they are kept. For research use only, not for diagnosis."

# Sources whose eyes are drawn.
_DRAWN = ("phantom", "phantom_cubes")


def page_notice(sources: Collection[str]) -> str:
    """What a page must say that shows pictures of these sources of a cohort."""
    kinds = {"phantom" if source in _DRAWN else source for source in sources}
    if kinds == {"phantom"}:
        return _PHANTOM
    return NOTICE if kinds in ({"synthetic"}, {"phantom", "synthetic"}) else _REAL


def software() -> str:
    """Name and version of this package, as it is written into pictures and pages."""
    return f"retinalogos {__version__}"


def write_png(file: Path | BinaryIO, image: np.ndarray, record: Mapping[str, str | int | float | None]) -> None:
    """Writes a PNG that carries its provenance as text chunks.

    Args:
        file: path, or binary file, to write to.
        image: uint8, height × width × 3.
        record: what to say beside ``synthetic``, ``notice`` and ``software``, or in their place; values that are
            None are left out.
    """
    chunks = PngInfo()
    for key, value in {"synthetic": "true", "notice": NOTICE, "software": software(), **record}.items():
        if value is not None:
            chunks.add_itxt(key, str(value))
    Image.fromarray(image).save(file, "PNG", pnginfo=chunks)


def base64_png(image: np.ndarray, record: Mapping[str, str | int | float | None]) -> str:
    """What :func:`write_png` writes, as base64: for answers of servers."""
    buffer = io.BytesIO()
    write_png(buffer, image, record)
    return base64.b64encode(buffer.getvalue()).decode()


def read_png(path: Path) -> dict[str, str]:
    """The provenance that :func:`write_png` wrote: text chunk by name."""
    with Image.open(path) as image:
        image.load()
        return {str(key): value for key, value in image.info.items() if isinstance(value, str)}


def append_records(path: Path, records: list[dict[str, str | int | float | None]], key: str) -> None:
    """Adds records to a JSON-lines file; a record whose ``key`` is there already takes its place."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = {json.loads(line)[key]: line for line in lines}
    known.update({str(record[key]): json.dumps(record, ensure_ascii=False) for record in records})
    path.write_text("".join(f"{line}\n" for line in known.values()), encoding="utf-8")


def generator_hash(folder: Path) -> str:
    """sha256 over the names and bytes of a generator's files; names it in the provenance of what it draws."""
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name != "manifest.json"):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
