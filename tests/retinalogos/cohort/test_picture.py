import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_eye import draw_eye
from PIL import Image, ImageOps

from retinalogos.cohort.picture import UnusableImage, open_photograph, read_classes
from retinalogos.cohort.readers.record import Layer


def encoded(image: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def bomb_png(side: int) -> bytes:
    """A PNG that claims side × side pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def tiff_bomb(side: int) -> bytes:
    """A 3 × 16 bit TIFF whose directory claims side × side pixels."""
    entries = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 16), (277, 3, 1, 3), (262, 3, 1, 2)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)


EYE = draw_eye(3, 200)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is no picture", "not an image"),
        (encoded(EYE)[:2500], "truncated"),
        (encoded(EYE, "PNG")[:3000], "truncated"),
        (encoded(EYE[:1, :1]), "too small"),
        (bomb_png(100_000), "too large"),
        (bomb_png(13_000), "too large"),
        (tiff_bomb(60_000), "too large"),
        (b"II*\0" + b"\xff" * 40, "truncated"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnusableImage) as error:
        open_photograph(data).pixels()
    assert error.value.reason == reason


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableImage, match="missing"):
        open_photograph(tmp_path / "nothing.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "PPM", "WEBP"])
def test_every_common_format_gives_the_same_picture(kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    pixels = open_photograph(encoded(EYE, kind, **options)).pixels()
    assert pixels.shape == EYE.shape
    assert np.abs(pixels.astype(int) - EYE).mean() < 4


def test_cmyk_becomes_rgb() -> None:
    pixels = open_photograph(encoded(EYE, "JPEG", "CMYK", quality=95)).pixels()
    assert np.abs(pixels.astype(int) - EYE).mean() < 6


def test_grey_becomes_rgb() -> None:
    pixels = open_photograph(encoded(EYE, "PNG", "L")).pixels()
    assert pixels.shape == EYE.shape
    assert (pixels[..., 0] == pixels[..., 2]).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bits_are_scaled_by_their_white_point(suffix: str, bits: int) -> None:
    deep = np.round(EYE / 255.0 * (2**bits - 1)).astype(np.uint16)
    data = cv2.imencode(suffix, cv2.cvtColor(deep, cv2.COLOR_RGB2BGR))[1].tobytes()
    pixels = open_photograph(data).pixels()
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - EYE).max() <= 1


def test_sixteen_bit_grey() -> None:
    grey = EYE[..., 1].astype(np.uint16) * 257
    pixels = open_photograph(cv2.imencode(".png", grey)[1].tobytes()).pixels()
    assert np.abs(pixels[..., 0].astype(int) - EYE[..., 1]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_orientation_is_applied_as_pillow_does(orientation: int, kind: str) -> None:
    image = draw_eye(1, 120, 80)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    pixels = open_photograph(data).pixels()
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 2


def test_reduced_decoding_is_the_same_picture_smaller() -> None:
    image = cv2.GaussianBlur(draw_eye(5, 512), (0, 0), 4)
    photograph = open_photograph(encoded(image, quality=95))
    assert photograph.reduction(128) == 4
    small = photograph.pixels(4)
    assert small.shape == (128, 128, 3)
    mean = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - mean).mean() < 3


def test_only_a_whole_colour_jpeg_is_reduced() -> None:
    assert open_photograph(encoded(EYE)).reduction(40) == 4
    assert open_photograph(encoded(EYE, "PNG")).reduction(40) == 1
    assert open_photograph(encoded(EYE, "JPEG", "L")).reduction(40) == 1


def test_a_jpeg_with_zeros_behind_its_end_is_sound() -> None:
    pixels = open_photograph(encoded(EYE) + b"\0" * 200).pixels()
    assert pixels.shape == EYE.shape


def test_layers_paint_over_one_another(tmp_path: Path) -> None:
    disc, cup = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    disc[4:16, 4:16], cup[8:12, 8:12] = 255, 255
    for name, mask in (("disc", disc), ("cup", cup)):
        Image.fromarray(mask).resize((40, 40), Image.Resampling.NEAREST).save(tmp_path / f"{name}.png")
    classes = read_classes((Layer(tmp_path / "disc.png", {255: 1}), Layer(tmp_path / "cup.png", {255: 2})))
    assert classes.shape == (40, 40)
    assert (classes == 2).sum() == 64
    assert (classes == 1).sum() == 24 * 24 - 64


def test_layers_of_different_size_are_refused(tmp_path: Path) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    Image.new("L", (50, 40)).save(tmp_path / "b.png")
    with pytest.raises(UnusableImage, match="unusable map"):
        read_classes((Layer(tmp_path / "a.png", {255: 1}), Layer(tmp_path / "b.png", {255: 2})))
    with pytest.raises(UnusableImage, match="unusable map"):
        read_classes((Layer(tmp_path / "none.png", {255: 1}),))
