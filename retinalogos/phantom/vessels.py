"""The arteries and veins of a phantom eye, as curves in millimetres."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from retinalogos.phantom.geometry import FIELD_RADIUS, grow, quadrant, ribbons

if TYPE_CHECKING:
    from retinalogos.phantom.records import PhantomRecord

ARTERY, VEIN = 1, 2
# Below this a vessel is not seen on a 45 degree photograph.
_THINNEST_MM = 0.022
# Visible vessels end at the avascular zone: 0.25-0.3 mm in radius, seen from about 0.4 mm on photographs.
_AVASCULAR_MM = 0.40


@dataclass(frozen=True)
class Vessel:
    """One unbranched stretch from its origin to its end.

    ``path`` (t, 2) mm, ``angle`` (t,) radians, ``width`` (t,) mm; ``branchings`` lists (index into the path, parent
    calibre before, calibre after, calibre of the branch) in mm, without the taper and the beading.
    """

    kind: int
    generation: int
    path: np.ndarray
    angle: np.ndarray
    width: np.ndarray
    branchings: tuple[tuple[int, float, float, float], ...]

    def outline(self, share: float = 1.0) -> np.ndarray:
        """Polygon (2t, 2) in mm of the vessel, or of the middle ``share`` of its width."""
        return ribbons(self.path[None], self.angle[None], share * self.width[None])[0]


def grow_vessels(record: "PhantomRecord") -> list[Vessel]:
    """Arterial and venous trees: trunks from the disc, side branches over two generations.

    Calibres obey d0**x = d1**x + d2**x at each branching (Murray, Proc Natl Acad Sci 1926, 12:207, x = 3), with x the
    record's junction exponent. A function of the record alone.
    """
    rng = np.random.default_rng([record.seed, 2])
    vessels: list[Vessel] = []
    # Artery and vein of a pair run side by side; which of them arches wider differs from arcade to arcade.
    wider = rng.choice([-1.0, 1.0], 8)
    for kind in (VEIN, ARTERY):
        level = _trunks(rng, record, kind, wider if kind == VEIN else -wider)
        for generation, count in enumerate((6, 3, 2)):
            grown, branches = _stretch(rng, record, kind, generation, level, count)
            vessels += grown
            if branches is None:
                break
            level = branches
    return vessels


@dataclass
class _Seeds:
    """Origins of vessels that are still to be grown; arrays of length k."""

    start: np.ndarray
    heading: np.ndarray
    target: np.ndarray
    relax: np.ndarray
    length: np.ndarray
    calibre: np.ndarray  # mm


def _trunks(rng: np.random.Generator, record: "PhantomRecord", kind: int, wider: np.ndarray) -> _Seeds:
    calibre = record.vein_um / 1000 * (record.arteriole_venule_ratio if kind == ARTERY else 1.0)
    sides = np.array([-1, 1])
    superior, inferior = record.arcade_mm
    tilt = np.deg2rad(record.disc_fovea_angle)
    # Columns: superior and inferior temporal arcade, superior and inferior nasal, macular twigs, nasal twigs.
    pair = np.tile(sides, 4)
    heading = pair * np.concatenate(
        [rng.normal(82, 7, 2), rng.normal(112, 9, 2), rng.uniform(10, 36, 2), rng.uniform(152, 176, 2)]
    )
    target = pair * np.concatenate(
        [rng.normal(5, 6, 2), rng.normal(142, 10, 2), rng.uniform(-14, 6, 2), rng.uniform(165, 184, 2)]
    )
    spread = 1 + 0.12 * wider[:2] + rng.normal(0, 0.03, 2)
    heading = heading + pair * wider * np.array([7, 7, -9, -9, 6, 6, 4, 4])
    relax = np.concatenate([np.array([superior, inferior]) * spread, rng.uniform(2.5, 4.5, 2), np.full(4, 1.6)])
    length = np.concatenate(
        [rng.uniform(12, 15, 2), rng.uniform(7, 9, 2), rng.uniform(2.4, 3.4, 2), rng.uniform(3, 5, 2)]
    )
    share = np.array([1, 1, 0.70, 0.70, 0.32, 0.32, 0.32, 0.32]) * np.concatenate(
        [1 + rng.normal(0, 0.03, 4), 1 + rng.normal(0, 0.1, 4)]
    )
    # The central vessels enter at the nasal side of the cup and are pushed nasally as it grows.
    width, height = record.disc_size
    start = np.array(record.disc) + np.stack(
        [
            -(0.04 + 0.24 * record.vcdr) * width + rng.normal(0, 0.03, 8),
            pair * 0.10 * height + rng.normal(0, 0.03, 8),
        ],
        -1,
    )
    return _Seeds(start, np.deg2rad(heading) + tilt, np.deg2rad(target) + tilt, relax, length, calibre * share)


def _stretch(
    rng: np.random.Generator, record: "PhantomRecord", kind: int, generation: int, seeds: _Seeds, count: int
) -> tuple[list[Vessel], _Seeds | None]:
    """Grows the seeds and returns them with the seeds of their branches."""
    k = len(seeds.calibre)
    points = (64, 28, 14)[generation]
    amplitude = record.tortuosity * (0.38, 0.65, 0.9)[generation] * (1.15 if kind == VEIN else 1.0)
    path, angle, s = grow(rng, seeds.start, seeds.heading, seeds.target, seeds.relax, seeds.length, amplitude, points)
    x = record.junction_exponent
    # Side branches: at stratified places, the first beyond the disc; each takes a share of the calibre.
    first = 0.75 * record.disc_size[1] if generation == 0 else 0.0
    places = (np.arange(count) + rng.uniform(0.15, 0.85, (k, count))) / count
    at = np.clip(
        np.rint((first + places * (seeds.length[:, None] - first)) / seeds.length[:, None] * (points - 1)), 1, None
    )
    at = np.minimum(at.astype(int), points - 2)
    share = rng.uniform(0.40, 0.80, (k, count)) if generation == 0 else rng.uniform(0.5, 0.9, (k, count))
    sides = rng.choice([-1, 1], (k, count)) * np.where(rng.random((k, count)) < 0.25, 1, (-1) ** np.arange(count))

    calibre = np.repeat(seeds.calibre[:, None], points, 1)
    current = seeds.calibre.copy()
    before, branch = np.empty((k, count)), np.empty((k, count))
    for j in range(count):
        before[:, j] = current
        branch[:, j] = share[:, j] * current
        current = (current**x - branch[:, j] ** x) ** (1 / x)
        calibre = np.where(np.arange(points) >= at[:, j : j + 1], current[:, None], calibre)
    after = np.concatenate([before[:, 1:], current[:, None]], 1)

    # The last fifth of a vessel thins out; trunks are a little narrower where they are seen end-on in the cup.
    end = np.clip((1 - s / s[:, -1:]) / 0.2, 0.25, 1)
    width = calibre * (end if generation else np.clip(end, 0.5, 1))
    if kind == VEIN and record.beaded_quadrants:
        beaded = np.isin(quadrant(path), record.beaded_quadrants) & (calibre > 0.05)
        width = width * (1 + beaded * 0.42 * np.sin(2 * np.pi * s / 0.42))

    to_fovea = np.hypot(path[..., 0] - record.fovea[0], path[..., 1] - record.fovea[1])
    outside = (np.hypot(path[..., 0], path[..., 1]) > FIELD_RADIUS + 0.3) | (to_fovea < _AVASCULAR_MM)
    outside |= calibre < _THINNEST_MM
    if generation:
        # Branches end short of the avascular zone, and neither half's vessels cross the horizontal raphe.
        outside |= to_fovea < rng.uniform(0.45, 1.3, (k, 1))
        axis = np.deg2rad(record.disc_fovea_angle)
        above = (path[..., 1] - record.disc[1]) * np.cos(axis) - (path[..., 0] - record.disc[0]) * np.sin(axis)
        outside |= (above * above[:, :1] < 0) & (path[..., 0] > record.disc[0])
    stop = np.where(outside.any(1), outside.argmax(1), points)

    vessels: list[Vessel] = []
    rows: list[int] = []
    columns: list[int] = []
    for i in range(k):
        if stop[i] < 3:
            continue
        inside = at[i] < stop[i]
        joints = tuple(
            (int(at[i, j]), float(before[i, j]), float(after[i, j]), float(branch[i, j]))
            for j in np.flatnonzero(inside)
        )
        cut = slice(0, stop[i])
        vessels.append(Vessel(kind, generation, path[i, cut], angle[i, cut], width[i, cut], joints))
        seen = np.flatnonzero(inside & (branch[i] >= _THINNEST_MM))
        rows += [i] * len(seen)
        columns += seen.tolist()
    if not rows or generation == 2:
        return vessels, None
    parents, joints_at = np.array(rows), np.array(columns)
    start, parent = path[parents, at[parents, joints_at]], angle[parents, at[parents, joints_at]]
    # The smaller the branch beside its parent the nearer to a right angle it leaves (Zamir & Brown 1982).
    heading = parent + sides[parents, joints_at] * np.deg2rad(
        rng.uniform(56, 80, len(parents)) - 30 * share[parents, joints_at]
    )
    to_fovea_angle = np.arctan2(record.fovea[1] - start[:, 1], record.fovea[0] - start[:, 0])
    pole = (np.array(record.fovea) + np.array(record.disc)) / 2
    outward = np.arctan2(start[:, 1] - pole[1], start[:, 0] - pole[0])
    inner = np.cos(heading - to_fovea_angle) > np.cos(heading - outward)
    inner &= start[:, 0] > record.disc[0] + 0.4
    target = np.where(inner, to_fovea_angle, outward)
    # Most branches go the way of their parent, opening outwards or towards the macula.
    target = parent + ((target - parent + np.pi) % (2 * np.pi) - np.pi) * np.where(
        inner, rng.uniform(0.45, 0.95, len(parents)), rng.uniform(0.15, 0.7, len(parents))
    )
    calibre_mm = branch[parents, joints_at]
    length = 4.0 * (calibre_mm / 0.08) ** 0.8 * rng.uniform(0.7, 1.2, len(parents))
    return vessels, _Seeds(start, heading, target, 0.35 * length, length, calibre_mm)
