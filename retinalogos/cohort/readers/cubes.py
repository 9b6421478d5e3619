"""Hyperspectral cubes in files: ENVI, multi-page TIFF, HDF5 and NumPy, each with its wavelengths.

A file's values are reflectance as floating-point numbers, or integers, which are divided by the largest of their type
or by the ``reflectance scale factor`` of an ENVI header.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from retinalogos.cohort.cubes import Cube, check_cube, encode_cube, render_rgb
from retinalogos.cohort.picture import UnusableImage
from retinalogos.cohort.readers.record import Drawing, Record
from retinalogos.errors import DataError, UsageError

SUFFIXES = (".hdr", ".tif", ".tiff", ".h5", ".hdf5", ".npz")

# Codes of `data type` in an ENVI header (ENVI Header Files, NV5 Geospatial Software).
_ENVI_TYPES = {"1": "u1", "2": "i2", "3": "i4", "4": "f4", "5": "f8", "12": "u2", "13": "u4"}
_ENVI_AXES = {"bsq": "blw", "bil": "lbw", "bip": "lwb"}
_COLUMNS = ("file", "patient", "eye", "age", "sex")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# Share of a mean spectrum's peak below which a pixel lies outside the field of view.
_DARK = 0.05
# Cubes that are asked for their wavelengths: one that went wrong does not decide for all.
_ASKED = 15


def read_cube(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Reflectance, float32 bands × height × width, and wavelengths in nm, or None where the file names none.

    Raises:
        UnusableImage: the file cannot be read.
        UsageError: no reader for such a file, or h5py is missing.
    """
    readers = {".hdr": _envi, ".tif": _tiff, ".tiff": _tiff, ".h5": _hdf5, ".hdf5": _hdf5, ".npz": _numpy}
    if path.suffix.lower() not in readers:
        raise UsageError(f"{path}: a cube is read from {', '.join(SUFFIXES)}")
    try:
        values, wavelengths, scale = readers[path.suffix.lower()](path)
        nanometres = None if wavelengths is None else tuple(float(nm) for nm in wavelengths)
    except UsageError:
        raise
    except KeyError as error:
        raise UnusableImage("unreadable", f"it lacks {error}, or its value is not known") from None
    except Exception as error:  # a damaged file makes NumPy, Pillow and h5py raise errors of many kinds
        raise UnusableImage("unreadable", str(error).split("\n")[0] or type(error).__name__) from None
    if values.dtype.kind not in "buif":
        raise UnusableImage("unreadable", f"values of type {values.dtype}, reflectance is a number")
    if values.ndim != 3:
        raise UnusableImage("unreadable", f"{values.ndim} dimensions, a cube has 3")
    if scale is None:
        scale = float(np.iinfo(values.dtype).max) if np.issubdtype(values.dtype, np.integer) else 1.0
    if nanometres and max(nanometres) < 10:  # micrometres, as many ENVI headers have it
        nanometres = tuple(1000 * nm for nm in nanometres)
    return (values / scale).astype(np.float32), nanometres


_Raw = tuple[np.ndarray, Sequence[float] | None, float | None]


def _envi(path: Path) -> _Raw:
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("ENVI"):
        raise ValueError("no ENVI header: its first line is not ENVI")
    fields = {
        key.strip().lower(): value.strip().strip("{}").strip()
        for key, value in re.findall(r"^([^=\n]+)=(\s*\{[^}]*\}|[^\n]*)", text, re.MULTILINE)
    }
    size = {"b": int(fields["bands"]), "l": int(fields["lines"]), "w": int(fields["samples"])}
    order = ">" if fields.get("byte order", "0") == "1" else "<"
    dtype = np.dtype(order + _ENVI_TYPES[fields["data type"]])
    axes = _ENVI_AXES[fields["interleave"].lower()]
    candidates = [
        path.with_suffix(""),
        *(path.with_suffix(end) for end in (".raw", ".img", ".dat", ".bsq", ".bil", ".bip")),
    ]
    data = next((file for file in candidates if file.is_file()), None)
    if data is None:
        # Not its name, which may be a patient's.
        raise ValueError("no raw file of the header's name lies beside it")
    flat = np.fromfile(data, dtype, offset=int(fields.get("header offset", 0)))
    values = flat.reshape([size[axis] for axis in axes]).transpose([axes.index(axis) for axis in "blw"])
    found = fields.get("wavelength")
    scale = fields.get("reflectance scale factor")
    return values, [float(nm) for nm in found.split(",")] if found else None, float(scale) if scale else None


def _tiff(path: Path) -> _Raw:
    with Image.open(path) as image:
        pages = []
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            pages.append(np.asarray(image).copy())
        image.seek(0)
        description = str(image.tag_v2.get(270, ""))  # type: ignore[attr-defined] # a TIFF's ImageDescription
    # Written as `wavelengths: 450, 480, …`, as JSON or plain.
    named = re.search(r"wavelengths?\W+((?:[\d.]+[,\s]*)+)", description, re.IGNORECASE)
    return np.stack(pages), [float(nm) for nm in re.findall(r"[\d.]+", named.group(1))] if named else None, None


