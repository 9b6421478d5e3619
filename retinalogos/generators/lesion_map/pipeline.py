"""The trained networks of lesion maps as one object: it draws maps by grade and turns maps into photographs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from retinalogos.errors import UsageError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import LayoutConfig, RenderConfig
from retinalogos.generators.lesion_map.layout import LayoutGenerator
from retinalogos.generators.lesion_map.render import RenderGenerator
from retinalogos.generators.lesion_map.render_training import tensors, to_images
from retinalogos.registry import INDEX

LAYOUT, RENDER = "layout", "render"
# Stands in place of a layout network that could not be trained.
_NO_LAYOUT = "no_layout.json"
# Maps or pictures drawn at once: bounds memory.
BATCH = 32
# What is drawn beside a picture's seed must not be the same numbers again.
_STYLE_SEED = 2**32

C = TypeVar("C", bound=BaseModel)
N = TypeVar("N", bound=nn.Module)


def save_network(network: nn.Module, config: BaseModel, folder: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")


def _read(folder: Path, config: type[C], what: str) -> tuple[C, dict[str, torch.Tensor]]:
    try:
        told = config.model_validate_json((folder / "config.json").read_text())
        return told, load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} holds no {what} network ({Path(error.filename or folder).name} is missing)"
        ) from None
    except (ValidationError, SafetensorError, ValueError) as error:
        raise UsageError(f"{folder} is damaged, or no {what} network: {str(error).splitlines()[0]}") from None


def _filled(network: N, weights: dict[str, torch.Tensor], folder: Path) -> N:
    try:
        network.load_state_dict(weights)
    except RuntimeError:
        raise UsageError(
            f"{folder} is damaged, or of another version: its weights are not those of its config.json; train it again"
        ) from None
    return network.eval().requires_grad_(False)


def save_no_layout(folder: Path) -> None:
    """Says that maps cannot be drawn by grade."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _NO_LAYOUT).write_text('{"reason": "too few training eyes have a grade and a map"}\n')


def load_layout(folder: Path | str) -> LayoutGenerator | None:
    """A layout network that :func:`save_network` wrote, in evaluation mode; None of :func:`save_no_layout`.

    Raises:
        UsageError: the folder holds neither.
    """
    if (Path(folder) / _NO_LAYOUT).is_file():
        return None
    config, weights = _read(Path(folder), LayoutConfig, LAYOUT)
    return _filled(LayoutGenerator(config), weights, Path(folder))


def load_render(folder: Path | str) -> RenderGenerator:
    """A renderer that :func:`save_network` wrote; in evaluation mode.

    Raises:
        UsageError: the folder holds none.
    """
    config, weights = _read(Path(folder), RenderConfig, RENDER)
    return _filled(RenderGenerator(config), weights, Path(folder))


