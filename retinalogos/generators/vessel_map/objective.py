"""What each of the three models is shown and asked, as a loss that is a function of the step's number alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_unshuffle

from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map.configuration import DenoiserConfig, Part, TextConfig
from retinalogos.generators.vessel_map.detail import DetailPrior
from retinalogos.generators.vessel_map.diffusion import Process
from retinalogos.generators.vessel_map.examples import SIDES, Examples
from retinalogos.generators.vessel_map.maps import resize_map, to_channels, to_classes
from retinalogos.generators.vessel_map.networks import Denoiser, told_beside
from retinalogos.generators.vessel_map.prior import MOST_NUMBERS, PixelPrior
from retinalogos.metrics.vessels.skeleton import thin

# The validation loss is a mean over this many eyes at fixed times and noise, so that curves compare.
_VALIDATION_EYES = 64
# Width of the spot that marks disc or fovea, in shares of the side: about a disc's radius at 45 degrees.
_SPOT = 0.07
# Distance from a vessel's border at which the drawn signal ends, in shares of the side: more than half the widest
# vessel, and less than the space between the arcades' larger branches.
_REACH = 0.05
# Share of a centre line's distance at which a pixel beside it is of the middle too: of a true map it has all of it.
_AS_FAR = 0.9
# Examples from which the spread of what is missing in an enlarged picture is taken.
_SCALE_EYES = 64
# Pixels of the cuts that the enlarger's prior is fitted to, at most: with that many eyes some 100 MB.
_DETAIL_CUT = 256


def maps_as_signal(classes_nhw: np.ndarray) -> Tensor:
    """Maps of classes to n×2×h×w of −1 and 1, as they are given to the painter."""
    return torch.from_numpy(np.stack([to_channels(one) for one in classes_nhw])).float() * 2 - 1


def maps_as_distances(classes_nhw: np.ndarray, factor: int = 1) -> Tensor:
    """Maps of classes to n×2×h/factor×w/factor in [−1, 1], as they are drawn: distance to the vessel's border.

    Positive inside. A vessel of one pixel's width leaves a trace several pixels wide, so that it is drawn in one piece;
    where the signal is positive is the map again. Of maps finer than what is drawn it is the mean over factor×factor
    pixels, which tells of a vessel narrower than a coarse pixel where it runs and how wide it is.
    """
    reach = _REACH * classes_nhw.shape[1]
    distances = np.stack([[_distances(channel, reach) for channel in to_channels(one)] for one in classes_nhw])
    return shrunk(torch.from_numpy(distances), factor)


def distances_as_maps(signal_nchw: Tensor, factor: int = 1) -> np.ndarray:
    """Drawn distances, n×2×h×w, to maps of classes: discs about centre lines, as wide as the distance there says.

    Of a true map that is nearly the map again. Where the signal is positive would be it too, but a network draws the
    walls of a vessel flatter than its middle, so that it would come out too wide: what is measured is in the docs.
    Maps are ``factor`` times as fine as the signal.
    """
    fine = grown(signal_nchw.cpu(), factor) if factor > 1 else signal_nchw.cpu()
    # In the middle of a vessel distance has a ridge; the mean over a block lies lower by the mean way to its middle.
    ridge = np.abs(np.arange(factor) - (factor - 1) / 2).mean()
    pixels = _REACH * fine.shape[-1] * fine.numpy() + ridge
    return np.stack([to_classes(np.stack([_discs(kind) for kind in one])) for one in pixels])


def _discs(distances_hw: np.ndarray) -> np.ndarray:
    """Pixels within reach of a centre line pixel, and its neighbours that are as far inside as it."""
    line = thin(distances_hw > 0)
    radii = np.where(line, distances_hw, 0).astype(np.float32)
    # The middle of an even width is two pixels wide.
    beside = cv2.dilate(radii, np.ones((3, 3), np.uint8))
    most, found = int(radii.max(initial=0)), (beside > 0) & (distances_hw >= _AS_FAR * beside)
    padded = np.pad(radii, most)
    height, width = line.shape
    for y in range(-most, most + 1):
        for x in range(-most, most + 1):
            shifted = padded[most + y : most + y + height, most + x : most + x + width]
            found |= shifted > np.hypot(y, x)
    return found


def _distances(vessels_hw: np.ndarray, reach: float) -> np.ndarray:
    if not vessels_hw.any():
        return np.full(vessels_hw.shape, -1, np.float32)
    inside, outside = (
        cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for where in (vessels_hw, ~vessels_hw)
    )
    # To the border between pixels, not to the next pixel's centre.
    return np.clip(np.where(vessels_hw, inside - 0.5, 0.5 - outside) / reach, -1, 1).astype(np.float32)


def enlarged_maps(eyes: Examples, chosen: Sequence[int] | np.ndarray, size: int) -> Tensor:
    """Maps of some eyes as they are given to the enlarger, n×2×size×size; zero where the kinds are not known."""
    known = torch.from_numpy(np.asarray(eyes.known)[chosen]).float().view(-1, 1, 1, 1)
    return maps_as_signal(np.stack([resize_map(eyes.maps[i], size) for i in chosen])) * known


def maps_beside(classes_nhw: np.ndarray, size: int) -> Tensor:
    """Maps as they are given to the painter of pictures of ``size``: finer pixels are channels, n×(2·f²)×size×size.

    Args:
        classes_nhw: maps of classes, of a multiple f of the size.
        size: pixels.
    """
    return pixel_unshuffle(maps_as_signal(classes_nhw), classes_nhw.shape[1] // size)


def images_as_signal(images_nhwc: np.ndarray) -> Tensor:
    """uint8 n×h×w×3 to n×3×h×w in [−1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images_nhwc)).permute(0, 3, 1, 2).float() / 127.5 - 1


