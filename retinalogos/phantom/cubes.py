"""Phantom eyes as hyperspectral cubes: the same eyes, with the spectra of what they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from retinalogos.phantom.draw import PhantomEye, draw
from retinalogos.phantom.geometry import FIELD_MM, FIELD_RADIUS
from retinalogos.phantom.lesions import LESION_CLASSES
from retinalogos.phantom.records import PhantomRecord
from retinalogos.phantom.spectra import Fundus, blood, check_wavelengths, media, reflectance
from retinalogos.phantom.vessels import ARTERY, VEIN

# Saturation of retinal vessels: 92.2 ± 3.7 % in arterioles, 55.6 ± 6.3 % in venules (Geirsdottir et al., Invest
# Ophthalmol Vis Sci 2012, 53:5433); of the choroid, which gives off little: about that of arteries.
_ARTERIAL, _VENOUS, _CHOROIDAL = (0.922, 0.037), (0.556, 0.063), 0.95
# Blood through which the light passes, mm: less than the calibre, since much of it is scattered back before. With these
# a vein has a density of 0.7 at 560 nm and an artery of 0.4, the order of what oximeters measure.
_PATH_MM = {ARTERY: 0.05, VEIN: 0.07}
# Blood of a haemorrhage, mm, and its saturation: it has lost its oxygen to the tissue.
_CLOT_MM, _CLOT_SATURATION = 0.10, 0.40
# Blood of the choroid, mm: 0.17 in the mean of the fits of van de Kraats et al. 1996, and how far it varies in an eye.
_CHOROID_MM, _CHOROID_SPREAD = 0.17, 0.12
# Melanin at 500 nm: 0.5 (blond) to 1.7 (dark), about the range of the same fits.
_MELANIN = (0.5, 1.2)
# Macular pigment at 460 nm: a peak of 0.1-0.8 that falls to half at 1 degree (Hammond et al., J Opt Soc Am A 1997,
# 14:1187).
_MACULAR_PEAK, _MACULAR_HALF_MM = 0.8, 0.3
# Reflectance of the disc's tissue and of the bare lamina in the cup, and the blood that colours them, mm.
_RIM, _CUP = (0.20, 0.030), (0.34, 0.010)
# Reflectance of lesions that scatter, which hide what lies behind.
_BRIGHT_LESIONS = {"hard_exudate": 0.24, "soft_exudate": 0.30, "drusen": 0.14}
# The planted marker changes the light within this distance of a vessel, and the more the shorter the wave.
_MARKER_MM = 0.25
# The pigment's smooth fields, by cells across the field: relative weights.
_CELLS = ((3, 1.0), (7, 0.6), (18, 0.35))


@dataclass(frozen=True)
class Camera:
    """What the camera adds.

    Attributes:
        electrons: collected by a pixel of a band's mean reflectance; their shot noise is the noise.
        jitter: standard deviation, in pixels, of a band's place against the others after registration.
    """

    electrons: float
    jitter: float


@dataclass(frozen=True)
class PhantomCube:
    """A drawn cube.

    Attributes:
        reflectance: float32, bands × size × size, 0-1.
        eye: the picture and truth maps of the same eye.
        artery_saturation: oxygenated share of the haemoglobin, 0-1.
        vein_saturation: the same.
    """

    reflectance: np.ndarray
    eye: PhantomEye
    artery_saturation: float
    vein_saturation: float


def saturations(record: PhantomRecord) -> tuple[float, float]:
    """Oxygen saturation, 0-1, of the eye's arteries and veins: a function of the record alone."""
    rng = np.random.default_rng([record.seed, 5])
    artery, vein = (float(np.clip(rng.normal(*law), 0.3, 1)) for law in (_ARTERIAL, _VENOUS))
    return artery, vein


def draw_cube(
    record: PhantomRecord, size: int, wavelengths: Sequence[float], camera: Camera | None, marker: float = 0.0
) -> PhantomCube:
    """Draws one eye as a cube of ``size`` × ``size`` pixels.

    Args:
        record: the eye.
        size: pixels.
        wavelengths: nm, ascending, 450-910.
        camera: what the camera adds; None for reflectance as it is.
        marker: strength of the planted biomarker, a spectral change along the vessels: 0 none; 0.1 takes a tenth of
            the light at 450 nm beside a vessel, and less of longer waves (as the inverse fourth power). It stands in
            for amyloid-β and has not been measured on any eye.
    """
    check_wavelengths(wavelengths)
    # Truth maps are hard; drawn finer and averaged they give the share of a pixel that a vessel covers.
    factor = 4 if size <= 128 else 2
    fine = draw([record], factor * size)[0]
    shares = {kind: _share(np.isin(fine.vessels, (kind, 3)), size) for kind in (ARTERY, VEIN)}
    rng = np.random.default_rng([record.seed, 6])
    mirror = -1.0 if record.eye == "right" else 1.0
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * FIELD_MM
    x, y = np.meshgrid(mirror * axis, axis)
    from_fovea = np.hypot(x - record.fovea[0], y - record.fovea[1])

    layers = _layers(record, rng, from_fovea, size)
    cube = reflectance(layers, wavelengths)
    artery_saturation, vein_saturation = saturations(record)
    cube = _disc(cube, fine, wavelengths, size)
    for kind, saturation in ((VEIN, vein_saturation), (ARTERY, artery_saturation)):
        through = 10 ** -(_PATH_MM[kind] * blood(wavelengths, saturation))
        cube *= 1 - shares[kind] * (1 - through[:, None, None])
    cube = _lesions(cube, fine, wavelengths, size)
    if marker:
        beside = cv2.GaussianBlur(np.maximum(shares[ARTERY], shares[VEIN]), (0, 0), _MARKER_MM * size / FIELD_MM)
        law = (450 / np.asarray(wavelengths)) ** 4
        cube *= 1 - marker * law[:, None, None] * np.minimum(3 * beside, 1)
    cube *= 10 ** (-2 * media(wavelengths, record.age))[:, None, None]
    cube *= _light(record, x, y)
    cube = (cube * _share(fine.fov > 0, size)).astype(np.float32)
    if camera is not None:
        cube = _taken(cube, camera, rng, record.blur_mm * size / FIELD_MM)
    return PhantomCube(np.clip(cube, 0, 1), _maps(fine, size), artery_saturation, vein_saturation)


