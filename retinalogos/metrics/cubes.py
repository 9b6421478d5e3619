"""Sets of hyperspectral cubes compared: each figure with an interval, and with what real cubes score against real ones.

The reference is the training split; the floor compares it with real cubes that were not in training, in the place of
the synthetic ones and as many. All functions take uint16 cubes, n × bands × size × size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from retinalogos.cohort.cubes import FULL_SCALE
from retinalogos.metrics.diversity import WINDOW, disjoint_pairs, scale_weights
from retinalogos.metrics.intervals import Estimate, bootstrap, centred_bootstrap, undefined
from retinalogos.metrics.memorisation import authentic, nearest
from retinalogos.metrics.realism import frechet_with_interval
from retinalogos.metrics.spectral import (
    band_correlation,
    band_edges,
    band_histogram,
    correlation_difference,
    spectral_angle,
    spectral_divergence_with_interval,
)
from retinalogos.phantom.spectra import saturation

# Bands from which saturation is told: haemoglobin differs most there, and light of longer waves comes from below the
# vessel. Without the Soret band, where a vessel narrower than a pixel misleads most.
_OXIMETRY_NM = (475.0, 690.0)
# Width, in pixels, of the surroundings that a vessel is compared with.
_BESIDE = 1.5
# Share of free pixels in the surroundings without which a vessel pixel has nothing to be compared with.
_FREE = 0.1
# Pixels of a cube whose spectra are looked at, and fewest of a structure for its spectrum to count.
_PIXELS, _FEWEST = 2048, 4
_BATCH = 16


class CubeFeatures(Protocol):
    """Maps uint16 cubes to features, n × d."""

    name: str

    def features(self, values: np.ndarray) -> np.ndarray:
        """Features, n × d."""


class RandomCubeFeatures:
    """Seeded random convolutions on all bands: mean and standard deviation of every channel at every scale.

    The cube version of :class:`~retinalogos.metrics.features.RandomConv`. Bands are scaled by their means over the
    reference, and the root of reflectance is taken.

    Args:
        reference: real cubes.
        seed: of the weights.
        channels: filters per scale; d = 8 · channels.
    """

    name = "random_conv"

    def __init__(self, reference: np.ndarray, seed: int, channels: int = 32):
        draw = torch.Generator().manual_seed(seed)
        self._scale = reference.mean((0, 2, 3)).clip(1)[:, None, None]
        self._layers = []
        for width in (reference.shape[1], channels, channels, channels):
            layer = nn.Conv2d(width, channels, 3, stride=2, padding=1, bias=False)
            nn.init.kaiming_normal_(layer.weight, generator=draw)
            self._layers.append(layer)

    @torch.no_grad()
    def features(self, values: np.ndarray) -> np.ndarray:
        """Channel statistics, n × 8·channels."""
        parts = []
        for start in range(0, len(values), _BATCH):
            x = torch.from_numpy(np.sqrt(values[start : start + _BATCH] / self._scale).astype(np.float32)) - 1
            statistics = []
            for layer in self._layers:
                x = torch.relu(layer(x))
                statistics += [x.mean((2, 3)), x.std((2, 3), correction=0)]
            parts.append(torch.cat(statistics, 1).numpy())
        return np.concatenate(parts)


@dataclass(frozen=True)
class Compared:
    """A figure of the synthetic cubes, and the same of real cubes that were not in training."""

    synthetic: Estimate
    floor: Estimate


@dataclass(frozen=True)
class CubeSets:
    """The three sets that are compared, and the class of each of their pixels (n × size × size) where it is known."""

    reference: np.ndarray
    held_out: np.ndarray
    synthetic: np.ndarray
    wavelengths: Sequence[float]
    resamples: int
    seed: int
    reference_classes: np.ndarray | None = None
    held_out_classes: np.ndarray | None = None
    synthetic_classes: np.ndarray | None = None

    def frechet(self, space: CubeFeatures) -> Compared:
        """Hyperspectral FID: the Fréchet distance of features of all bands."""
        real, held, drawn = (space.features(x) for x in (self.reference, self.held_out, self.synthetic))
        return Compared(*(frechet_with_interval(real, other, self.resamples, self.seed) for other in (drawn, held)))

    def similarity(self, pairs: int) -> Compared:
        """|mean MS-SSIM of pairs of held-out cubes − that of synthetic ones|; for the floor of training ones."""
        values = [ms_ssim_pairs(x, pairs, self.seed) for x in (self.held_out, self.synthetic, self.reference)]
        held, drawn, trained = values

        def gap(one: np.ndarray, other: np.ndarray) -> float:
            return abs(float(one.mean()) - float(other.mean()))

        return Compared(
            *(
                centred_bootstrap(gap, held, other, resamples=self.resamples, seed=self.seed)
                if len(held) and len(other)
                else undefined()
                for other in (drawn, trained)
            )
        )

    def authenticity(self, side: int) -> Compared:
        """Share of cubes that are no nearer to a training cube than its own nearest: Alaa et al., ICML 2022."""
        real, held, drawn = (descriptor(x, side) for x in (self.reference, self.held_out, self.synthetic))
        among = nearest(real, real, 2, exclude_self=True).distance
        shares = [authentic(nearest(x, real, 2), among).astype(float) for x in (drawn, held)]
        return Compared(*(bootstrap(np.mean, x, resamples=self.resamples, seed=self.seed) for x in shares))

    def divergence(self, structure: int, bins: int) -> Compared:
        """Spectral Kullback-Leibler divergence of one structure's pixels."""
        return self._of_spectra(structure, lambda sets: self._divergence(sets, bins))

    def angle(self, structure: int) -> Compared:
        """Spectral angle, radians, between mean spectra of one structure."""

        def between(one: np.ndarray, other: np.ndarray) -> float:
            return float(spectral_angle(one.mean(0), other.mean(0)))

        def compare(sets: list[list[np.ndarray]]) -> Compared:
            real, held, drawn = (np.stack([spectra.mean(0) for spectra in cubes]) for cubes in sets)
            return Compared(
                *(
                    centred_bootstrap(between, real, other, resamples=self.resamples, seed=self.seed)
                    for other in (drawn, held)
                )
            )

        return self._of_spectra(structure, compare)

    def correlation(self) -> Compared:
        """Mean absolute difference of the correlations between bands inside the field."""
        real, held, drawn = (
            np.stack([band_correlation(spectra) for spectra in _field_spectra(x, self.seed)])
            for x in (self.reference, self.held_out, self.synthetic)
        )
        return Compared(
            *(
                centred_bootstrap(correlation_difference, real, other, resamples=self.resamples, seed=self.seed)
                for other in (drawn, held)
            )
        )

    def oxygen(self, structure: int) -> Compared:
        """Mean oxygen saturation recovered from the vessels of one kind: of synthetic and of held-out cubes."""
        found = []
        for cubes, classes in ((self.synthetic, self.synthetic_classes), (self.held_out, self.held_out_classes)):
            assert classes is not None
            pairs = zip(cubes, classes, strict=True)
            values = np.array([vessel_saturation(cube, of, structure, self.wavelengths) for cube, of in pairs])
            values = values[np.isfinite(values)]
            # Of a few vessels of a pixel's width single cubes give anything: the median holds.
            found.append(bootstrap(np.median, values, resamples=self.resamples, seed=self.seed))
        return Compared(*found)

    def _divergence(self, sets: list[list[np.ndarray]], bins: int) -> Compared:
        edges = band_edges(np.concatenate(sets[0]), bins)
        real, held, drawn = (np.stack([band_histogram(spectra, edges) for spectra in cubes]) for cubes in sets)
        return Compared(
            *(spectral_divergence_with_interval(real, other, self.resamples, self.seed) for other in (drawn, held))
        )

    def _of_spectra(self, structure: int, compare: Callable[[list[list[np.ndarray]]], Compared]) -> Compared:
        sets = [
            structure_spectra(cubes, classes, structure, self.seed)
            for cubes, classes in (
                (self.reference, self.reference_classes),
                (self.held_out, self.held_out_classes),
                (self.synthetic, self.synthetic_classes),
            )
        ]
        # A generator that draws no such structure has no spectrum of it.
        if not all(sets):
            return Compared(undefined(), undefined())
        return compare(sets)


