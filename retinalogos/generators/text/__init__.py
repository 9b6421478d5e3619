"""RetinaLogos: text to colour fundus photograph."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinalogos.generators.text.next_dit import NextDiT
    from retinalogos.generators.text.pipeline import TextToFundusPipeline

__all__ = ["NextDiT", "TextToFundusPipeline"]
_MODULES = {"NextDiT": "next_dit", "TextToFundusPipeline": "pipeline"}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: diffusers takes seconds, and settings and figures of this package need none of it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
