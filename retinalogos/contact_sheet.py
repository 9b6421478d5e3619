"""Contact sheets: many pictures on one, each with its caption below it."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retinalogos.errors import UsageError

_PAPER = (250, 250, 248)
_INK = (40, 44, 52)
_MARGIN = 8  # pixels between the pictures
_LINES = 4  # a caption longer than this ends with three dots


def make_sheet(
    images: Sequence[np.ndarray], labels: Sequence[str] | None = None, columns: int | None = None, size: int = 160
) -> np.ndarray:
    """Draws pictures in rows, left to right, with their captions.

    Args:
        images: uint8 arrays, height × width × 3; they may differ in size and are scaled to fit.
        labels: one caption per picture, wrapped to its width and cut after four lines; None for no captions.
        columns: pictures in a row; None for about twice as many columns as rows.
        size: pixels of the side of the square that each picture gets.

    Returns:
        uint8 array, height × width × 3.

    Raises:
        UsageError: no picture, or as many captions as there are pictures are not given.
    """
    if not images:
        raise UsageError("a contact sheet needs at least one image")
    if labels is not None and len(labels) != len(images):
        raise UsageError(f"a contact sheet of {len(images)} images got {len(labels)} captions")
    columns = min(columns or math.ceil(math.sqrt(2 * len(images))), len(images))
    points = max(10, size // 14)
    font = ImageFont.load_default(points)
    line_height = math.ceil(points * 1.25)
    captions = [_wrap(label, font, size) for label in labels] if labels is not None else [[] for _ in images]
    lines = max(len(caption) for caption in captions)
    row_height = size + lines * line_height + _MARGIN
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (size + _MARGIN) + _MARGIN, rows * row_height + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (array, caption) in enumerate(zip(images, captions, strict=True)):
        x = _MARGIN + index % columns * (size + _MARGIN)
        y = _MARGIN + index // columns * row_height
        picture = _fit(Image.fromarray(array), size)
        sheet.paste(picture, (x + (size - picture.width) // 2, y + (size - picture.height) // 2))
        for line, text in enumerate(caption):
            pen.text((x, y + size + line * line_height), text, font=font, fill=_INK)
    return np.asarray(sheet)


def _fit(picture: Image.Image, size: int) -> Image.Image:
    scale = size / max(picture.size)
    shape = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if shape == picture.size:
        return picture
    return picture.resize(shape, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Lines no wider than ``width`` pixels, at most ``_LINES`` of them."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _LINES:
        lines = lines[:_LINES]
        lines[-1] += " ..."
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line.rstrip(' .')}...") > width:
        line = line[:-1]
    return f"{line.rstrip(' .')}..."