def structure_spectra(values: np.ndarray, classes: np.ndarray | None, structure: int, seed: int) -> list[np.ndarray]:
    """Reflectance of at most 2,048 pixels of one class of each cube that has it: a list of pixels × bands."""
    assert classes is not None
    found = []
    for cube, of in zip(values, classes, strict=True):
        spectra = cube[:, of == structure].T
        if len(spectra) >= _FEWEST:
            found.append(_some(spectra, seed))
    return found


def _field_spectra(values: np.ndarray, seed: int) -> list[np.ndarray]:
    """The same of the field of view: where the brightest band is not dark."""
    found = []
    for cube in values:
        peak = cube.max(0)
        found.append(_some(cube[:, peak > 0.1 * np.quantile(peak, 0.95)].T, seed))
    return found


def _some(spectra: np.ndarray, seed: int) -> np.ndarray:
    if len(spectra) > _PIXELS:
        spectra = spectra[np.random.default_rng(seed).choice(len(spectra), _PIXELS, replace=False)]
    return spectra.astype(np.float32) / FULL_SCALE


def ms_ssim_pairs(values: np.ndarray, pairs: int, seed: int) -> np.ndarray:
    """MS-SSIM of random disjoint pairs of cubes, mean over the bands, each scaled by its brightest in the set."""
    chosen = disjoint_pairs(len(values), pairs, seed)
    betas = scale_weights(values.shape[-1])
    top = np.quantile(values, 0.999, axis=(0, 2, 3)).clip(1)[:, None, None]
    found = []
    for one, other in chosen:
        x, y = (torch.from_numpy((values[i] / top).astype(np.float32)).clamp(0, 1)[None] for i in (one, other))
        value = multiscale_structural_similarity_index_measure(x, y, data_range=1.0, betas=betas, kernel_size=WINDOW)
        found.append(float(value))
    return np.array(found)