def _share(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def _smooth(rng: np.random.Generator, size: int) -> np.ndarray:
    total = np.zeros((size, size), np.float32)
    for cells, weight in _CELLS:
        coarse = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
        total += weight * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return total


def _layers(record: PhantomRecord, rng: np.random.Generator, from_fovea: np.ndarray, size: int) -> Fundus:
    # Fields are drawn in the frame of a left eye, as the vessels are.
    pigment, choroid, reflex = (_smooth(rng, size) for _ in range(3))
    if record.eye == "right":
        pigment, choroid, reflex = (np.ascontiguousarray(field[:, ::-1]) for field in (pigment, choroid, reflex))
    at_macula = np.exp(-((from_fovea / 1.15) ** 2))
    ring = np.exp(-(((from_fovea - 1.45) / 0.3) ** 2))
    peak = _MACULAR_PEAK * record.macular_pigment
    return Fundus(
        melanin=(_MELANIN[0] + _MELANIN[1] * record.melanin) * np.exp(0.08 * pigment) * (1 + 0.25 * at_macula),
        # Tessellated eyes show their choroidal vessels: the blood is unevenly spread.
        choroid_mm=_CHOROID_MM * np.exp((_CHOROID_SPREAD + 0.25 * record.tessellation) * choroid),
        choroid_saturation=_CHOROIDAL,
        macular_pigment=peak * 0.5 ** (from_fovea / _MACULAR_HALF_MM),
        reflex=0.002 + 0.012 * record.sheen * np.clip(0.3 + 0.7 * ring + 0.3 * reflex, 0, 2),
    )


def _disc(cube: np.ndarray, fine: PhantomEye, wavelengths: Sequence[float], size: int) -> np.ndarray:
    for region, (white, blood_mm) in ((fine.disc_cup > 0, _RIM), (fine.disc_cup == 2, _CUP)):
        share = _share(region, size)
        tissue = white * 10 ** (-2 * blood_mm * blood(wavelengths, _CHOROIDAL))
        cube = cube + share * (tissue[:, None, None] - cube)
    return cube


def _lesions(cube: np.ndarray, fine: PhantomEye, wavelengths: Sequence[float], size: int) -> np.ndarray:
    names = np.array(LESION_CLASSES)[fine.lesions]
    for name, white in _BRIGHT_LESIONS.items():
        cube = cube + 0.8 * _share(names == name, size) * (white - cube)
    bleeding = np.isin(names, ("haemorrhage", "microaneurysm", "preretinal_haemorrhage", "neovascularisation"))
    if bleeding.any():
        through = 10 ** -(_CLOT_MM * blood(wavelengths, _CLOT_SATURATION))
        cube = cube * (1 - _share(bleeding, size) * (1 - through[:, None, None]))
    return cube


def _light(record: PhantomRecord, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What is left of uneven light after division by a white reference: half of it."""
    radius = np.hypot(x, y) / FIELD_RADIUS
    gradient = record.illumination[0] * x / FIELD_RADIUS + record.illumination[1] * y / FIELD_RADIUS
    return np.clip(1 + 0.5 * gradient - 0.5 * record.vignette * radius**3, 0.4, 1.3)


def _taken(cube: np.ndarray, camera: Camera, rng: np.random.Generator, blur: float) -> np.ndarray:
    bands = []
    for band in cube:
        if blur > 0.25:
            band = cv2.GaussianBlur(band, (0, 0), blur)
        if camera.jitter:
            dx, dy = rng.normal(0, camera.jitter, 2)
            move = np.array([[1, 0, dx], [0, 1, dy]])
            band = cv2.warpAffine(band, move, band.shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        noise = np.sqrt(np.maximum(band, 0) * band.mean() / camera.electrons)
        bands.append(band + noise * rng.standard_normal(band.shape).astype(np.float32))
    return np.stack(bands)


def _maps(fine: PhantomEye, size: int) -> PhantomEye:
    """The truth maps at the cube's size: a pixel belongs to the highest class that covers a third of it."""

    def down(classes: np.ndarray) -> np.ndarray:
        result = np.zeros((size, size), np.uint8)
        for value in np.unique(classes)[1:]:
            result[_share(classes == value, size) >= 1 / 3] = value
        return result

    picture = cv2.resize(fine.image, (size, size), interpolation=cv2.INTER_AREA)
    maps = {name: down(getattr(fine, name)) for name in ("lesions", "vessels", "disc_cup", "fov")}
    return replace(fine, image=picture, **maps)
