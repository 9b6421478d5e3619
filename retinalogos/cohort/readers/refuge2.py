"""REFUGE2, glaucoma with disc and cup: Orlando et al., Medical Image Analysis 2020, 59:101570."""

import json
from collections.abc import Iterator
from pathlib import Path

from retinalogos.cohort.readers.files import SUFFIXES
from retinalogos.cohort.readers.record import Layer, Record, Source
from retinalogos.errors import DataError, UsageError

GLAUCOMA = {"Glaucoma": "glaucoma", "Non-Glaucoma": "no"}
LABEL = {0: "no", 1: "glaucoma"}
# In the masks 0 is the cup, 128 the rim and 255 the rest.
DISC_CUP = {128: 1, 0: 2}
_MASK_WORDS = ("mask", "disc_cup")


def read(source: Source) -> Iterator[Record]:
    """Reads every photograph below the folder.

    The diagnosis is that of its folder (``Glaucoma``, ``Non-Glaucoma``) or of an ``index.json`` beside the images
    (number → ImgName, Label); the mask is the file of the same name in a folder called after masks, below the same
    part of the set. No patient numbers are published.

    Raises:
        UsageError: there is no photograph.
        DataError: an ``index.json`` is broken.
    """
    assert source.folder is not None
    files = [path for path in sorted(source.folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    masks = {(_part(path, source.folder), path.stem): path for path in files if _is_mask(path, source.folder)}
    photographs = [path for path in files if not _is_mask(path, source.folder)]
    if not photographs:
        raise UsageError(f"{source.folder} holds no photographs: is this the folder of REFUGE2?")
    index = _index(source.folder)
    for path in photographs:
        mask = masks.get((_part(path, source.folder), path.stem))
        diagnosis = next((GLAUCOMA[name] for name in path.parts[::-1] if name in GLAUCOMA), index.get(path))
        yield Record(
            image=path,
            source="refuge2",
            glaucoma=diagnosis,
            labels={"part": _part(path, source.folder)},
            maps={"disc_cup": (Layer(mask, DISC_CUP),)} if mask else {},
            licence="challenge terms; research use only",
        )


def _part(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts[:-1]
    return parts[0] if parts else ""


def _is_mask(path: Path, folder: Path) -> bool:
    return any(word in part.lower() for part in path.relative_to(folder).parts[:-1] for word in _MASK_WORDS)


def _index(folder: Path) -> dict[Path, str]:
    labels: dict[Path, str] = {}
    for file in sorted(folder.rglob("index.json")):
        try:
            for entry in json.loads(file.read_text(encoding="utf-8")).values():
                if "Label" in entry:
                    for beside in (file.parent, file.parent / "images"):
                        labels[beside / entry["ImgName"]] = LABEL[int(entry["Label"])]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"{file}: expected number -> {{ImgName, Label 0 or 1}}, found {error}") from None
    return labels