def _hdf5(path: Path) -> _Raw:
    try:
        import h5py
    except ImportError:
        raise UsageError(f"{path.parent}: reading HDF5 needs the package h5py: `pip install h5py`") from None
    with h5py.File(path) as file:
        return file["cube"][()], file["wavelengths"][()] if "wavelengths" in file else None, None


def _numpy(path: Path) -> _Raw:
    with np.load(path, allow_pickle=False) as file:
        if "cube" not in file:
            raise KeyError("cube")  # NumPy's own names no key
        return file["cube"], file.get("wavelengths"), None


@dataclass(frozen=True)
class ReadCube:
    """Reads one cube when it is called, so that only its path travels to a worker."""

    path: Path
    size: int
    wavelengths: tuple[float, ...]
    most_shift: float

    def __call__(self) -> Drawing:
        """Picture, field of view and cube, size × size.

        Raises:
            UnusableImage: see :func:`~retinalogos.cohort.cubes.check_cube`.
        """
        reflectance, wavelengths = read_cube(self.path)
        check_cube(reflectance, wavelengths, len(self.wavelengths), self.most_shift)
        assert wavelengths is not None
        if not np.allclose(wavelengths, self.wavelengths, atol=1.0):
            raise UnusableImage("other wavelengths", f"{wavelengths[0]:g} to {wavelengths[-1]:g} nm")
        square = np.stack([_square(band, self.size) for band in reflectance])
        # Scattered light is seen outside the field too, where nothing else is.
        mean = square.mean(0)
        fov = np.where(mean > _DARK * np.quantile(mean, 0.95), 255, 0).astype(np.uint8)
        return drawing(square, self.wavelengths, {"fov": fov})


def drawing(reflectance: np.ndarray, wavelengths: Sequence[float], maps: dict[str, np.ndarray]) -> Drawing:
    """A cube, bands × size × size, as the ingest takes it, with its rendering in colour as the picture."""
    return Drawing(render_rgb(reflectance, wavelengths), maps, encode_cube(Cube.of(reflectance, wavelengths)))


def _square(band: np.ndarray, size: int) -> np.ndarray:
    """The centre square at ``size`` × ``size`` pixels."""
    side = min(band.shape)
    top, left = (band.shape[0] - side) // 2, (band.shape[1] - side) // 2
    how = cv2.INTER_AREA if size <= side else cv2.INTER_CUBIC
    return cv2.resize(band[top : top + side, left : left + side], (size, size), interpolation=how)


def wavelengths_of(folder: Path) -> tuple[float, ...]:
    """Wavelengths, nm, that most of the first cubes of a folder name; of two lists as frequent the first.

    Raises:
        UsageError: no folder, or none of these cubes names any.
    """
    named: Counter[tuple[float, ...]] = Counter()
    files = list(_cubes(folder).values())[:_ASKED]
    for path in files:
        try:
            wavelengths = read_cube(path)[1]
        except UnusableImage:  # the ingest quarantines it
            continue
        if wavelengths:
            named[wavelengths] += 1
    if not named:
        raise UsageError(
            f"none of the {len(files)} cubes looked at in {folder} names wavelengths; they go into the files"
        )
    return named.most_common(1)[0][0]


def _cubes(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: set `source` to the folder of the cubes")
    files = {path.name: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}
    if not files:
        raise UsageError(f"{folder} holds no cube: it is read from {', '.join(SUFFIXES)}")
    return files


def read(
    folder: Path, table: Path | None, size: int, wavelengths: tuple[float, ...], most_shift: float
) -> Iterator[Record]:
    """Cubes of a folder in the order of their names.

    Args:
        folder: with files of :data:`SUFFIXES`.
        table: CSV with the columns ``file`` and, where known, ``patient``, ``eye``, ``age`` and ``sex``; any other
            column is a label that is true or false. None: each cube is of a patient of its own.
        size: pixels of the stored square.
        wavelengths: nm, that every cube must have.
        most_shift: pixels by which a band may lie beside the one before it.

    Raises:
        UsageError: no folder, or no cube in it.
        DataError: the table names a file that is not there, an age that is no number, or a label that is neither true
            nor false.
    """
    files = _cubes(folder)
    rows: list[dict[str, str]] = [{"file": name} for name in files]
    if table is not None:
        with table.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        for number, row in enumerate(rows, start=2):
            if row.get("file") not in files:
                raise DataError(f"{table}, line {number}: {row.get('file')!r} is no cube in {folder}")
    for number, row in enumerate(rows, start=2):
        try:
            age = float(row["age"]) if row.get("age") else None
        except ValueError:
            raise DataError(f"{table}, line {number}: age {row['age']!r} is no number of years") from None
        yield Record(
            image=ReadCube(files[row["file"]], size, wavelengths, most_shift),
            source="cubes",
            patient=row.get("patient") or row["file"],
            eye=row.get("eye") or None,
            age=age,
            sex=row.get("sex") or None,
            labels=_labels(row, f"{table}, line {number}"),
        )


def _labels(row: dict[str, str], where: str) -> dict[str, bool]:
    found = {}
    for name, word in row.items():
        if name in _COLUMNS or not word:
            continue
        if word.strip().lower() not in _TRUTH:
            raise DataError(f"{where}: label {name} is {word!r}; it should be true, false or empty")
        found[name] = _TRUTH[word.strip().lower()]
    return found
