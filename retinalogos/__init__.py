"""RetinaLogos: from fundus photographs and clinical records to a text-to-fundus generator and its evidence."""

from typing import Any

__version__ = "0.1.0"

# diffusers writes the top-level package and the class name of each part of a pipeline into model_index.json
# and imports them from there when it loads the folder again.
_PIPELINE_PARTS = {
    "PatchAutoencoder": "retinalogos.generators.text.autoencoder",
    "TextConditioning": "retinalogos.generators.text.conditioning",
}


def __getattr__(name: str) -> Any:
    if name in _PIPELINE_PARTS:
        from importlib import import_module

        return getattr(import_module(_PIPELINE_PARTS[name]), name)
    raise AttributeError(f"module 'retinalogos' has no attribute {name!r}")