class LesionMapPipeline:
    """Grade to lesion map to photograph.

    Args:
        layout: draws maps; None where the cohort has too few grades, so that maps can be rendered alone.
        render: turns maps into photographs; at its size maps of another size are scaled without smoothing.
    """

    def __init__(self, layout: LayoutGenerator | None, render: RenderGenerator):
        self.layout, self.render_network = layout, render

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Loads a folder with the sub-folders ``layout`` and ``render``.

        Raises:
            UsageError: one of them is missing or damaged.
        """
        return cls(load_layout(Path(folder) / LAYOUT), load_render(Path(folder) / RENDER))

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes a folder with the sub-folders ``layout`` and ``render`` and ``model_index.json``, which names them."""
        if self.layout is None:
            save_no_layout(Path(folder) / LAYOUT)
        else:
            save_network(self.layout, self.layout.config, Path(folder) / LAYOUT)
        save_network(self.render_network, self.render_network.config, Path(folder) / RENDER)
        parts = {part: ["retinalogos", type(network).__name__] for part, network in self._networks.items()}
        index = {"_class_name": type(self).__name__, "size": self.size, **parts}
        (Path(folder) / INDEX).write_text(json.dumps(index, indent=2) + "\n")

    @property
    def _networks(self) -> dict[str, nn.Module]:
        drawing: dict[str, nn.Module] = {} if self.layout is None else {LAYOUT: self.layout}
        return {**drawing, RENDER: self.render_network}

    def to(self, where: torch.device | str) -> Self:
        """Moves the networks."""
        for network in self._networks.values():
            network.to(where)
        return self

    @property
    def size(self) -> int:
        """Side of the photographs in pixels."""
        return self.render_network.config.size

    def draw(self, grades: Sequence[int], seeds: Sequence[int], truncation: float = 1.0) -> np.ndarray:
        """Lesion maps; a map depends on its grade and seed, not on its batch.

        Args:
            grades: ICDR 0-4, one for each map.
            seeds: one for each map, not negative.
            truncation: share of the way from the grade's mean style to the drawn one; 1 for none.

        Returns:
            uint8 classes, n×size×size, repaired (:func:`maps.repair`) and of the size of the photographs.

        Raises:
            UsageError: a grade is none of 0-4, there are not as many seeds as grades, or no layout network.
        """
        if self.layout is None:
            raise UsageError(
                "this generator has no layout network, for its cohort has too few grades: "
                "draw a map and use `retinalogos lesion-map render`"
            )
        for grade in grades:
            if grade not in range(maps.GRADES):
                raise UsageError(f"grade {grade} is no ICDR grade: choose one of 0 to {maps.GRADES - 1}")
        if len(grades) != len(seeds):
            raise UsageError(f"{len(grades)} grades but {len(seeds)} seeds: give one for each map")
        drawn = []
        for rows in _batches(len(grades)):
            found = self.layout.draw([int(g) for g in grades[rows]], [int(s) for s in seeds[rows]], truncation)
            drawn += [maps.repair(scaled(each, self.size)) for each in found.argmax(1).cpu().numpy().astype(np.uint8)]
        return np.stack(drawn)

    @torch.inference_mode()
    def render(
        self,
        classes: np.ndarray,
        seeds: Sequence[int] | None = None,
        styles: torch.Tensor | None = None,
        spread: float = 1.0,
    ) -> np.ndarray:
        """Photographs of maps.

        Args:
            classes: uint8, n×size×size.
            seeds: of the styles, one for each map; or
            styles: n×latent, see :meth:`style_of`.
            spread: of drawn styles, as a factor on that of the training photographs'.

        Returns:
            uint8, n×size×size×3.

        Raises:
            UsageError: maps of another size, or neither or both of seeds and styles.
        """
        if classes.shape[1:] != (self.size, self.size):
            raise UsageError(f"maps of shape {classes.shape[1:]}: this renderer takes {self.size} × {self.size} pixels")
        if (seeds is None) == (styles is None):
            raise UsageError("photographs need either seeds or styles")
        if styles is None:
            assert seeds is not None
            styles = self.styles(seeds, spread)
        where = self.render_network.style_mean.device
        drawn = []
        for rows in _batches(len(classes)):
            blank = torch.zeros(1, 1, 1, 3, dtype=torch.uint8)
            maps_bchw, _ = tensors(torch.from_numpy(classes[rows]), blank, where)
            drawn.append(to_images(self.render_network(maps_bchw, styles[rows].to(where))))
        return np.concatenate(drawn)

    def styles(self, seeds: Sequence[int], spread: float = 1.0) -> torch.Tensor:
        """Styles n×latent drawn from seeds, spread as those of the training photographs times ``spread``."""
        generators = [torch.Generator().manual_seed(_STYLE_SEED + int(seed)) for seed in seeds]
        return self.render_network.sample_styles(generators, spread)

    @torch.inference_mode()
    def style_of(self, images: np.ndarray) -> torch.Tensor:
        """Styles n×latent of photographs, uint8 n×size×size×3."""
        where = self.render_network.style_mean.device
        _, images_bchw = tensors(torch.zeros(1, 1, 1, dtype=torch.uint8), torch.tensor(images), where)
        mean, _ = self.render_network.encode(images_bchw)
        return mean

    def edit(
        self, image: np.ndarray, before: np.ndarray, after: np.ndarray, style: torch.Tensor, margin: float
    ) -> np.ndarray:
        """Re-renders a picture whose map was changed; farther than ``margin`` from the change it stays bit for bit.

        Args:
            image: what was rendered from ``before``, uint8 size×size×3.
            before: uint8 classes, size×size.
            after: the edited map.
            style: of the picture, 1×latent.
            margin: pixels over which the new picture passes into the old one.

        Returns:
            uint8, size×size×3.
        """
        changed = before != after
        if not changed.any():
            return image.copy()
        away = cv2.distanceTransform((~changed).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        share = np.clip(1 - away / margin, 0, 1)[..., None] if margin else changed[..., None].astype(float)
        drawn = self.render(after[None], styles=style)[0]
        return np.rint(image + share * (drawn.astype(float) - image)).astype(np.uint8)


def scaled(classes: np.ndarray, size: int) -> np.ndarray:
    """Classes h×h at another size, without smoothing."""
    return classes if classes.shape[0] == size else cv2.resize(classes, (size, size), interpolation=cv2.INTER_NEAREST)


def _batches(n: int) -> Iterator[slice]:
    for start in range(0, n, BATCH):
        yield slice(start, start + BATCH)
