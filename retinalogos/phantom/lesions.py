"""Where a phantom eye's lesions lie and what shape they have, as polygons in millimetres."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from retinalogos.phantom.geometry import FIELD_RADIUS, area, blobs, grow, quadrant, ribbons

if TYPE_CHECKING:
    from retinalogos.phantom.records import PhantomRecord

LESION_CLASSES = (
    "none",
    "microaneurysm",
    "haemorrhage",
    "hard_exudate",
    "soft_exudate",
    "neovascularisation",
    "drusen",
    "preretinal_haemorrhage",
)
_INDEX = {name: index for index, name in enumerate(LESION_CLASSES)}

# Diameters (ETDRS report 10, Ophthalmology 1991, 98:786: red dots above 125 micrometres count as haemorrhages).
MICROANEURYSM_MM = (0.025, 0.125)


@dataclass
class Lesions:
    """Outlines of one eye's lesions.

    ``outlines[c]`` lists the polygons (m, 2) of class ``c`` of LESION_CLASSES. Neovascularisation and IRMA are drawn
    as the ribbons ``tangles``; the class region of neovascularisation is the patch that its tangle fills.
    """

    outlines: dict[int, list[np.ndarray]] = field(
        default_factory=lambda: {c: [] for c in range(1, len(LESION_CLASSES))}
    )
    counts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(1, len(LESION_CLASSES)), 0))
    tangles: list[np.ndarray] = field(default_factory=list)

    def add(self, name: str, outlines: np.ndarray | list[np.ndarray], count: int) -> None:
        """Adds polygons that make up ``count`` lesions of the named class."""
        self.outlines[_INDEX[name]].extend(outlines)
        self.counts[_INDEX[name]] += count


def place_lesions(record: "PhantomRecord") -> Lesions:
    """All lesions of a record; a function of the record alone."""
    rng = np.random.default_rng([record.seed, 1])
    lesions = Lesions()
    if record.drusen:
        _drusen(rng, record, lesions)
    if record.soft_exudates:
        _soft_exudates(rng, record, lesions)
    if record.exudate_clusters:
        _hard_exudates(rng, record, lesions)
    if record.microaneurysms:
        centre = _scatter(rng, record, record.microaneurysms, keep_fovea=0.35, spread=3.4)
        low, high = MICROANEURYSM_MM
        diameter = low * (high / low) ** rng.random(len(centre))
        lesions.add("microaneurysm", blobs(rng, centre, diameter / 2, roughness=0.04, points=10), len(centre))
    _haemorrhages(rng, record, lesions)
    for index in record.irma_quadrants:
        centre = _scatter(rng, record, 1, keep_fovea=1.2, spread=4.0, only=index)[0]
        lesions.tangles.extend(_tangle(rng, centre, 0.35, 9))
    if record.neovascular_disc:
        _new_vessels(rng, lesions, np.array(record.disc) + rng.normal(0, 0.2, 2), float(rng.uniform(0.7, 1.2)), 46)
    for centre in _scatter(rng, record, record.neovascular_elsewhere, keep_fovea=2.2, spread=5.0):
        _new_vessels(rng, lesions, centre, float(rng.uniform(0.45, 0.9)), 30)
    if record.preretinal_haemorrhage:
        _boat(rng, record, lesions)
    if record.vitreous_haemorrhage:
        centre = np.array([[rng.uniform(-3, 4), rng.uniform(2.0, 4.2)]])
        radius = np.array([rng.uniform(1.2, 2.0)])
        outline = blobs(rng, centre, radius, rng.uniform(1.0, 1.8), rng.uniform(-0.5, 0.5), 0.3, 32)
        lesions.add("preretinal_haemorrhage", outline, 1)
    return lesions


def lesion_loads(record: "PhantomRecord") -> tuple[list[int], list[float]]:
    """Per class of LESION_CLASSES from index 1: number of lesions, and their area as a share of the field's area.

    Overlaps count twice, and a lesion that reaches over the border of the field counts whole.
    """
    lesions = place_lesions(record)
    field_area = np.pi * FIELD_RADIUS**2
    return list(lesions.counts.values()), [_total_area(each) / field_area for each in lesions.outlines.values()]


def _total_area(outlines: list[np.ndarray]) -> float:
    by_points: dict[int, list[np.ndarray]] = defaultdict(list)  # so that many are measured in one call
    for outline in outlines:
        by_points[len(outline)].append(outline)
    return float(sum(area(np.stack(same)).sum() for same in by_points.values()))


def _scatter(
    rng: np.random.Generator,
    record: "PhantomRecord",
    n: int,
    keep_fovea: float,
    spread: float,
    only: int | None = None,
) -> np.ndarray:
    """``n`` places (n, 2) off the disc and the fovea; density falls with the distance from the posterior pole."""
    pole = (np.array(record.fovea) + np.array(record.disc)) / 2
    places = np.empty((0, 2))
    while len(places) < n:
        radius, angle = 0.94 * FIELD_RADIUS * np.sqrt(rng.random(4 * n + 32)), rng.uniform(0, 2 * np.pi, 4 * n + 32)
        p = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
        keep = np.hypot(*(p - record.disc).T) > 0.62 * record.disc_size[1] + 0.05
        keep &= np.hypot(*(p - record.fovea).T) > keep_fovea
        keep &= np.abs(p[:, 1]) < FIELD_RADIUS * (1 - 2 * record.field_cut) - 0.2
        keep &= rng.random(len(p)) < np.exp(-(np.hypot(*(p - pole).T) ** 2) / (2 * spread**2))
        if only is not None:
            keep &= quadrant(p) == only
        places = np.concatenate([places, p[keep]])
    return places[:n]


def _fibre_direction(record: "PhantomRecord", p: np.ndarray) -> np.ndarray:
    """Direction of the nerve fibres at points (k, 2): from the disc, arching round the fovea. Radians."""
    from_disc = p - record.disc
    to_fovea = p - record.fovea
    radial = np.arctan2(from_disc[:, 1], from_disc[:, 0])
    around = np.arctan2(to_fovea[:, 1], to_fovea[:, 0]) + np.where(to_fovea[:, 1] < 0, np.pi / 2, -np.pi / 2)
    # Round the fovea over the macula, radial to the disc nasally of it and close to it.
    weight = np.exp(-((np.hypot(*to_fovea.T) / 3.2) ** 2))[:, None]
    vector = (1 - weight) * np.stack([np.cos(radial), np.sin(radial)], -1)
    vector += weight * np.stack([np.cos(around), np.sin(around)], -1)
    return np.arctan2(vector[:, 1], vector[:, 0])


def _haemorrhages(rng: np.random.Generator, record: "PhantomRecord", lesions: Lesions) -> None:
    for index, count in enumerate(record.haemorrhages):
        if not count:
            continue
        centre = _scatter(rng, record, count, keep_fovea=0.6, spread=4.6, only=index)
        flame = rng.random(count) < record.flame_share
        direction = _fibre_direction(record, centre)
        # Dots and blots from just above the size of a microaneurysm to a quarter of a disc diameter and more.
        radius = np.clip(np.exp(rng.normal(np.log(0.088), 0.45, count)), 0.063, 0.34)
        round_ones = blobs(rng, centre[~flame], radius[~flame], rng.uniform(1, 1.5, (~flame).sum()), 0.0, 0.22)
        lesions.add("haemorrhage", round_ones, int((~flame).sum()))
        for place, angle in zip(centre[flame], direction[flame], strict=True):
            # A flame: a bundle of streaks between the nerve fibres, frayed at both ends.
            streaks = int(rng.integers(4, 7))
            length = np.clip(rng.normal(0.55, 0.15), 0.3, 0.9) * rng.uniform(0.6, 1.0, streaks)
            side = np.linspace(-0.5, 0.5, streaks) * 0.036 * streaks
            shift = rng.normal(0, 0.07, streaks)
            normal, along = np.array([-np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), np.sin(angle)])
            middle = place + side[:, None] * normal + shift[:, None] * along
            outlines = blobs(rng, middle, np.sqrt(length * 0.05 / np.pi), length / 0.05, angle, 0.05, 12)
            lesions.add("haemorrhage", outlines, 1)
    if record.disc_haemorrhage:
        # A splinter across the border of the disc, mostly inferotemporal.
        at = np.deg2rad(rng.normal(55, 12))
        direction = np.array([np.cos(at), np.sin(at)])
        centre = np.array(record.disc) + direction * np.array(record.disc_size) / 2 * 1.05
        lesions.add("haemorrhage", blobs(rng, centre[None], np.array([0.12]), 4.0, at, 0.05), 1)


def _hard_exudates(rng: np.random.Generator, record: "PhantomRecord", lesions: Lesions) -> None:
    disc_diameter = record.disc_size[1]
    for cluster in range(record.exudate_clusters):
        if record.dme and (cluster == 0 or rng.random() < 0.5):
            # Within one disc diameter of the fovea: the photographic criterion of macular oedema
            # (EURODIAB and DRCR grading of single photographs).
            distance, angle = rng.uniform(0.35, 0.85) * disc_diameter, rng.uniform(0, 2 * np.pi)
            centre = np.array(record.fovea) + distance * np.array([np.cos(angle), np.sin(angle)])
        else:
            centre = _scatter(rng, record, 1, keep_fovea=1.75 * disc_diameter, spread=4.0)[0]
        n = int(rng.integers(8, 34))
        if rng.random() < 0.6:
            # Circinate: part of a ring round a leaking microaneurysm.
            arc = rng.uniform(0, 2 * np.pi) + rng.uniform(0, rng.uniform(1.5, 5.0), n)
            ring = rng.uniform(0.3, 0.62) * (1 + rng.normal(0, 0.1, n))
            place = centre + ring[:, None] * np.stack([np.cos(arc), np.sin(arc)], -1)
        else:
            place = centre + np.clip(rng.normal(0, 0.24, (n, 2)), -0.6, 0.6)
        place = place[np.hypot(*(place - record.disc).T) > 0.6 * disc_diameter]
        if not record.dme:
            place = place[np.hypot(*(place - record.fovea).T) > 1.05 * disc_diameter]
        radius = np.clip(np.exp(rng.normal(np.log(0.038), 0.5, len(place))), 0.015, 0.16)
        outlines = blobs(
            rng, place, radius, rng.uniform(1, 1.8, len(place)), rng.uniform(0, np.pi, len(place)), 0.25, 10
        )
        lesions.add("hard_exudate", outlines, len(place))


def _soft_exudates(rng: np.random.Generator, record: "PhantomRecord", lesions: Lesions) -> None:
    # Infarcts of the nerve-fibre layer: a quarter to a half disc diameter, near the posterior pole.
    centre = _scatter(rng, record, record.soft_exudates, keep_fovea=1.4, spread=3.2)
    radius = rng.uniform(0.13, 0.30, len(centre))
    outlines = blobs(rng, centre, radius, rng.uniform(1.1, 1.8, len(centre)), _fibre_direction(record, centre), 0.2, 20)
    lesions.add("soft_exudate", outlines, len(centre))


def _drusen(rng: np.random.Generator, record: "PhantomRecord", lesions: Lesions) -> None:
    n = record.drusen
    place = np.array(record.fovea) + rng.normal(0, 1.15, (n, 2))
    place = place[np.hypot(*(place - record.disc).T) > 0.65 * record.disc_size[1]]
    # Small below 63, intermediate to 125 micrometres, some larger (Ferris et al., Ophthalmology 2013, 120:844).
    diameter = np.clip(np.exp(rng.normal(np.log(0.085), 0.45, len(place))), 0.03, 0.26)
    lesions.add("drusen", blobs(rng, place, diameter / 2, roughness=0.12, points=10), len(place))


def _tangle(rng: np.random.Generator, centre: np.ndarray, radius: float, n: int) -> list[np.ndarray]:
    """Fine looping vessels (outlines of ribbons) within ``radius`` mm of a place."""
    start = centre + rng.normal(0, 0.22 * radius, (n, 2))
    heading = rng.uniform(0, 2 * np.pi, n)
    turn = heading + rng.choice([-1, 1], n) * rng.uniform(0.6, 2.4, n)
    length = rng.uniform(0.5, 1.1, n) * radius
    path, angle, s = grow(rng, start, heading, turn, 0.4 * length, length, 0.35, 12)
    width = rng.uniform(0.018, 0.040, (n, 1)) * (1 - 0.4 * s / s[:, -1:])
    return list(ribbons(path, angle, width))


def _new_vessels(rng: np.random.Generator, lesions: Lesions, centre: np.ndarray, radius: float, n: int) -> None:
    lesions.tangles.extend(_tangle(rng, centre, radius, n))
    lesions.add("neovascularisation", blobs(rng, centre[None], np.array([0.8 * radius]), roughness=0.15, points=24), 1)


def _boat(rng: np.random.Generator, record: "PhantomRecord", lesions: Lesions) -> None:
    """Blood before the retina: it settles, with a level top and a round keel."""
    width, depth = rng.uniform(1.3, 2.8), rng.uniform(0.6, 1.3)
    below = 1 if rng.random() < 0.75 else -1
    left = np.array(record.fovea) + np.array([rng.uniform(-3.2, 0.3), below * rng.uniform(1.8, 3.2)])
    t = np.linspace(0, np.pi, 24)
    keel = np.stack([left[0] + width / 2 * (1 - np.cos(t)), left[1] + depth * np.sin(t) ** 0.7], -1)
    lesions.add("preretinal_haemorrhage", [keel], 1)
