"""RetinaLogos: text to colour fundus photograph."""

from retinalogos.generators.text.next_dit import NextDiT
from retinalogos.generators.text.pipeline import TextToFundusPipeline

__all__ = ["NextDiT", "TextToFundusPipeline"]
