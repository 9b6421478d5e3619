"""What ophthalmology measures on vessels, from a mask alone; lengths in pixels unless said.

All are properties of one picture. What a picture does not define (no junction, no disc known) is nan and counts in no
mean. Calibres below about three pixels are coarse: compare masks of one resolution only.
"""

import numpy as np
from scipy import ndimage
from scipy.optimize import brentq

from retinalogos.metrics.vessels.skeleton import EIGHT, Stretch, Tree, smooth, thin, trace

# Shorter stretches bend by the pixel grid more than by themselves.
_LEAST_PIXELS = 8
# Pixels along which the direction of a vessel at a junction is taken.
_HEADING = 6
# Branching coefficients and number of vessels of Knudtson et al., Current Eye Research 2003, 27(3):143.
_KNUDTSON = {"artery": 0.88, "vein": 0.95}
_KNUDTSON_VESSELS = 6
# Zone B of the ARIC grid: from 0.5 to 1 disc diameter off the disc's margin, here in disc diameters from its centre.
_ZONE_B = (1.0, 1.5)
# Exponents between which that of a junction is sought; calibres that leave these say nothing.
_EXPONENTS = (0.5, 10.0)


def mean_calibre(mask_hw: np.ndarray) -> float:
    """Mean width of the vessels of a mask, weighted by length; nan for an empty mask."""
    stretches = trace(mask_hw).stretches
    return _mean_calibre(stretches)


def _mean_calibre(stretches: list[Stretch]) -> float:
    length = sum(stretch.length for stretch in stretches)
    return sum(stretch.calibre * stretch.length for stretch in stretches) / length if length else float("nan")


def tortuosity(tree: Tree) -> float:
    """Arc over chord of the stretches of eight pixels and more, weighted by length; 1 is straight."""
    ratios, weights = [], []
    for stretch in tree.stretches:
        curve = smooth(stretch.path)
        chord = float(np.linalg.norm(curve[-1] - curve[0]))
        if len(curve) >= _LEAST_PIXELS and chord > 0:
            ratios.append(float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum()) / chord)
            weights.append(stretch.length)
    return float(np.average(ratios, weights=weights)) if ratios else float("nan")


