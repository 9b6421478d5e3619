"""Spectra of what colours a fundus, and the reflectance that follows: Beer-Lambert layers, light passing twice.

The layers are those of van de Kraats, Berendschot & van Norren, Vision Res 1996, 36:2229, and of Delori & Pflibsen,
Appl Opt 1989, 28:1061: ocular media, specular reflex of the inner retina, macular pigment, pigment epithelium, blood
and melanin of the choroid, sclera. A band is taken at its central wavelength alone. Densities are to base 10.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from retinalogos.errors import UsageError

# 16 bands from 450 to 905 nm: the range and number of the camera that the system was published with.
DEFAULT_WAVELENGTHS = tuple(float(nm) for nm in np.linspace(450, 905, 16).round(1))
SHORTEST, LONGEST = 450.0, 910.0  # nm, of the tables

# Whole blood: 150 g/l of haemoglobin of 64,500 g/mol (Prahl, as the table).
HAEMOGLOBIN_MOL_PER_L = 150 / 64500
# Axial length of the eye less the lens: about 21 mm of water and what is much like it (Gullstrand's schematic eye).
_WATER_CM = 2.1
# Imaginary part of the refractive index of water: Hale & Querry, Appl Opt 1973, 12:555, steps of 25 nm.
_WATER_NM = np.arange(450, 926, 25.0)
_WATER_INDEX = np.array(
    [1.02e-9, 9.35e-10, 1.00e-9, 1.32e-9, 1.96e-9, 3.60e-9, 1.09e-8, 1.39e-8, 1.64e-8, 2.23e-8,
     3.35e-8, 9.15e-8, 1.56e-7, 1.48e-7, 1.25e-7, 1.82e-7, 2.93e-7, 3.91e-7, 4.86e-7, 1.06e-6]
)  # fmt: skip
# Of the sclera behind the choroid, and of the discs of the photoreceptors with the pigment epithelium: order of the
# fits of van de Kraats et al. 1996, where the first is fixed at 0.5.
_SCLERA, _RECEPTORS = 0.5, 0.015


@cache
def _haemoglobin_table() -> np.ndarray:
    """Wavelengths, oxygenated, deoxygenated: 3 × n."""
    text = (files("retinalogos.phantom") / "haemoglobin.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))[1:]
    return np.array(rows, float).T


def check_wavelengths(wavelengths: Sequence[float]) -> np.ndarray:
    """Wavelengths in nm as an ascending array.

    Raises:
        UsageError: there is none, they do not ascend, or one lies outside the tables.
    """
    array = np.asarray(wavelengths, float)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise UsageError(f"wavelengths {list(wavelengths)}: give one or more in nm, ascending")
    if array[0] < SHORTEST or array[-1] > LONGEST:
        raise UsageError(f"wavelengths from {array[0]:g} to {array[-1]:g} nm: spectra are known from 450 to 910 nm")
    return array


def extinction(wavelengths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Molar extinction, 1/(cm mol/l), of oxygenated and of deoxygenated haemoglobin at each wavelength (nm)."""
    table = _haemoglobin_table()
    nm = check_wavelengths(wavelengths)
    return np.interp(nm, table[0], table[1]), np.interp(nm, table[0], table[2])


def blood(wavelengths: Sequence[float], saturation: float) -> np.ndarray:
    """Density per mm of whole blood at each wavelength (nm); ``saturation`` is the oxygenated share, 0-1."""
    oxygenated, deoxygenated = extinction(wavelengths)
    return (saturation * oxygenated + (1 - saturation) * deoxygenated) * HAEMOGLOBIN_MOL_PER_L / 10


def melanin(wavelengths: Sequence[float]) -> np.ndarray:
    """Density of melanin relative to 500 nm: the power law of Jacques & McAuliffe, Photochem Photobiol 1991, 53:769."""
    return (check_wavelengths(wavelengths) / 500) ** -3.48


def macular_pigment(wavelengths: Sequence[float]) -> np.ndarray:
    """Density of macular pigment relative to 460 nm: four Gaussians of Walraven's template (CIE report, 2003)."""

    def template(nm: np.ndarray) -> np.ndarray:
        wide = 0.32 * (np.exp(-0.0012 * (436 - nm) ** 2) + np.exp(-0.0012 * (480 - nm) ** 2))
        return wide - 0.123 * np.exp(-0.0012 * (458 - nm) ** 2) + 0.12042 * np.exp(-0.006 * (457 - nm) ** 2)

    return template(check_wavelengths(wavelengths)) / template(np.array(460.0))


