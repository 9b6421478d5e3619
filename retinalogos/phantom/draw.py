"""Paints phantom eyes: picture and truth maps from a record."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from retinalogos.errors import UsageError
from retinalogos.phantom.geometry import FIELD_MM, FIELD_RADIUS, grow
from retinalogos.phantom.lesions import LESION_CLASSES, Lesions, place_lesions
from retinalogos.phantom.records import PhantomRecord
from retinalogos.phantom.vessels import ARTERY, VEIN, Vessel, grow_vessels

# Smooth fields (pigment, choroid, light) are drawn on a grid of this many points and enlarged.
_GRID = 160
# Side of the supersampled canvas on which outlines are filled; coverage is its average over a pixel.
_CANVAS = 1024
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
# A pixel belongs to a class of a map from this coverage on: below a half, so that microaneurysms and capillaries
# smaller than a pixel are not lost from the truth.
_COVERED = 0.3

# Optical density (natural logarithm; red, green, blue) of a full-thickness vessel or clot: haemoglobin absorbs green
# and blue and hardly red, the more so when it carries oxygen.
_ARTERIAL = np.array([0.10, 0.50, 0.38], np.float32)
_VENOUS = np.array([0.30, 0.78, 0.52], np.float32)
_CLOT = np.array([0.50, 1.05, 0.70], np.float32)
_NEW_VESSELS = np.array([0.10, 0.52, 0.45], np.float32)
_MELANIN = np.array([0.45, 0.62, 0.55], np.float32)

# Between the choroidal vessels lies pigment; over them blood, which is orange.
_CHOROID = np.array([0.55, 1.05, 0.95], np.float32)

_EXUDATE = np.array([250, 232, 120], np.float32)
_COTTON = np.array([246, 238, 206], np.float32)
_DRUSEN = np.array([245, 210, 120], np.float32)
_SCLERA = np.array([236, 206, 160], np.float32)


@dataclass(frozen=True)
class PhantomEye:
    """One drawn eye; every array is size × size, uint8.

    ``image`` RGB; ``lesions`` index of LESION_CLASSES; ``vessels`` 0 none, 1 artery, 2 vein, 3 crossing;
    ``disc_cup`` 0 none, 1 rim, 2 cup; ``fov`` 0 outside and 255 inside the field of view.
    """

    image: np.ndarray
    lesions: np.ndarray
    vessels: np.ndarray
    disc_cup: np.ndarray
    fov: np.ndarray


def draw(records: Sequence[PhantomRecord], size: int) -> list[PhantomEye]:
    """Draws each record as a picture of ``size`` × ``size`` pixels with its truth maps.

    An eye depends on its record and the size alone, never on its neighbours in the batch; at another size it is the
    same eye (only the sensor noise is drawn anew).

    Raises:
        UsageError: size is less than 16.
    """
    if size < 16:
        raise UsageError(f"size is {size}: a phantom eye needs at least 16 pixels")
    return [_Painter(record, size).paint() for record in records]


def _smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


class _Painter:
    """Draws one record in the left-eye frame; ``paint`` mirrors a right eye at the end."""

    def __init__(self, record: PhantomRecord, size: int):
        self.record, self.size = record, size
        self.rng = np.random.default_rng([record.seed, 3])
        self.factor = max(1, _CANVAS // size)
        axis = ((np.arange(_GRID, dtype=np.float32) + 0.5) / _GRID - 0.5) * FIELD_MM
        self.gx, self.gy = np.meshgrid(axis, axis)
        axis = ((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * FIELD_MM
        self.axis = axis

    def paint(self) -> PhantomEye:
        record, size = self.record, self.size
        vessels, lesions = grow_vessels(record), place_lesions(record)
        artery, vein = (
            self._fill([v.outline() for v in vessels if v.kind == kind], _opacity(vessels, kind))
            for kind in (ARTERY, VEIN)
        )
        coverage = {c: self._fill(outlines) for c, outlines in lesions.outlines.items() if outlines}

        density = self._resize(self._background())
        red = np.exp(-density)  # reflectance relative to 255
        image = 255 * red
        disc_cup = self._disc(image)
        image = self._vessels(image, vessels, artery, vein, disc_cup)
        image = self._lesions(image, lesions, coverage)
        image = self._camera(image)
        fov = self._field()
        image *= fov[..., None]
        image += self.rng.normal(0, record.noise, image.shape).astype(np.float32) * (0.12 + 0.88 * fov[..., None])
        picture = np.clip(image + 0.5, 0, 255).astype(np.uint8)

        inside = fov >= 0.5
        lesion_map = np.zeros((size, size), np.uint8)
        best = np.full((size, size), _COVERED, np.float32)
        for c, covered in coverage.items():
            more = covered >= best
            lesion_map[more] = c
            best = np.where(more, covered, best)
        vessel_map = ARTERY * (artery >= _COVERED).astype(np.uint8) + VEIN * (vein >= _COVERED).astype(np.uint8)
        maps = [np.where(inside, m, 0).astype(np.uint8) for m in (lesion_map, vessel_map, disc_cup)]
        arrays = [picture, *maps, np.where(inside, 255, 0).astype(np.uint8)]
        if record.eye == "right":
            arrays = [np.ascontiguousarray(a[:, ::-1]) for a in arrays]
        return PhantomEye(*arrays)

    # --- rasters -----------------------------------------------------------------------------------------------

    def _resize(self, grid: np.ndarray) -> np.ndarray:
        how = cv2.INTER_AREA if self.size < grid.shape[0] else cv2.INTER_CUBIC
        return cv2.resize(grid, (self.size, self.size), interpolation=how)

    def _fill(self, outlines: Iterable[np.ndarray], values: Iterable[int] | None = None) -> np.ndarray:
        """Coverage (size, size) 0-1 of polygons in mm; ``values`` 0-255 are the opacity of each."""
        side = self.size * self.factor
        canvas = np.zeros((side, side), np.uint8)
        scale = side / FIELD_MM * 2**_SHIFT
        outlines = list(outlines)
        for outline, value in zip(outlines, values or [255] * len(outlines), strict=True):
            points = np.rint((outline + FIELD_MM / 2) * scale - 2 ** (_SHIFT - 1)).astype(np.int32)
            cv2.fillPoly(canvas, [points], value, cv2.LINE_8, _SHIFT)
        if self.factor > 1:
            return cv2.resize(canvas, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        return canvas.astype(np.float32) / 255

    def _soften(self, coverage: np.ndarray, mm: float) -> np.ndarray:
        sigma = mm * self.size / FIELD_MM
        return cv2.GaussianBlur(coverage, (0, 0), sigma) if sigma > 0.2 else coverage

    def _noise(self, cells: int) -> np.ndarray:
        """Smooth field on the grid, about unit deviation, with bumps of FIELD_MM / cells."""
        coarse = self.rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
        fine = cv2.resize(coarse, (_GRID + 3 * _GRID // cells,) * 2, interpolation=cv2.INTER_CUBIC)
        start = 3 * _GRID // cells // 2
        return fine[start : start + _GRID, start : start + _GRID] * 1.3

    # --- the fundus --------------------------------------------------------------------------------------------

    def _background(self) -> np.ndarray:
        """Optical density (grid, grid, 3) of the fundus without disc, vessels and lesions."""
        record = self.record
        base = -np.log(np.array(record.colour, np.float32) / 255)
        pigment = 0.05 * self._noise(3) + 0.035 * self._noise(7) + 0.02 * self._noise(16) + 0.018 * self._noise(44)
        from_fovea = np.hypot(self.gx - record.fovea[0], (self.gy - record.fovea[1]) * 1.12)
        macula = 0.34 * np.exp(-((from_fovea / 1.15) ** 2)) + 0.30 * np.exp(-((from_fovea / 0.5) ** 2))
        pigment += (0.45 + 0.75 * record.macular_pigment) * macula * (0.8 + 0.4 * record.melanin)
        from_disc = np.hypot(self.gx - record.disc[0], self.gy - record.disc[1])
        pigment -= 0.12 * np.exp(-((from_disc / 2.6) ** 2))
        choroid = np.zeros_like(pigment)
        if record.tessellation > 0.05:
            choroid = record.tessellation * self._choroid(from_fovea)
        hue = 0.04 * self._noise(3)
        density = (
            base
            + pigment[..., None] * (_MELANIN / 0.55)
            + choroid[..., None] * _CHOROID
            + hue[..., None] * np.array([-0.3, 0.4, 1.0], np.float32)
        )
        if record.sheen > 0.05:
            density -= self._sheen(from_fovea, from_disc)[..., None] * np.array([0.8, 1.0, 1.25], np.float32)
        if record.nerve_fibre_defect:
            density += self._fibre_defect(from_disc)[..., None] * np.array([0.6, 1.0, 0.9], np.float32)
        return density.astype(np.float32)

    def _choroid(self, from_fovea: np.ndarray) -> np.ndarray:
        """Density of the pigment between the choroidal vessels, which stream from the pole to the vortex veins."""
        rng = self.rng
        k = 330
        radius, angle = FIELD_RADIUS * np.sqrt(rng.uniform(0.02, 1, k)), rng.uniform(0, 2 * np.pi, k)
        start = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
        # Towards the nearest of four vortex veins, beyond the field at its diagonals.
        goal = np.sign(start + 1e-6) * np.array([6.5, 9.0])
        heading = np.arctan2(*(goal - start).T[::-1])
        path, _, _ = grow(
            rng, start, heading + rng.normal(0, 0.5, k), heading, np.full(k, 1.2), rng.uniform(1.2, 3.4, k), 0.30, 14
        )
        canvas = np.zeros((2 * _GRID, 2 * _GRID), np.uint8)
        scale = 2 * _GRID / FIELD_MM * 2**_SHIFT
        points = np.rint((path + FIELD_MM / 2) * scale).astype(np.int32)
        thickness = rng.integers(2, 6, k)
        for curve, t in zip(points, thickness, strict=True):
            cv2.polylines(canvas, [curve], False, 255, int(t), cv2.LINE_8, _SHIFT)
        vessels = cv2.resize(canvas.astype(np.float32) / 255, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
        vessels = cv2.GaussianBlur(vessels, (0, 0), 1.1)
        # The pigment epithelium of the macula hides the choroid.
        return (0.48 * (0.5 - vessels)) * (1 - 0.8 * np.exp(-((from_fovea / 2.0) ** 2)))

    def _sheen(self, from_fovea: np.ndarray, from_disc: np.ndarray) -> np.ndarray:
        """Reflex of the nerve-fibre layer: bright striae along the arcades, a ring round the macula."""
        record = self.record
        angle = np.arctan2(self.gy - record.disc[1], self.gx - record.disc[0])
        striae = 0.6 + 0.4 * np.sin(34 * angle + 3 * self._noise(4)) * np.exp(-from_disc / 3)
        arcades = np.exp(-(((np.abs(angle) - 1.05) / 0.45) ** 2)) * np.exp(-(((from_disc - 1.7) / 1.4) ** 2))
        ring = np.exp(-(((from_fovea - 1.45) / 0.22) ** 2)) * (0.5 + 0.5 * np.clip(self._noise(6), -1, 1))
        foveola = np.exp(-((from_fovea / 0.11) ** 2))
        return record.sheen * (0.28 * arcades * striae + 0.13 * ring + 0.45 * foveola)

    def _fibre_defect(self, from_disc: np.ndarray) -> np.ndarray:
        """A dark wedge that follows the nerve fibres from the inferotemporal (seldom superotemporal) rim."""
        record = self.record
        side = 1 if self.rng.random() < 0.75 else -1
        angle = np.arctan2(side * (self.gy - record.disc[1]), self.gx - record.disc[0])
        # The bundle leaves at about 55 degrees and bends towards the raphe with the distance.
        course = np.deg2rad(58) - 0.055 * from_disc
        half = np.deg2rad(record.nerve_fibre_defect) / 2
        wedge = 1 - _smoothstep(0.75 * half, 1.2 * half, np.abs(angle - course))
        return 0.20 * wedge * _smoothstep(0.8, 1.1, from_disc) * (1 - _smoothstep(4.5, 6.5, from_disc))

    # --- disc --------------------------------------------------------------------------------------------------

    def _disc(self, image: np.ndarray) -> np.ndarray:
        """Paints the disc onto ``image`` in place; returns the map (1 rim, 2 cup)."""
        record = self.record
        width, height = record.disc_size
        reach = 1.1 * height
        columns = np.flatnonzero(np.abs(self.axis - record.disc[0]) < reach)
        rows = np.flatnonzero(np.abs(self.axis - record.disc[1]) < reach)
        disc_cup = np.zeros((self.size, self.size), np.uint8)
        if not len(columns) or not len(rows):  # a disc outside the picture
            return disc_cup
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        x, y = np.meshgrid(self.axis[columns] - record.disc[0], self.axis[rows] - record.disc[1])
        tilt = np.deg2rad(record.disc_tilt)
        u, v = x * np.cos(tilt) + y * np.sin(tilt), -x * np.sin(tilt) + y * np.cos(tilt)
        phi = np.arctan2(v / height, u / width)
        outer = np.hypot(u / (width / 2), v / (height / 2))  # 1 on the border of the disc
        cup = self.cup_radius(phi)
        disc_cup[window] = np.where(outer <= 1, np.where(outer <= cup, 2, 1), 0)

        patch = image[window]
        around = patch.mean((0, 1))
        bright = float(np.clip(np.array(record.colour).mean() / 110, 0.86, 1.08))
        rim = 0.35 * np.minimum(around * 1.45, 255) + 0.65 * bright * np.array([250, 164, 98], np.float32)
        pale = 0.22 * np.minimum(around * 1.75, 255) + 0.78 * bright * np.array([255, 238, 170], np.float32)
        blend = patch
        if record.peripapillary_atrophy:
            crescent_width = record.peripapillary_atrophy
            crescent = np.hypot(
                (u - 0.85 * crescent_width) / (width / 2 + 0.45 * crescent_width),
                v / (height / 2 + 0.22 * crescent_width),
            )
            alpha = 0.50 * (1 - _smoothstep(0.92, 1.08, crescent))
            blend = blend + alpha[..., None] * (0.45 * around + 0.55 * bright * _SCLERA - blend)
            edge = np.exp(-(((crescent - 1.06) / 0.05) ** 2))
            blend = blend * (1 - 0.22 * edge[..., None])
        # Halo: the border of the disc is darker by pigment, then the retina brightens towards it.
        ring = np.exp(-(((outer - 1.10) / 0.07) ** 2)) * (0.5 + 0.5 * np.cos(phi)) * record.melanin
        blend = blend * (1 - 0.16 * ring[..., None])
        shade = 1 + 0.05 * np.cos(phi + np.pi) - 0.04 * np.sin(phi)  # the nasal rim is redder and fuller
        disc_alpha = (1 - _smoothstep(0.93, 1.07, outer))[..., None]
        colour = rim * shade[..., None] + np.array([0, -10, -8], np.float32) * (0.5 - 0.5 * np.cos(phi))[..., None]
        cup_alpha = (1 - _smoothstep(-0.09, 0.09, outer - cup))[..., None]
        floor = pale * (1 - 0.05 * np.clip(u / width * 2, -1, 1))[..., None]
        colour = colour + cup_alpha * (floor - colour)
        image[window] = blend + disc_alpha * (colour - blend)
        return disc_cup

    def cup_radius(self, phi: np.ndarray) -> np.ndarray:
        """Border of the cup as a fraction of the disc's radius, by direction (0 temporal, pi/2 inferior)."""
        record = self.record
        half = {"temporal": record.disc_size[0] / 2, "nasal": record.disc_size[0] / 2}
        half |= {"superior": record.disc_size[1] / 2, "inferior": record.disc_size[1] / 2}
        at = {pole: 1 - width / half[pole] for pole, width in record.rim_mm.items()}
        c, s = np.cos(phi), np.sin(phi)
        radius = c * c * np.where(c > 0, at["temporal"], at["nasal"]) + s * s * np.where(
            s > 0, at["inferior"], at["superior"]
        )
        if record.rim_notch:
            notch = np.exp(-(((phi - np.deg2rad(62)) / np.deg2rad(14)) ** 2))
            radius = radius + notch * 0.75 * (0.97 - radius)
        return radius

    # --- vessels and lesions -------------------------------------------------------------------------------------

    def _vessels(
        self, image: np.ndarray, vessels: list[Vessel], artery: np.ndarray, vein: np.ndarray, disc_cup: np.ndarray
    ) -> np.ndarray:
        # A crossing artery lies in front of the vein (in the great majority of crossings).
        # The light streak along the crest of a vessel is seen on the larger ones, off the disc.
        thick = [v for v in vessels if v.generation == 0 and v.width[0] > 0.06]
        reflex = self._fill([v.outline(0.30) for v in thick], [170 if v.kind == ARTERY else 85 for v in thick])
        reflex[disc_cup > 0] = 0
        behind = vein * (1 - 0.5 * artery)
        density = artery[..., None] * _ARTERIAL + behind[..., None] * _VENOUS
        image = image * np.exp(-density)
        return image * (1 + 0.30 * reflex[..., None])

    def _lesions(self, image: np.ndarray, lesions: Lesions, coverage: dict[int, np.ndarray]) -> np.ndarray:
        light = image.mean() / 90

        def put(name: str, colour: np.ndarray, alpha: float, soft: float) -> None:
            nonlocal image
            covered = coverage.get(LESION_CLASSES.index(name))
            if covered is not None:
                a = alpha * self._soften(covered, soft)[..., None]
                image = image + a * (np.minimum(colour * min(max(light, 0.8), 1.1), 255) - image)

        def stain(name: str, strength: float, soft: float) -> None:
            nonlocal image
            covered = coverage.get(LESION_CLASSES.index(name))
            if covered is not None:
                image = image * np.exp(-(strength * self._soften(covered, soft))[..., None] * _CLOT)

        put("drusen", _DRUSEN, 0.45, 0.02)
        put("soft_exudate", _COTTON, 0.72, 0.09)
        stain("haemorrhage", 0.66, 0.026)
        stain("microaneurysm", 0.72, 0.010)
        put("hard_exudate", _EXUDATE, 0.92, 0.012)
        if lesions.tangles:
            image = image * np.exp(-self._fill(lesions.tangles)[..., None] * _NEW_VESSELS)
        if self.record.vitreous_haemorrhage:
            stain("preretinal_haemorrhage", 1.0, 0.25)
        else:
            stain("preretinal_haemorrhage", 1.15, 0.03)
        return image

    # --- camera --------------------------------------------------------------------------------------------------

    def _camera(self, image: np.ndarray) -> np.ndarray:
        record = self.record
        r = np.hypot(self.gx, self.gy) / FIELD_RADIUS
        light = 1 + record.illumination[0] * self.gx / FIELD_RADIUS + record.illumination[1] * self.gy / FIELD_RADIUS
        # One side of a small pupil's picture often lies in its shadow.
        light = np.clip(light * (1.04 - record.vignette * r**3) + 0.05 * self._noise(2), 0.25, 1.35)
        image = image * self._resize(light.astype(np.float32))[..., None]
        if record.haze > 0.02:
            # Light scattered by the lens lifts the shadows and washes the colours out.
            veil = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA)
            veil = cv2.resize(cv2.GaussianBlur(veil, (0, 0), 32 / 9), (self.size,) * 2, interpolation=cv2.INTER_CUBIC)
            veil = 0.55 * veil + 0.45 * (veil.mean(-1, keepdims=True) * np.array([1.05, 1.0, 0.86], np.float32) + 16)
            image = image + 0.75 * record.haze * (veil - image)
        if record.glow:
            a = np.deg2rad(record.glow_angle)
            off = r + 0.55 * (self.gx * np.cos(a) + self.gy * np.sin(a)) / FIELD_RADIUS
            crescent = self._resize((record.glow * _smoothstep(0.95, 1.6, off)).astype(np.float32))[..., None]
            image = image + 0.6 * crescent * (np.array([196, 204, 150], np.float32) - image)
        sigma = record.blur_mm * self.size / FIELD_MM
        return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.25 else image

    def _field(self) -> np.ndarray:
        """Share of each pixel (size, size) that lies in the field of view."""
        pixel = FIELD_MM / self.size
        r = np.hypot(self.axis[None, :], self.axis[:, None])
        inside = np.clip((FIELD_RADIUS - 0.4 * pixel - r) / pixel + 0.5, 0, 1)
        half = FIELD_RADIUS * (1 - 2 * self.record.field_cut)
        rows = np.clip((half - np.abs(self.axis)) / pixel + 0.5, 0, 1)
        return (inside * rows[:, None]).astype(np.float32)


def _opacity(vessels: list[Vessel], kind: int) -> list[int]:
    """Opacity 0-255 of each vessel of a kind: thin vessels hold less blood along the line of sight."""
    return [int(255 * min(0.36 + 0.64 * float(v.width.max()) / 0.11, 1)) for v in vessels if v.kind == kind]
