"""Where a synthetic picture comes from, written into the picture itself."""

import base64
import hashlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from retinalogos import __version__
from retinalogos.errors import DataError

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


def append_records(path: Path, records: Sequence[Mapping[str, str | int | float | None]]) -> None:
    """Adds records to a JSON-lines file; a record whose ``file`` is there already takes its place.

    Raises:
        DataError: a line that is there is no such record; the file stays as it was.
    """
    known: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        try:
            known[json.loads(line)["file"]] = line
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}, line {number}, is no record of a picture (JSON with `file`): move it away and draw again"
            ) from None
    known |= {str(record["file"]): json.dumps(record, ensure_ascii=False) for record in records}
    part = path.with_name(f"{path.name}.part")
    part.write_text("".join(f"{line}\n" for line in known.values()), encoding="utf-8")
    part.replace(path)


def generator_hash(folder: Path) -> str:
    """sha256 over the names and bytes of a generator's files; names it in the provenance of what it draws."""
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.name != "manifest.json"):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