def fractal_dimension(mask_hw: np.ndarray) -> float:
    """Box-counting dimension: slope of the number of occupied boxes over their side, both logarithmic.

    Boxes of 1, 2, 4 … pixels up to a quarter of the picture; nan for an empty mask or a side below 8.
    """
    mask = np.asarray(mask_hw, bool)
    side = min(mask.shape)
    if side < 8 or not mask.any():
        return float("nan")
    sides = 2 ** np.arange(int(np.log2(side)) - 1)
    counts = []
    for box in sides:
        padded = np.pad(mask, [(0, -length % box) for length in mask.shape])
        rows, columns = padded.shape
        counts.append(padded.reshape(rows // box, box, columns // box, box).any((1, 3)).sum())
    return -float(np.polyfit(np.log(sides), np.log(counts), 1)[0])


def fragments(mask_hw: np.ndarray) -> int:
    """Number of pieces that do not touch, not even at a corner."""
    return int(ndimage.label(np.asarray(mask_hw, bool), EIGHT)[1])


def loops(mask_hw: np.ndarray) -> int:
    """Number of holes: fragments less the Euler number. Trees have none."""
    outside = np.pad(~np.asarray(mask_hw, bool), 1, constant_values=True)
    return int(ndimage.label(outside)[1]) - 1


def _junctions(tree: Tree) -> list[list[tuple[Stretch, np.ndarray]]]:
    """Of each junction of three vessels: each with the unit vector in which it leaves, the widest first."""
    found = []
    for centre, meeting in tree.junctions:
        vessels = [tree.stretches[index] for index in meeting]
        # Nearer to the junction than the widest vessel is wide, centre lines bend towards its middle.
        near = int(np.ceil(max((vessel.calibre for vessel in vessels), default=0)))
        if len(vessels) != 3 or any(len(vessel.path) < near + _HEADING for vessel in vessels):
            continue
        leaving = []
        for vessel in vessels:
            path = smooth(vessel.path)
            if np.linalg.norm(path[0] - centre) > np.linalg.norm(path[-1] - centre):
                path = path[::-1]
            away = path[near + _HEADING - 1] - path[near]
            leaving.append((vessel, away / max(float(np.linalg.norm(away)), 1e-9)))
        found.append(sorted(leaving, key=lambda vessel: -vessel[0].calibre))
    return found


def branching_angle(tree: Tree) -> float:
    """Mean angle in degrees between the two narrower vessels of a junction of three."""
    angles = [np.degrees(np.arccos(np.clip(first @ second, -1, 1))) for _, (_, first), (_, second) in _junctions(tree)]
    return float(np.mean(angles)) if angles else float("nan")


def murray_exponent(tree: Tree) -> float:
    """Median x of d₀ˣ = d₁ˣ + d₂ˣ over the junctions of three (Murray, PNAS 1926, 12:207: x = 3)."""
    exponents = []
    for vessels in _junctions(tree):
        parent, *children = (stretch.calibre for stretch, _ in vessels)

        def excess(x: float, shares: tuple[float, ...] = tuple(child / parent for child in children)) -> float:
            return sum(share**x for share in shares) - 1

        low, high = (excess(x) for x in _EXPONENTS)
        if low > 0 > high:
            exponents.append(float(brentq(excess, *_EXPONENTS)))
    return float(np.median(exponents)) if exponents else float("nan")


def central_equivalent(calibres: list[float], kind: str) -> float:
    """Central retinal artery or vein equivalent of the six widest vessels (Knudtson et al. 2003); nan with fewer.

    The widest is joined with the narrowest, w = c·√(w₁² + w₂²), and so on until one is left; an odd one waits.
    """
    widths = sorted(calibres, reverse=True)[:_KNUDTSON_VESSELS]
    if len(widths) < _KNUDTSON_VESSELS:
        return float("nan")
    while len(widths) > 1:
        pairs = len(widths) // 2
        joined = [_KNUDTSON[kind] * float(np.hypot(widths[i], widths[-1 - i])) for i in range(pairs)]
        widths = sorted(joined + widths[pairs : len(widths) - pairs], reverse=True)
    return widths[0]


def _zone(mask: np.ndarray, disc: tuple[float, float], diameter: float) -> np.ndarray:
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    away = np.hypot(rows - disc[0], columns - disc[1]) / diameter
    return mask & (away >= _ZONE_B[0]) & (away <= _ZONE_B[1])


def arcade_angle(mask_hw: np.ndarray, disc: tuple[float, float], fovea: tuple[float, float]) -> float:
    """Angle in degrees that the temporal arcades open at the disc's centre; nan where one is not met.

    Between the widest vessel above and the widest below the line from disc to fovea, on a circle about the disc of two
    thirds of that line's length, on the side of the fovea: the smaller, the nearer the arcades lie to the macula.

    Args:
        mask_hw: bool, of arteries or of veins.
        disc, fovea: row and column, pixels.
    """
    mask = np.asarray(mask_hw, bool)
    axis = np.subtract(fovea, disc)
    distance = float(np.linalg.norm(axis))
    if not distance:
        return float("nan")
    turns = np.linspace(-110, 110, 881)
    radians = np.deg2rad(turns) + np.arctan2(axis[0], axis[1])
    radius = 2 / 3 * distance
    rows = np.rint(disc[0] + radius * np.sin(radians)).astype(int)
    columns = np.rint(disc[1] + radius * np.cos(radians)).astype(int)
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    lit = np.zeros(len(turns), bool)
    lit[inside] = mask[rows[inside], columns[inside]]
    labels, count = ndimage.label(lit)
    crossings = [(int((labels == i).sum()), float(turns[labels == i].mean())) for i in range(1, count + 1)]
    sides = [[c for c in crossings if c[1] < 0], [c for c in crossings if c[1] > 0]]
    if not all(sides):
        return float("nan")
    above, below = (max(side)[1] for side in sides)
    return below - above


def measure(
    channels_2hw: np.ndarray,
    field_hw: np.ndarray | None = None,
    disc: tuple[float, float, float] | None = None,
    fovea: tuple[float, float] | None = None,
) -> dict[str, float]:
    """All figures of one eye, by name: ``artery_…`` and ``vein_…`` of each kind, and those of both.

    Args:
        channels_2hw: bool, artery and vein.
        field_hw: bool, the field of view; None: the whole picture.
        disc: row, column and diameter in pixels, where known.
        fovea: row and column in pixels, where known.
    """
    figures: dict[str, float] = {}
    field = np.ones(channels_2hw.shape[1:], bool) if field_hw is None else field_hw
    equivalent = {}
    for kind, mask in zip(("artery", "vein"), np.asarray(channels_2hw, bool), strict=True):
        tree = trace(mask)
        figures |= {
            f"{kind}_density": float(mask[field].mean()) if field.any() else float("nan"),
            f"{kind}_calibre": _mean_calibre(tree.stretches),
            f"{kind}_tortuosity": tortuosity(tree),
            f"{kind}_fractal_dimension": fractal_dimension(thin(mask)),
            f"{kind}_branching_angle": branching_angle(tree),
            f"{kind}_murray_exponent": murray_exponent(tree),
            f"{kind}_fragments": float(fragments(mask)),
            f"{kind}_loops": float(loops(mask)),
            f"{kind}_arcade_angle": arcade_angle(mask, disc[:2], fovea) if disc and fovea else float("nan"),
        }
        if disc:
            ring = trace(_zone(mask, disc[:2], disc[2])).stretches
            equivalent[kind] = central_equivalent([stretch.calibre for stretch in ring], kind)
    figures["calibre_ratio"] = figures["artery_calibre"] / figures["vein_calibre"]
    figures["arteriole_venule_ratio"] = equivalent["artery"] / equivalent["vein"] if disc else float("nan")
    return figures
