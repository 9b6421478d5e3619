"""The three models one after another: a vessel map, the photograph for it, and its enlargement."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, get_args

import numpy as np
import torch

from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.captions import CaptionFeatures
from retinalogos.generators.vessel_map.configuration import Part, SamplerConfig, TextConfig
from retinalogos.generators.vessel_map.diffusion import draw, starting_noise
from retinalogos.generators.vessel_map.maps import resize_map
from retinalogos.generators.vessel_map.networks import Denoiser
from retinalogos.generators.vessel_map.objective import (
    distances_as_maps,
    grown,
    images_as_bytes,
    images_as_signal,
    maps_as_signal,
    maps_beside,
    spots,
    with_noise,
)
from retinalogos.generators.vessel_map.tiles import in_tiles, seam
from retinalogos.lineage import MANIFEST
from retinalogos.registry import INDEX
from retinalogos.training.device import device

PARTS: tuple[Part, ...] = get_args(Part)
# Each part's noise is its own, whatever the seed of a picture.
_STRIDE = 3
# Level of noise on what is enlarged, unless said otherwise; as draw_vessels.noise.
NOISE = 0.01
# Photographs of the prior alone drawn at a time: bounds memory.
_BATCH = 16


@dataclass(frozen=True)
class Wish:
    """What is asked of one eye.

    Attributes:
        seed: of all noise.
        side: index into SIDES; 0 leaves it open.
        marks: disc and fovea, 2×2: column and row in shares of the side; nan leaves one open.
        caption: what the photograph shows beside its vessels; None leaves it open.
        diameter: height of the disc in shares of the side, which nothing is asked by: about it arcades are measured.
    """

    seed: int
    side: int
    marks: np.ndarray
    caption: str | None = None
    diameter: float = float("nan")


@dataclass(frozen=True)
class Drawn:
    """One eye: map of classes h×w, photograph h×w×3 of the same size, and its enlargement; uint8."""

    classes: np.ndarray
    image: np.ndarray
    enlarged: np.ndarray


@dataclass
class VesselMapCascade:
    """The trained models, in evaluation mode.

    Args:
        parts: networks by part; one that is missing is refused when it is needed.
        factor: by which ``enlarge`` enlarges.
        noise: level of noise on what is enlarged.
        tile: side of the tiles in which larger pictures are enlarged, pixels.
        overlap: of neighbouring tiles, pixels.
        sampling: how a part draws, where not as it was trained to.
    """

    parts: dict[str, Denoiser]
    factor: int
    noise: float
    tile: int
    overlap: int
    sampling: dict[str, SamplerConfig]
    _encoder: CaptionFeatures | None = None

    @classmethod
    def load(
        cls,
        folders: dict[str, Path],
        noise: float,
        tile: int,
        overlap: int,
        sampling: dict[str, SamplerConfig] | None = None,
    ) -> Self:
        """Loads folders that training wrote, by part.

        Raises:
            UsageError: a folder holds no such network.
        """
        parts = {part: load_part(folder, part) for part, folder in folders.items()}
        sizes = {part: model.config.size for part, model in parts.items()}
        factor = sizes["enlarge"] // sizes["paint"] if {"enlarge", "paint"} <= sizes.keys() else 1
        if len({sizes[part] for part in ("masks", "paint") if part in sizes}) > 1:
            raise UsageError(f"maps of {sizes['masks']} pixels and a painter of {sizes['paint']} do not go together")
        return cls(parts, factor, noise, tile, overlap, sampling or {})

    @classmethod
    def load_whole(cls, folders: dict[str, Path], noise: float = NOISE) -> Self:
        """Loads all that draws, with tiles of the size that the enlarger knows, neighbours sharing a fourth.

        Raises:
            UsageError: as :meth:`load`.
        """
        cascade = cls.load(folders, noise, tile=1, overlap=0)
        cascade.tile = cascade.parts["enlarge"].config.size
        cascade.overlap = cascade.tile // 4
        return cascade

    def draw_maps(self, wishes: Sequence[Wish]) -> np.ndarray:
        """Maps of classes, uint8 n×h×h, as fine as the model draws them."""
        model = self._part("masks")
        size = model.config.size
        start = starting_noise([_STRIDE * wish.seed for wish in wishes], 2, size, size)
        marks = spots(np.stack([wish.marks for wish in wishes]).astype(np.float32), size)
        sides = torch.tensor([wish.side for wish in wishes])
        signal = draw(model, start, marks, sides, self.sampling.get("masks"))
        return distances_as_maps(signal, model.config.map_factor)

    def paint(
        self, classes_nhw: np.ndarray, seeds: Sequence[int], captions: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """Photographs for maps, uint8 n×size×size×3.

        Args:
            classes_nhw: maps of classes, of any size.
            seeds: of the noise.
            captions: of each photograph, where the painter was trained with captions; None leaves one open.

        Raises:
            UsageError: captions for a painter that knows none.
        """
        model = self._part("paint")
        size, fine = model.config.size, model.config.size * model.config.map_factor
        start = starting_noise([_STRIDE * seed + 1 for seed in seeds], 3, size, size)
        told = self._told(model, captions or [None] * len(seeds))
        maps = maps_beside(np.stack([resize_map(classes, fine) for classes in classes_nhw]), size)
        return images_as_bytes(draw(model, start, maps, told, self.sampling.get("paint")))

    @property
    def text(self) -> TextConfig | None:
        """The captions that the painter was trained with; None where there were none."""
        known = self._part("paint").config.text
        return None if known is None else TextConfig.model_validate(known)

    def _told(self, model: Denoiser, captions: Sequence[str | None]) -> torch.Tensor | None:
        if self.text is None:
            if any(captions):
                raise UsageError(
                    "this painter was trained without captions; train it with train_vessel_paint.text, or ask for none"
                )
            return None
        if self._encoder is None:
            self._encoder = CaptionFeatures.load(self.text, model.text_mean, model.text_std)
        known = [caption for caption in captions if caption]
        features = iter(self._encoder(known))
        nothing = torch.zeros(model.config.text_dim)
        return torch.stack([next(features) if caption else nothing for caption in captions])

    def enlarge(self, images_nhwc: np.ndarray, seeds: Sequence[int], classes_nhw: np.ndarray) -> np.ndarray:
        """Pictures enlarged by the factor, uint8; larger ones than a tile in overlapping tiles.

        Args:
            images_nhwc: photographs, uint8.
            seeds: of the noise.
            classes_nhw: maps of classes, of any size: an enlarger that is given the map draws their vessels.
        """
        model = self._part("enlarge")
        small = images_as_signal(images_nhwc)
        height, width = (self.factor * side for side in small.shape[-2:])
        # On the CPU, and each picture's own: the same on every device and in every batch.
        extra = starting_noise([-_STRIDE * seed - 1 for seed in seeds], 3, *small.shape[-2:])
        levels = torch.full((len(small),), self.noise)
        condition = grown(with_noise(small, levels, extra), self.factor)
        if model.config.map_factor:
            beside = maps_as_signal(np.stack([resize_map(classes, height) for classes in classes_nhw]))
            condition = torch.cat([condition, beside], 1)
        start = starting_noise([_STRIDE * seed + 2 for seed in seeds], 3, height, width)
        through = in_tiles(self.tile, self.overlap) if max(height, width) > self.tile else None
        missing = draw(model, start, condition, levels, self.sampling.get("enlarge"), through).cpu()
        return images_as_bytes(grown(small, self.factor) + missing / model.config.scale)

    def seams(self, images_nhwc: np.ndarray, seeds: Sequence[int], classes_nhw: np.ndarray) -> dict[str, float]:
        """Steps across the edges of tiles over steps elsewhere (:func:`~.tiles.seam`) in pictures enlarged in tiles.

        ``blended``: as pictures larger than a tile are drawn; ``abutting``: the same without overlap; ``whole``: at the
        edges of ``blended``, but drawn in one piece: what is there without any seam. Where a picture is no larger than
        a tile, tiles are half as large as it; where it is larger, nothing is drawn whole, for which memory may lack.

        Args:
            images_nhwc: pictures to enlarge, uint8.
            seeds: of each.
            classes_nhw: their maps, see :meth:`enlarge`.
        """
        side = self.factor * images_nhwc.shape[1]
        tile = min(self.tile, side // 2)
        overlap = min(self.overlap, tile // 2)
        ways = {"blended": (tile, overlap), "abutting": (tile, 0)} | ({"whole": (side, 0)} if side <= self.tile else {})
        found = {}
        for name, (drawn_tile, drawn_overlap) in ways.items():
            pictures = replace(self, tile=drawn_tile, overlap=drawn_overlap).enlarge(images_nhwc, seeds, classes_nhw)
            grid = (tile, 0) if name == "abutting" else (tile, overlap)
            found[name] = float(np.mean([seam(picture, *grid) for picture in pictures]))
        return found

    def stream(self, wishes: Sequence[Wish], batch_size: int) -> Iterator[tuple[Wish, Drawn]]:
        """Eyes as they are drawn, a batch in memory at a time."""
        for start in range(0, len(wishes), batch_size):
            batch = wishes[start : start + batch_size]
            seeds = [wish.seed for wish in batch]
            maps = self.draw_maps(batch)
            images = self.paint(maps, seeds, [wish.caption for wish in batch])
            for wish, *pictures in zip(batch, maps, images, self.enlarge(images, seeds, maps), strict=True):
                yield wish, Drawn(*pictures)

    def _part(self, part: str) -> Denoiser:
        if part not in self.parts:
            raise UsageError(f"this needs the model {part!r}; given are {', '.join(self.parts) or 'none'}")
        return self.parts[part]


def bundle(folders: dict[str, Path], folder: Path) -> None:
    """Writes the models of all parts as one folder, the generator, with an index in diffusers' manner."""
    folder.mkdir(parents=True)
    sizes, captions = {}, False
    for part, source in folders.items():
        config = Denoiser.load_config(str(source))
        sizes[part], captions = config["size"], captions or bool(config.get("text"))
        shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns(MANIFEST))
    index = {"_class_name": VesselMapCascade.__name__, "sizes": sizes, "captions": captions}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def unbundled(folder: Path, parts: Sequence[str] = PARTS) -> dict[str, Path]:
    """Folders of the parts in a folder that :func:`bundle` wrote.

    Raises:
        UsageError: one is missing.
    """
    folders = {part: folder / part for part in parts}
    for part, path in folders.items():
        if not path.is_dir():
            raise UsageError(
                f"{path} is missing: the model {part!r}; the step draw_vessels writes a folder with all of them"
            )
    return folders


