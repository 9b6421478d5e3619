"""RetinaLogos: text to colour fundus photograph."""

from retinalogos.generators.text.pipeline import TextToFundusPipeline

__all__ = ["TextToFundusPipeline"]