def images_as_bytes(signal_nchw: Tensor) -> np.ndarray:
    """[−1, 1] n×3×h×w to uint8 n×h×w×3."""
    return ((signal_nchw.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def spots(marks_n22: np.ndarray, size: int) -> Tensor:
    """Disc and fovea as two channels, n×2×size×size in [0, 1], a smooth spot each; zero where not known."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = marks_n22[..., 0, None, None], marks_n22[..., 1, None, None]
    squared = (axis - x) ** 2 + (axis[:, None] - y) ** 2
    return torch.from_numpy(np.nan_to_num(np.exp(-squared / (2 * _SPOT**2)))).float()


def shrunk(images_nchw: Tensor, factor: int) -> Tensor:
    """Mean over factor×factor pixels: what the painter makes of the scene that the enlarger is to show."""
    return nn.functional.avg_pool2d(images_nchw, factor)


def grown(images_nchw: Tensor, factor: int) -> Tensor:
    """Cubic enlargement, to which the enlarger adds what is missing."""
    return interpolate(images_nchw, scale_factor=factor, mode="bicubic", align_corners=False)


def new_denoiser(
    part: Part,
    config: DenoiserConfig,
    examples: Examples,
    factor: int,
    size: int,
    seed: int,
    text: TextConfig | None = None,
    captions: Tensor | None = None,
    most_noise: float = 0.0,
    map_factor: int = 1,
) -> Denoiser:
    """A network with seeded random weights for one of the three models; ``size`` is what it is trained on.

    Where there is to be a prior, it is fitted to the examples.

    Args:
        part: which model.
        config: of the network.
        examples: training eyes.
        factor: by which ``enlarge`` enlarges.
        size: pixels.
        seed: of the weights.
        text: of ``paint``: the captions that it is given.
        captions: their features, n×2×M×D, see :meth:`~.captions.CaptionFeatures.of_eyes`.
        most_noise: of ``enlarge``, see :class:`Denoising`.
        map_factor: likewise; of ``masks`` and ``paint`` that of the examples' maps.
    """
    torch.manual_seed(seed)
    shapes = {
        "masks": {"channels": 2, "condition_channels": 2, "labels": len(SIDES), "levels": False},
        "paint": {"channels": 3, "condition_channels": 2 * map_factor**2, "labels": 0, "levels": False},
        "enlarge": {"channels": 3, "condition_channels": 5 if map_factor else 3, "labels": 0, "levels": True},
    }
    scale = 1.0
    if part == "enlarge":
        some = images_as_signal(examples.images[:_SCALE_EYES])
        scale = round(1 / max(float((some - grown(shrunk(some, factor), factor)).std()), 1e-3), 3)
    prior: PixelPrior | DetailPrior | None = None
    shape = None
    if config.prior_components and part == "enlarge":
        given = bool(map_factor)
        prior, shape = _fit_detail(examples, config.prior_components, factor, scale, most_noise, given, seed)
    elif config.prior_components:
        labels = shapes[part]["labels"]
        prior, shape = _fit_prior(part, examples, config.prior_components, labels, captions, map_factor)
    model = Denoiser(
        part=part,
        size=size,
        conditioning=config.conditioning,
        scale=scale,
        unet=config.unet,
        diffusion=config.diffusion.model_dump(),
        sampling=config.sampling.model_dump(),
        prior_shape=shape,
        text=None if text is None else text.model_dump(),
        text_dim=0 if captions is None else captions.shape[-1],
        map_factor=map_factor,
        **shapes[part],
    )
    if prior is not None:
        model.prior = prior
    return model


def _fit_prior(
    part: Part, examples: Examples, components: int, labels: int, captions: Tensor | None, map_factor: int
) -> tuple[PixelPrior, dict[str, Any]]:
    """The prior of training eyes and of their mirror images, and its arguments."""
    channels, size = (2 if part == "masks" else 3), examples.images.shape[1]
    eyes = examples.take(np.arange(min(len(examples), MOST_NUMBERS // (2 * channels * size**2))))
    sides, marks = _turned(eyes.sides, eyes.marks, np.ones(len(eyes), bool))
    sides, marks = np.concatenate([eyes.sides, sides]), np.concatenate([eyes.marks, marks])
    maps = np.concatenate([eyes.maps, np.asarray(eyes.maps)[:, :, ::-1]])
    told = told_beside(torch.from_numpy(sides), labels, len(sides)) if labels else torch.zeros(len(sides), 0)
    told = told[None]
    if captions is not None:
        told = captions[: len(eyes)].permute(2, 1, 0, 3).flatten(1, 2)
    if part == "masks":
        data, condition = maps_as_distances(maps, map_factor), spots(marks, size)
    else:
        images = np.concatenate([eyes.images, np.asarray(eyes.images)[:, :, ::-1]])
        data, condition = images_as_signal(images), maps_beside(maps, size)
    eyes_n, kinds = [SIDES[side] for side in sides], 2
    return PixelPrior.fit(data, condition, told, eyes_n, components, kinds, part == "paint")


def _fit_detail(
    examples: Examples, classes: int, factor: int, scale: float, most_noise: float, with_map: bool, seed: int
) -> tuple[DetailPrior, dict[str, Any]]:
    """The prior of what enlargements lack, from a cut of each of some eyes, and its arguments."""
    draw, cuts, beside = np.random.default_rng([seed, 3]), [], []
    side = min(_DETAIL_CUT, examples.images.shape[1]) // factor * factor
    for number, image in enumerate(examples.images[:_SCALE_EYES]):
        y, x = draw.integers(0, image.shape[0] - side + 1, 2)
        cuts.append(image[y : y + side, x : x + side])
        beside.append(enlarged_maps(examples, [number], image.shape[0])[0, :, y : y + side, x : x + side])
    whole = images_as_signal(np.stack(cuts))
    small, generator = shrunk(whole, factor), torch.Generator().manual_seed(seed)

    def given(level: float) -> Tensor:
        noise = torch.randn(small.shape, generator=generator)
        noisy = grown(with_noise(small, torch.full((len(small),), level), noise), factor)
        return torch.cat([noisy, torch.stack(beside)], 1) if with_map else noisy

    # The filter reaches a pixel of the small picture each way, and one beyond.
    shape: dict[str, Any] = {
        "channels": 3,
        "condition_channels": 5 if with_map else 3,
        "side": 2 * factor + 3,
        "most_noise": most_noise,
        "classes": classes,
    }
    missing = (whole - grown(small, factor)) * scale
    return DetailPrior.fit(shape, missing, [given(level) for level in DetailPrior.levels(most_noise)]), shape


def _turned(sides: np.ndarray, marks: np.ndarray, mirrored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sides and marks of eyes of which some are mirrored: mirrored left eyes are right eyes."""
    sides, marks = sides.copy(), marks.copy()
    marks[mirrored, :, 0] = 1 - marks[mirrored, :, 0]
    swapped = mirrored & (sides > 0)
    sides[swapped] = len(SIDES) - sides[swapped]
    return sides, marks


@dataclass
class Denoising:
    """Mean squared error of what the network tells of a noisy picture; with a prior, as a multiple of the prior's own.

    Each part draws something for something: ``masks`` draws two channels of vessels for spots on disc and fovea and the
    label of the side; ``paint`` a photograph for vessels; ``enlarge`` what a cubic enlargement lacks, divided by its
    spread (Li et al., arXiv 2104.14951, on residuals), for that enlargement with noise of a known level (Ho et al.,
    arXiv 2106.15282), so that it takes the painter's faults as well as real pictures, and for the map.

    Eyes are mirrored by lot, sides and marks with them; mirrored left eyes are right eyes.

    Args:
        part: which model.
        train, validation: eyes; the validation loss is measured on training eyes where there are no others.
        config: of the model.
        batch_size: eyes of a step.
        seed: of order, mirrors, times and noise.
        factor: by which ``enlarge`` enlarges.
        crop: pixels of the side of the cut that ``enlarge`` learns from; None: whole pictures.
        most_noise: largest level of noise on the condition of ``enlarge``.
        scale: of the network, see :class:`~.networks.Denoiser`.
        map_factor: pixels of a map along one of the painter's; of ``enlarge``: 0 where it is given no map.
        captions: of ``paint``: features of the captions of training and of validation eyes, each n×2×M×D, see
            :meth:`~.captions.CaptionFeatures.of_eyes`.

    Raises:
        UsageError: no eye to learn from, or a crop that does not fit.
    """

    part: Part
    train: Examples
    validation: Examples
    config: DenoiserConfig
    batch_size: int
    seed: int
    factor: int = 1
    crop: int | None = None
    most_noise: float = 0.0
    scale: float = 1.0
    map_factor: int = 1
    captions: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        if not len(self.train):
            raise UsageError(
                f"{self.part}: no training eye has a vessel map that tells arteries from veins; label the cohort first "
                "(step label_vessels)"
            )
        size = self.train.images.shape[1]
        if self.crop is not None and (self.crop > size or self.crop % self.factor):
            raise UsageError(
                f"enlarge.crop {self.crop} should be a multiple of {self.factor} and no more than {size} pixels"
            )
        self._process = Process(self.config.diffusion)

    @cached_property
    def _judged(self) -> tuple[Examples, np.ndarray]:
        eyes = self.validation if len(self.validation) else self.train
        return eyes, np.arange(len(eyes))[:: max(1, len(eyes) // _VALIDATION_EYES)][:_VALIDATION_EYES]

    def __call__(self, model: nn.Module, step: int | None, rows: slice = slice(None)) -> Tensor:
        """Loss over ``rows`` of a training step's batch, or of the fixed validation batch where ``step`` is None."""
        where = next(model.parameters()).device
        drawn = self.batch(step)
        data, noise, t = (drawn[name][rows] for name in ("data", "noise", "times"))
        condition, joined = drawn["condition"][rows], drawn["joined"]
        noisy, target = self._process.noisy(data, noise, t), self._process.target(data, noise, t)
        given = None if joined is None else joined[rows].to(where)
        told, expected = model(noisy.to(where), t.to(where), condition.to(where), given, relative=True)
        return ((told.float() - target.to(where)).square().mean((1, 2, 3)) / expected).mean()

    def batch(self, step: int | None) -> dict[str, Any]:
        """What a step shows: ``data``, ``noise``, ``condition`` (B×C×H×W), ``times`` and ``joined`` (B), ``image_ids``.

        ``joined`` is the label, the level or the features of a caption, None for ``paint`` without captions.
        """
        draw = np.random.default_rng([self.seed, 0 if step is None else 1 + step])
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        eyes, chosen = self._judged if step is None else (self.train, self._eyes(step))
        mirrored = (draw.random(len(chosen)) < 0.5) if step is not None else np.zeros(len(chosen), bool)
        # Of the condition, and of what joins the time: now and then a caption goes without its map, a map without it.
        kept = torch.ones(2, len(chosen))
        if step is not None:
            kept = (torch.rand(2, len(chosen), generator=generator) >= self.config.condition_dropout).float()
        data, condition, joined = getattr(self, f"_{self.part}")(eyes, chosen, mirrored, kept, draw, generator)
        return {
            "image_ids": [eyes.ids[i] for i in chosen],
            "data": data,
            "condition": condition,
            "joined": joined,
            "times": self._process.times(len(chosen), generator),
            "noise": torch.randn(data.shape, generator=generator),
        }

    def _eyes(self, step: int) -> np.ndarray:
        """The step's eyes: consecutive pieces of one shuffled epoch after another."""
        chosen = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, len(self.train))
            chosen.append(int(_order(len(self.train), self.seed, epoch)[place]))
        return np.array(chosen)

    def _masks(
        self, eyes: Examples, chosen: np.ndarray, mirrored: np.ndarray, kept: Tensor, _: Any, __: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        data = maps_as_distances(_mirrored(eyes.maps[chosen], mirrored), self.map_factor)
        sides, marks = _turned(eyes.sides[chosen], eyes.marks[chosen], mirrored)
        condition = spots(marks, data.shape[-1]) * kept[0].view(-1, 1, 1, 1)
        return data, condition, torch.from_numpy(sides) * kept[1].long()

    def _paint(
        self, eyes: Examples, chosen: np.ndarray, mirrored: np.ndarray, kept: Tensor, draw: np.random.Generator, _: Any
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        data = images_as_signal(_mirrored(eyes.images[chosen], mirrored))
        maps = _mirrored(eyes.maps[chosen], mirrored)
        condition = maps_beside(maps, data.shape[-1]) * kept[0].view(-1, 1, 1, 1)
        if self.captions is None:
            return data, condition, None
        captions = self.captions[0 if eyes is self.train else 1]
        wordings = draw.integers(captions.shape[2], size=len(chosen))
        told = captions[torch.from_numpy(chosen), torch.from_numpy(mirrored).long(), torch.from_numpy(wordings)]
        return data, condition, told * kept[1][:, None]

    def _enlarge(
        self,
        eyes: Examples,
        chosen: np.ndarray,
        mirrored: np.ndarray,
        kept: Tensor,
        draw: np.random.Generator,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        whole = images_as_signal(_mirrored(eyes.images[chosen], mirrored))
        small = shrunk(whole, self.factor)
        levels = torch.rand(len(chosen), generator=generator) * self.most_noise
        noisy = with_noise(small, levels, torch.randn(small.shape, generator=generator))
        data = (whole - grown(small, self.factor)) * self.scale
        condition = grown(noisy, self.factor) * kept[0].view(-1, 1, 1, 1)
        if self.map_factor:
            beside = enlarged_maps(eyes, chosen, whole.shape[-1])
            beside[mirrored] = beside[mirrored].flip(3)
            condition = torch.cat([condition, beside * kept[1].view(-1, 1, 1, 1)], 1)
        if self.crop is not None:
            corners = draw.integers(0, whole.shape[-1] - self.crop + 1, (len(chosen), 2))
            data, condition = (
                torch.stack(
                    [one[:, y : y + self.crop, x : x + self.crop] for one, (y, x) in zip(batch, corners, strict=True)]
                )
                for batch in (data, condition)
            )
        return data, condition, levels


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 1]).permutation(n)


def with_noise(images_nchw: Tensor, levels_n: Tensor, noise_nchw: Tensor) -> Tensor:
    """Noise of variance level², the picture scaled so that its own variance shrinks by as much."""
    level = levels_n.view(-1, 1, 1, 1)
    return (1 - level.square()).sqrt() * images_nchw + level * noise_nchw


def _mirrored(arrays: np.ndarray, mirrored_n: np.ndarray) -> np.ndarray:
    return np.stack(
        [cv2.flip(one, 1) if flip else one for one, flip in zip(np.asarray(arrays), mirrored_n, strict=True)]
    )