def painted_by_prior(model: Denoiser, classes_nhw: np.ndarray) -> np.ndarray | None:
    """Photographs that the painter's prior alone draws for maps, uint8 n×size×size×3; None without a prior.

    What a closed form reaches, without the network.
    """
    if model.prior is None:
        return None
    alone = SamplerConfig(**model.config.sampling).model_copy(update={"autoguidance": 0.0})
    cascade = VesselMapCascade({"paint": model}, 1, 0.0, model.config.size, 0, {"paint": alone})
    seeds = range(len(classes_nhw))
    batches = [slice(start, start + _BATCH) for start in range(0, len(seeds), _BATCH)]
    return np.concatenate([cascade.paint(classes_nhw[batch], list(seeds[batch])) for batch in batches])


def load_part(folder: Path, part: str) -> Denoiser:
    """The trained network of one part, in evaluation mode on the accelerator where there is one.

    Raises:
        UsageError: the folder holds none, or that of another part.
    """
    try:
        model = Denoiser.from_pretrained(str(folder))
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{folder} holds no model of vessel maps ({str(error).splitlines()[0]})") from None
    if model.config.part != part:
        raise UsageError(f"{folder} holds the model {model.config.part!r}, not {part!r}")
    # Channels last: what convolutions of a CPU are fastest in.
    return model.eval().requires_grad_(False).to(device(), memory_format=torch.channels_last)