def media(wavelengths: Sequence[float], age: float) -> np.ndarray:
    """Density of the ocular media, one passage: lens by ``age`` (years) and water.

    Lens and cornea: van de Kraats & van Norren, J Opt Soc Am A 2007, 24:1842, with the constants of CIE 203:2012.
    Water: Hale & Querry 1973.
    """
    nm, a2 = check_wavelengths(wavelengths), age**2
    lens = (
        (0.15 + 0.000031 * a2) * (400 / nm) ** 4
        + 14.19 * 10.68 * np.exp(-((0.057 * (nm - 273)) ** 2))
        + (1.05 - 0.000063 * a2) * 2.13 * np.exp(-((0.029 * (nm - 370)) ** 2))
        + (0.059 + 0.000186 * a2) * 11.95 * np.exp(-((0.021 * (nm - 325)) ** 2))
        + (0.016 + 0.000132 * a2) * 1.43 * np.exp(-((0.008 * (nm - 325)) ** 2))
        + 0.06
    )
    per_cm = 4 * np.pi * np.interp(nm, _WATER_NM, _WATER_INDEX) / (nm * 1e-7)
    return lens + per_cm * _WATER_CM / np.log(10)


@dataclass(frozen=True)
class Fundus:
    """What lies at each pixel; arrays of one shape, or numbers.

    Attributes:
        melanin: density of the melanin of epithelium and choroid at 500 nm, one passage.
        choroid_mm: thickness of the choroid's blood, mm.
        choroid_saturation: its oxygenated share, 0-1.
        macular_pigment: density at 460 nm, one passage.
        reflex: specular reflectance of the inner retina, the same at all wavelengths.
    """

    melanin: np.ndarray | float
    choroid_mm: np.ndarray | float
    choroid_saturation: float
    macular_pigment: np.ndarray | float
    reflex: np.ndarray | float


def reflectance(fundus: Fundus, wavelengths: Sequence[float]) -> np.ndarray:
    """Reflectance of the fundus behind the ocular media: bands × the shape of its arrays, about 0-0.5.

    Receptors and pigment epithelium send back a little; the rest goes on through melanin and the blood of the choroid
    to the sclera and back.
    """
    fields = np.broadcast_arrays(
        *(
            np.asarray(value, np.float32)
            for value in (fundus.melanin, fundus.choroid_mm, fundus.macular_pigment, fundus.reflex)
        )
    )
    pigment, choroid, macular, reflex = fields
    of_blood = blood(wavelengths, fundus.choroid_saturation)
    bands = []
    for b, (of_melanin, of_macular) in enumerate(zip(melanin(wavelengths), macular_pigment(wavelengths), strict=True)):
        behind = _SCLERA * 10 ** (-2 * (pigment * of_melanin + choroid * of_blood[b]))
        bands.append(reflex + 10 ** (-2 * macular * of_macular) * (_RECEPTORS + behind))
    return np.stack(bands).astype(np.float32)


def saturation(density: np.ndarray, wavelengths: Sequence[float], weights: np.ndarray | None = None) -> np.ndarray:
    """Oxygen saturation of the blood in vessels from their density, by least squares over the bands.

    Density = o·ε_oxygenated + d·ε_deoxygenated + c, with c for light that is scattered past the blood alike in all
    bands; saturation is o / (o + d) (after Schweitzer et al., J Biomed Opt 1999, 4:433, without their scatter slope).

    Args:
        density: −log10 of the reflectance of a vessel over that of the fundus beside it, … × bands.
        wavelengths: nm, of the bands.
        weights: of the bands, or None for equal ones.

    Returns:
        The saturation, …; not limited to 0-1, and nan where no blood is found.

    Raises:
        UsageError: fewer than three bands.
    """
    oxygenated, deoxygenated = extinction(wavelengths)
    if len(oxygenated) < 3:
        raise UsageError(f"saturation needs three bands or more, there are {len(oxygenated)}")
    columns = np.stack([oxygenated, deoxygenated, np.full_like(oxygenated, oxygenated.mean())], 1)
    w = np.ones(len(columns)) if weights is None else np.sqrt(np.asarray(weights, float))
    found = np.asarray(density, float) * w @ np.linalg.pinv(columns * w[:, None]).T
    total = found[..., 0] + found[..., 1]
    return np.divide(found[..., 0], total, out=np.full(total.shape, np.nan), where=total > 0)
