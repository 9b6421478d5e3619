"""Pages: Jinja templates beside the code that fills them, escaped, in which a missing name is an error.

A page is one file: pictures and tables stand in it as data URIs.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

Item = TypeVar("Item")


def environment(*folders: Path) -> Environment:
    """For the templates of a folder; those that it builds on may lie in the next ones."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(kind: str, data: bytes) -> str:
    """A file of a media type as a data URI, its bytes as they are."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def jpeg_uri(image: np.ndarray, size: int | None = None, quality: int = 85) -> str:
    """An image as a data URI, at most ``size`` pixels wide; JPEG, without any metadata."""
    picture = Image.fromarray(image)
    if size is not None and picture.width > size:
        height = round(picture.height * size / picture.width)
        picture = picture.resize((size, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return data_uri("image/jpeg", buffer.getvalue())


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` of the items at even distances, or all of them where there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]
