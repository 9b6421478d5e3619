"""Small pictures that look enough like an eye for the ingest: a lit disc with vessels on black."""

import cv2
import numpy as np


def draw_eye(seed: int, width: int = 96, height: int | None = None) -> np.ndarray:
    """uint8 RGB: a lit circle with a bright disc and random dark lines."""
    height = height or width
    rng = np.random.default_rng(seed)
    radius = 0.46 * min(width, height)
    centre = (width // 2, height // 2)
    image = np.zeros((height, width, 3), np.uint8)
    cv2.circle(image, centre, int(radius), (190, 90, 40), -1)
    disc = (int(centre[0] + rng.uniform(-0.5, 0.5) * radius), int(centre[1] + rng.uniform(-0.2, 0.2) * radius))
    cv2.circle(image, disc, max(2, int(radius / 6)), (250, 210, 150), -1)
    for _ in range(14):
        end = rng.uniform(-0.95, 0.95, 2) * radius + centre
        cv2.line(image, disc, (int(end[0]), int(end[1])), (120, 40, 20), max(1, int(radius / 30)), cv2.LINE_AA)
    lit = (np.hypot(*np.meshgrid(np.arange(width) - centre[0], np.arange(height) - centre[1])) < radius)[..., None]
    return np.where(lit, image, 0).astype(np.uint8)


def textured(seed: int, width: int = 256) -> np.ndarray:
    """The same with the soft texture of a retina, without which a perceptual hash sees noise."""
    noise = np.random.default_rng(seed).normal(0, 1, (24, 24)).astype(np.float32)
    texture = cv2.resize(noise, (width, width), interpolation=cv2.INTER_CUBIC)
    return np.clip(draw_eye(seed, width) + 18 * texture[..., None], 0, 255).astype(np.uint8)