def descriptor(values: np.ndarray, side: int) -> np.ndarray:
    """Small copies of all bands with zero mean and unit length, n × bands·side²: two of a pair differ by √(2 − 2r)."""
    rows = []
    for cube in values:
        small = [cv2.resize(band.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) for band in cube]
        # Each band by itself, or the infrared would be all that counts.
        small = [(band - band.mean()) / max(float(band.std()), 1e-6) for band in small]
        row = np.concatenate(small, None)
        rows.append(row / max(float(np.linalg.norm(row)), 1e-6))
    return np.stack(rows).astype(np.float32)


def vessel_saturation(values: np.ndarray, classes: np.ndarray, structure: int, wavelengths: Sequence[float]) -> float:
    """Oxygen saturation recovered from one cube's vessels of a kind; nan where there are none.

    A vessel's reflectance is held against that of the fundus beside it, free of vessels and nerve head. Where a
    pixel is only partly vessel the figure is off: compare it with that of real cubes, not with 1.

    Args:
        values: uint16, bands × size × size.
        classes: class of each pixel, as :mod:`retinalogos.classifiers.structures` numbers them.
        structure: the class of the vessels.
        wavelengths: nm.
    """
    peak = values.max(0)
    inside = peak > 0.1 * np.quantile(peak, 0.95)
    free = ((classes == 0) & inside).astype(np.float32)
    around = cv2.GaussianBlur(free, (0, 0), _BESIDE)
    vessel = (classes == structure) & inside & (around > _FREE)
    nm = np.asarray(wavelengths)
    weights = ((nm >= _OXIMETRY_NM[0]) & (nm <= _OXIMETRY_NM[1])).astype(float)
    if vessel.sum() < _FEWEST or weights.sum() < 3:
        return float("nan")
    density = []
    for band in values:
        log = np.log10(np.maximum(band, 1).astype(np.float32))
        beside = cv2.GaussianBlur(log * free, (0, 0), _BESIDE) / np.maximum(around, _FREE)
        density.append(float((beside - log)[vessel].mean()))
    return float(saturation(np.array(density), wavelengths, weights))
