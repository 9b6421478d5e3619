"""Spectra: how those of two sets of cubes, or of two cubes, differ. Arrays of spectra have the bands last."""

from collections.abc import Sequence

import numpy as np

from retinalogos.metrics.intervals import Estimate, centred_bootstrap

# Added to every bin, as a share of a count: an empty bin of one set must not make the divergence infinite.
_PSEUDOCOUNT = 0.5
# Share of a bright pixel's light below which a pixel shows no fundus, as in the reader of cubes.
_DARK = 0.05


def spectral_angle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angle between spectra, … × bands, in radians 0-π/2; nan where a spectrum is zero (Kruse et al., RSE 1993)."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    length = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = np.divide((one * other).sum(-1), length, out=np.full(length.shape, np.nan), where=length > 0)
    return np.asarray(np.arccos(np.clip(cosine, -1, 1)))


def field_angle(one: np.ndarray, other: np.ndarray) -> float:
    """Mean :func:`spectral_angle` of cubes n × height × width × bands, where the first show a fundus.

    Outside the field of view a spectrum is noise, and its angle to anything about a right one.
    """
    light = np.asarray(one).mean(-1)
    seen = light > _DARK * np.quantile(light, 0.95, axis=(1, 2), keepdims=True)
    return float(np.nanmean(spectral_angle(np.asarray(one)[seen], np.asarray(other)[seen])))


def band_correlation(spectra: np.ndarray) -> np.ndarray:
    """Correlation between bands over the pixels n × bands: bands × bands; 0 where a band does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.atleast_2d(np.corrcoef(np.asarray(spectra, np.float64), rowvar=False)))


def band_edges(spectra: np.ndarray, bins: int) -> np.ndarray:
    """Edges of ``bins`` bins of each band that hold alike many of the spectra n × bands: bands × (bins − 1)."""
    return np.quantile(spectra, np.arange(1, bins) / bins, axis=0).T


def band_histogram(spectra: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts of the spectra n × bands in each band's bins: bands × bins."""
    bins = edges.shape[1] + 1
    columns = zip(edges, np.asarray(spectra).T, strict=True)
    return np.stack([np.bincount(np.searchsorted(edge, column), minlength=bins) for edge, column in columns])


def spectral_divergence(real: np.ndarray, other: np.ndarray) -> float:
    """Kullback-Leibler divergence of ``other`` from ``real``, nats, mean over the bands.

        D = mean over bands b of Σ_i p_b(i) log(p_b(i) / q_b(i))

    with p and q the shares of the pixels of one structure whose reflectance in band b lies in bin i.

    Args:
        real: counts of cubes, n × bands × bins, as :func:`band_histogram` gives them for each.
        other: the same of other cubes.
    """
    p, q = (counts.sum(0) + _PSEUDOCOUNT for counts in (real, other))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return float((p * np.log(p / q)).sum(-1).mean())


def spectral_divergence_with_interval(real: np.ndarray, other: np.ndarray, resamples: int, seed: int) -> Estimate:
    """:func:`spectral_divergence` with the bootstrap interval over cubes of both sets, centred on the estimate."""
    return centred_bootstrap(spectral_divergence, real, other, resamples=resamples, seed=seed)


def correlation_difference(real: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Mean absolute difference of the mean band correlations (n × bands × bands) of two sets of cubes, 0-2."""
    return float(np.abs(np.mean(real, 0) - np.mean(other, 0)).mean())
