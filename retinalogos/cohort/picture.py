"""Reads an image file of any kind into 8-bit RGB, or says why it cannot be used."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from retinalogos.cohort.readers.record import Layer

# A fundus camera of today gives up to about 50 megapixels; a file that claims more is a mistake or an attack.
MOST_PIXELS = 150_000_000
# Below this side no vessel can be told.
LEAST_SIDE = 32

_EXIF_ORIENTATION = 0x0112

cv2.setNumThreads(1)  # one process per core is the way work is spread here


class UnusableImage(Exception):
    """A file that cannot become a row; ``reason`` is one short fixed phrase, ``detail`` says more."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def read_picture(source: Path | bytes, size: int) -> np.ndarray:
    """Decodes a photograph, upright, as large as is needed for a square of ``size`` pixels and no larger.

    JPEG files are reduced by 2, 4 or 8 while decoding (in the discrete cosine domain, which is free of
    aliasing) where twice ``size`` is left. 16-bit files are scaled by their white point, CMYK is converted.

    Args:
        source: a file or its bytes.
        size: side of the square in pixels that the picture is meant for.

    Returns:
        uint8, height × width × 3.

    Raises:
        UnusableImage: missing, empty, no image, truncated, too large or too small.
    """
    data = _bytes(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise UnusableImage("too large", str(error)) from None
    except UnidentifiedImageError:
        return _deep_tiff(data)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnusableImage("not an image", str(error)) from None
    _check_size(*image.size)
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if "exif" in image.info or image.format == "TIFF" else 1
    try:
        if _is_deep(image, data):
            array = _decode_deep(data)
            image = Image.fromarray(array)
        elif image.format == "JPEG" and image.mode == "RGB":
            image.draft("RGB", (2 * size, 2 * size))
        if image.mode != "RGB":
            image = image.convert("RGB")
        if orientation != 1:
            image.getexif()[_EXIF_ORIENTATION] = orientation
            image = ImageOps.exif_transpose(image)
        return np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UnusableImage("truncated", str(error)) from None


def _bytes(source: Path | bytes) -> bytes:
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except OSError as error:
            raise UnusableImage("missing", error.strerror or "") from None
    if not source:
        raise UnusableImage("empty", "the file has no bytes")
    return source


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise UnusableImage("too large", f"{width} x {height} pixels, {MOST_PIXELS} are allowed")
    if min(width, height) < LEAST_SIDE:
        raise UnusableImage("too small", f"{width} x {height} pixels, the least side is {LEAST_SIDE}")


def _is_deep(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16  # bit depth in the header chunk; Pillow would drop the low byte
    return image.mode.startswith("I") or image.mode == "F"


def _deep_tiff(data: bytes) -> np.ndarray:
    # Pillow does not know TIFF files of 3 × 16 bits; OpenCV does, and its size is checked first.
    if data[:4] not in (b"II*\0", b"MM\0*"):
        raise UnusableImage("not an image", "no known image format")
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        handle = io.BytesIO(data)
        handle.seek(tags.next)
        tags.load(handle)
        width, height = int(tags[256]), int(tags[257])
    except Exception as error:
        raise UnusableImage("truncated", f"TIFF directory: {error}") from None
    _check_size(width, height)
    return _decode_deep(data)


def _decode_deep(data: bytes) -> np.ndarray:
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise UnusableImage("truncated", "the pixels cannot be decoded")
    if array.ndim == 3:
        array = cv2.cvtColor(array[..., :3], cv2.COLOR_BGR2RGB)
    else:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype == np.uint8:
        return array
    peak = float(array.max())
    # 10-, 12- and 14-bit sensors are stored in 16 bits: the white point is that of the fewest bits that hold the peak.
    white = next((2**bits - 1 for bits in (8, 10, 12, 14, 16) if peak < 2**bits), peak)
    return np.clip(array.astype(np.float32) * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)


def read_classes(layers: Sequence[Layer]) -> np.ndarray:
    """Paints the layers of a truth map over one another.

    Returns:
        uint8, height × width: classes of the cohort's map, 0 none.

    Raises:
        UnusableImage: a layer's file is missing or no image, or the layers differ in size.
    """
    classes: np.ndarray | None = None
    for layer in layers:
        try:
            with Image.open(layer.image) as file:
                _check_size(*file.size)
                values = np.asarray(file if file.mode in ("L", "P") else file.convert("L"))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UnusableImage("unusable map", f"{layer.image.parent.name}: {type(error).__name__}") from None
        if classes is None:
            classes = np.zeros(values.shape, np.uint8)
        if values.shape != classes.shape:
            raise UnusableImage("unusable map", f"{layer.image.parent.name}: {values.shape} against {classes.shape}")
        table = np.zeros(256, np.uint8)
        for value, meaning in layer.values.items():
            table[value] = meaning
        painted = table[values]
        classes = np.where(painted > 0, painted, classes)
    assert classes is not None
    return classes
