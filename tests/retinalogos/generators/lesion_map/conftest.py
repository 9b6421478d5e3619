"""Small phantom eyes, networks and trainings that several tests look at."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from retinalogos.cohort.shards import encode_png
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import (
    AdversarialConfig,
    LayoutConfig,
    LayoutLossConfig,
    RenderConfig,
    RenderLossConfig,
)
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.layout import LayoutGenerator
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline
from retinalogos.generators.lesion_map.render import RenderGenerator
from retinalogos.phantom import draw, sample_records

SIZE = 16


def phantom(n: int, size: int, seed: int = 0) -> Examples:
    records = sample_records(n, seed)
    candidates, images = [], []
    for eye in draw(records, size):
        row = {name: {"bytes": encode_png(getattr(eye, name))} for name in ("lesions", "disc_cup", "fov")}
        candidates.append(maps.from_row({"source": "phantom", **row}, eye.image, size))
        images.append(eye.image)
    people = np.array([record.patient_id for record in records], object)
    grades = np.array([record.dr_grade for record in records])
    return Examples(np.stack(candidates), np.stack(images), grades, people, np.arange(n).astype(object))


@pytest.fixture(scope="session")
def draw_phantom() -> Callable[..., Examples]:
    return phantom


@pytest.fixture(scope="session")
def eyes() -> Examples:
    return phantom(24, SIZE)


@pytest.fixture(scope="session")
def layout_config() -> LayoutConfig:
    widths = (16, 16, 8)
    return LayoutConfig(size=SIZE, latent=16, mapping_layers=2, widths=widths, discriminator_widths=widths, prior=True)


@pytest.fixture(scope="session")
def layout_loss() -> LayoutLossConfig:
    return LayoutLossConfig(
        mixing=0.5, penalty=1.0, penalty_every=2, balanced=True, augment_target=0.6, augment_images=100
    )


@pytest.fixture(scope="session")
def render_config() -> RenderConfig:
    return RenderConfig(
        size=SIZE, latent=4, widths=(16, 16, 8), modulation=8, encoder_widths=(8, 8),
        discriminator_widths=(8, 8), discriminator_scales=1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def render_loss() -> RenderLossConfig:
    return RenderLossConfig(
        feature_matching=10, perceptual=0, perceptual_network="cohort", tone=10, divergence=0.05, mirror=True
    )


@pytest.fixture(scope="session")
def training() -> AdversarialConfig:
    return AdversarialConfig(
        steps=4, batch_size=4, pieces=2, generator_rate=0.002, discriminator_rate=0.002, beta1=0.0, beta2=0.99,
        decay_share=0.5, ema_decay=0.9, checkpoint_every=2, log_every=2, sample_every=4,
    )  # fmt: skip


@pytest.fixture(scope="session")
def pipeline(layout_config, render_config) -> LesionMapPipeline:
    """Random weights, with noise and grades that count."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layout, render = LayoutGenerator(layout_config), RenderGenerator(render_config)
        with torch.no_grad():
            for layer in (*layout.first, *layout.second):
                layer.strength.fill_(0.5)
    layout.find_centres(0)
    return LesionMapPipeline(layout.eval().requires_grad_(False), render.eval().requires_grad_(False))
