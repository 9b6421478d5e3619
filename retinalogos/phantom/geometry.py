"""The frame of the phantom and its curves, as vectors in millimetres: the same at every picture size."""

import numpy as np

# 1 degree of visual angle is about 0.291 mm at the posterior pole of an emmetropic eye
# (Drasdo & Fowler, Br J Ophthalmol 1974, 58:709); a 45 degree field is the usual single-field photograph.
MM_PER_DEGREE = 0.291
FIELD_MM = 45 * MM_PER_DEGREE
FIELD_RADIUS = FIELD_MM / 2

QUADRANTS = ("superior nasal", "superior temporal", "inferior nasal", "inferior temporal")


def quadrant(points: np.ndarray) -> np.ndarray:
    """Index of QUADRANTS for points (…, 2) in mm, about the centre of the field."""
    return 2 * (points[..., 1] > 0) + (points[..., 0] > 0)


def wander(rng: np.random.Generator, k: int, s: np.ndarray, amplitude: float) -> np.ndarray:
    """Smooth random change of heading along ``k`` curves.

    Args:
        rng: source of the phases.
        k: number of curves.
        s: (k, t) arc length, mm.
        amplitude: root mean square, radians.

    Returns:
        (k, t) radians, zero at the start of each curve.
    """
    total = np.zeros_like(s)
    # Wavelengths of the bends of retinal vessels: from half a disc diameter to the length of an arcade.
    for low, high, weight in ((0.8, 1.4, 0.45), (1.6, 3.0, 0.9), (4.0, 7.0, 1.0)):
        frequency = 2 * np.pi / rng.uniform(low, high, (k, 1))
        phase = rng.uniform(0, 2 * np.pi, (k, 1))
        total += weight * (np.sin(frequency * s + phase) - np.sin(phase))
    return amplitude * total


def grow(
    rng: np.random.Generator,
    start: np.ndarray,
    heading: np.ndarray,
    target: np.ndarray,
    relax: np.ndarray,
    length: np.ndarray,
    amplitude: float,
    points: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curves whose heading turns exponentially from ``heading`` to ``target`` and wanders on the way.

    Args:
        rng: source of the wandering.
        start: (k, 2) mm.
        heading: (k,) radians at the start; 0 is temporal, a quarter turn is downwards.
        target: (k,) radians, approached by the shorter way.
        relax: (k,) mm, over which the turn falls to 1/e.
        length: (k,) mm.
        amplitude: of ``wander``, radians.
        points: t, number of points per curve.

    Returns:
        Points (k, t, 2) in mm, headings (k, t) and arc lengths (k, t).
    """
    s = np.linspace(0, 1, points)[None] * length[:, None]
    turn = (heading - target + np.pi) % (2 * np.pi) - np.pi
    angle = (heading - turn)[:, None] + turn[:, None] * np.exp(-s / relax[:, None])
    angle = angle + wander(rng, len(start), s, amplitude)
    step = (length / (points - 1))[:, None]
    middle = (angle[:, 1:] + angle[:, :-1]) / 2
    path = np.empty((len(start), points, 2))
    path[:, 0] = start
    path[:, 1:, 0] = start[:, None, 0] + np.cumsum(step * np.cos(middle), axis=1)
    path[:, 1:, 1] = start[:, None, 1] + np.cumsum(step * np.sin(middle), axis=1)
    return path, angle, s


def ribbons(path: np.ndarray, angle: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Outlines (k, 2t, 2) of curves (k, t, 2) of width (k, t), all in mm."""
    offset = np.stack([-np.sin(angle), np.cos(angle)], -1) * (width / 2)[..., None]
    return np.concatenate([path + offset, (path - offset)[:, ::-1]], axis=1)


def blobs(
    rng: np.random.Generator,
    centre: np.ndarray,
    radius: np.ndarray,
    elongation: np.ndarray | float = 1.0,
    angle: np.ndarray | float = 0.0,
    roughness: float = 0.15,
    points: int = 14,
) -> np.ndarray:
    """Irregular rounded outlines (k, points, 2) in mm, of area about pi * radius**2.

    Args:
        rng: source of the irregularity.
        centre: (k, 2) mm.
        radius: (k,) mm, of the circle of the same area.
        elongation: long over short axis.
        angle: of the long axis, radians.
        roughness: relative deviation of the radius.
        points: of each outline.
    """
    k = len(centre)
    phi = np.linspace(0, 2 * np.pi, points, endpoint=False)
    bumps = np.zeros((k, points))
    for order in (2, 3, 4):
        bumps += np.sin(order * phi + rng.uniform(0, 2 * np.pi, (k, 1))) * rng.uniform(0.3, 1, (k, 1)) / order
    r = radius[:, None] * (1 + 1.6 * roughness * bumps)
    stretch = np.sqrt(np.broadcast_to(np.asarray(elongation, float), (k,)))[:, None]
    x, y = r * np.cos(phi) * stretch, r * np.sin(phi) / stretch
    tilt = np.broadcast_to(np.asarray(angle, float), (k,))[:, None]
    outline = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], -1)
    return centre[:, None] + outline


def area(outline: np.ndarray) -> np.ndarray:
    """Areas (…,) in mm² of polygons (…, m, 2) in mm, by the shoelace formula."""
    x, y = outline[..., 0], outline[..., 1]
    return np.abs((x * np.roll(y, -1, -1) - y * np.roll(x, -1, -1)).sum(-1)) / 2
