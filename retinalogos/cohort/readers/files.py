"""Images of a folder, found by the name without its suffix."""

from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".gif", ".webp")


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Name without suffix → image file, of all images in ``folder`` and below it, in sorted order."""
    return {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES}


def image_of(files: dict[str, Path], folder: Path, name: str) -> Path:
    """The file called ``name``, with or without a suffix; one that is not there is named as it should be.

    A missing file is no error of the reader: the ingest puts it into quarantine and goes on.
    """
    bare = name.removesuffix(Path(name).suffix) if Path(name).suffix.lower() in SUFFIXES else name
    return files.get(Path(bare).name, folder / name)
