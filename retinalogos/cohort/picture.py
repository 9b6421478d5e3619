"""Reads an image file of any kind into 8-bit RGB, or says why it cannot be used."""

import io
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from scipy.ndimage import distance_transform_edt

from retinalogos.cohort.readers.record import Layer

# A fundus camera of today gives up to about 50 megapixels; a file that claims more is a mistake or an attack.
MOST_PIXELS = 150_000_000
# Below this side no vessel can be told.
LEAST_SIDE = 32
# Grey levels of standard deviation in the green channel below which nothing can be seen (ODIR-5K's darkest has 4.9).
LEAST_DEVIATION = 2.0

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS = 258

cv2.setNumThreads(1)  # one process per core is the way work is spread here


class UnusableImage(Exception):
    """A file that cannot become a row; ``reason`` is one short fixed phrase, ``detail`` says more."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def check_visible(image: np.ndarray) -> None:
    """Refuses a picture (uint8, h × w × 3) that is black, white or otherwise of one tone.

    Raises:
        UnusableImage: featureless.
    """
    if float(cv2.meanStdDev(cv2.extractChannel(image, 1))[1][0, 0]) < LEAST_DEVIATION:
        raise UnusableImage("featureless", "nothing can be seen in the picture")


@dataclass(frozen=True)
class Photograph:
    """A file whose header has been read and found sound.

    Attributes:
        data: the whole file.
        width, height: pixels as stored, before the orientation is applied.
        orientation: EXIF orientation, 1-8.
        plain: an 8-bit JPEG in colour that ends as it should: it can be decoded at reduced size.
        deep: more than 8 bits per channel.
    """

    data: bytes
    width: int
    height: int
    orientation: int = 1
    plain: bool = False
    deep: bool = False

    def reduction(self, least: float) -> int:
        """The largest of 8, 4, 2 and 1 that leaves at least ``least`` pixels on the shorter side."""
        if not self.plain:
            return 1
        return next((by for by in (8, 4, 2) if min(self.width, self.height) >= by * least), 1)

    def pixels(self, reduction: int = 1) -> np.ndarray:
        """Decodes to uint8 RGB, height × width × 3, upright.

        Args:
            reduction: of a plain JPEG, the factor by which it is reduced while it is decoded (in the cosine domain,
                hence without aliasing): 1, 2, 4 or 8. Other files come at full size.

        Raises:
            UnusableImage: truncated, or the pixels cannot be decoded.
        """
        if self.plain:
            array = cv2.imdecode(np.frombuffer(self.data, np.uint8), _REDUCED[reduction])
            if array is None:
                raise UnusableImage("truncated", "the pixels cannot be decoded")
            array = cv2.cvtColor(array, cv2.COLOR_BGR2RGB, dst=array)
        elif self.deep:
            array = _decode_deep(self.data)
        else:
            array = _decode(self.data)
        return array if self.orientation == 1 else np.ascontiguousarray(_UPRIGHT[self.orientation](array))


# Pixels as the camera held them → upright, by EXIF orientation.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image),
}
_REDUCED = {
    by: flag | cv2.IMREAD_IGNORE_ORIENTATION
    for by, flag in (
        (1, cv2.IMREAD_COLOR),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (8, cv2.IMREAD_REDUCED_COLOR_8),
    )
}


def open_photograph(source: Path | bytes) -> Photograph:
    """Reads a file and its header.

    Raises:
        UnusableImage: missing, empty, no image, too large or too small.
    """
    data = _bytes(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            _check_size(*image.size)
            # A PNG without EXIF before its pixels would be decoded whole in the search for one behind them.
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if has_exif else 1
    except Image.DecompressionBombError as error:
        raise UnusableImage("too large", str(error)) from None
    except UnidentifiedImageError:
        return Photograph(data, *_deep_tiff_size(data), deep=True)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error) as error:
        raise UnusableImage("not an image", str(error)) from None
    return Photograph(
        data,
        *image.size,
        orientation=orientation if orientation in _UPRIGHT else 1,
        # Without its end mark a JPEG may be cut short, which OpenCV would fill up with grey; Pillow finds out.
        plain=image.format == "JPEG" and image.mode == "RGB" and data.rstrip(b"\0").endswith(b"\xff\xd9"),
        deep=_is_deep(image, data),
    )


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
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(_TIFF_BITS, (8,))) > 8
    return image.mode.startswith("I") or image.mode == "F"


def _decode(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise UnusableImage("truncated", str(error)) from None


def _deep_tiff_size(data: bytes) -> tuple[int, int]:
    # Pillow does not know TIFF files of 3 × 16 bits; OpenCV does, but would open one of any size.
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
    return width, height


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
        if layer.spread and painted.any():
            nearest = distance_transform_edt(painted == 0, return_distances=False, return_indices=True)
            painted = np.where(classes > 0, painted[tuple(nearest)], 0)
        classes = np.where(painted > 0, painted, classes)
    assert classes is not None
    return classes
