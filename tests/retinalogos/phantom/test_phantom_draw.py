"""Drawn eyes: determinism, geometry, and maps that tell the truth about the picture."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.errors import UsageError
from retinalogos.phantom import LESION_CLASSES, PhantomEye, PhantomRecord, draw, sample_records
from retinalogos.phantom.geometry import FIELD_MM
from retinalogos.phantom.lesions import lesion_loads

SHARP = {"blur_mm": 0.01, "haze": 0.0, "glow": 0.0, "vignette": 0.2, "illumination": (0.0, 0.0), "field_cut": 0.0}


@pytest.fixture(scope="module")
def records() -> list[PhantomRecord]:
    return sample_records(24, seed=12, grade_weights=(1, 1, 1, 1, 1))


@pytest.fixture(scope="module")
def sharp(records: list[PhantomRecord]) -> list[tuple[PhantomRecord, PhantomEye]]:
    plain = [replace(record, **SHARP) for record in records]
    return list(zip(plain, draw(plain, 256), strict=True))


def equal(one: PhantomEye, other: PhantomEye) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(PhantomEye))


@given(seed=st.integers(0, 2**31), size=st.sampled_from([16, 64, 96, 128]))
@settings(max_examples=12)
def test_any_eye_at_any_size_is_well_formed_and_repeatable(seed: int, size: int) -> None:
    record = sample_records(1, seed, grade_weights=(1, 1, 1, 1, 1))[0]
    eye = draw([record], size)[0]
    assert eye.image.shape == (size, size, 3)
    assert {getattr(eye, f.name).dtype for f in fields(eye)} == {np.dtype(np.uint8)}
    assert eye.lesions.max() < len(LESION_CLASSES)
    assert eye.vessels.max() <= 3
    assert set(np.unique(eye.fov)) == {0, 255}
    for name in ("lesions", "vessels", "disc_cup"):
        assert not getattr(eye, name)[eye.fov == 0].any()
    assert equal(eye, draw([record], size)[0])


def test_an_eye_does_not_depend_on_its_batch(records: list[PhantomRecord]) -> None:
    alone = draw(records[3:4], 96)[0]
    assert equal(alone, draw(records[:6], 96)[3])
    assert equal(alone, draw(records[5:2:-1], 96)[2])


def test_too_small_a_size_is_refused(records: list[PhantomRecord]) -> None:
    with pytest.raises(UsageError, match="16 pixels"):
        draw(records[:1], 8)


def test_a_right_eye_is_the_mirror_image_of_a_left(records: list[PhantomRecord]) -> None:
    left, right = (draw([replace(records[0], eye=eye)], 96)[0] for eye in ("left", "right"))
    assert np.array_equal(left.image, right.image[:, ::-1])
    assert np.array_equal(left.disc_cup, right.disc_cup[:, ::-1])


def test_the_same_anatomy_at_every_size(records: list[PhantomRecord]) -> None:
    for record in records[:6]:
        quiet = replace(record, noise=0.0)
        small, large = draw([quiet], 128)[0], draw([quiet], 512)[0]
        reduced = cv2.resize(large.image, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
        inside = small.fov > 0
        for channel in (0, 1):
            assert np.corrcoef(reduced[inside, channel], small.image[inside, channel])[0, 1] > 0.97
        disc = cv2.resize((large.disc_cup > 0).astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA) >= 0.5
        assert (disc & (small.disc_cup > 0)).sum() / (disc | (small.disc_cup > 0)).sum() > 0.9
        vessels = cv2.resize((large.vessels > 0).astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA) >= 0.35
        assert 2 * (vessels & (small.vessels > 0)).sum() / (vessels.sum() + (small.vessels > 0).sum()) > 0.75


def test_the_disc_is_on_the_side_of_the_eye_and_where_the_record_puts_it(
    sharp: list[tuple[PhantomRecord, PhantomEye]],
) -> None:
    for record, eye in sharp:
        rows, columns = np.nonzero(eye.disc_cup)
        x, y = (columns.mean() + 0.5) / 256, (rows.mean() + 0.5) / 256
        assert (x < 0.5) == (record.eye == "left")
        mirror = 1 if record.eye == "left" else -1
        if rows.min() > 0 and min(columns.min(), 255 - columns.max()) > 2:
            assert x == pytest.approx(0.5 + mirror * record.disc[0] / FIELD_MM, abs=0.012)
            assert y == pytest.approx(0.5 + record.disc[1] / FIELD_MM, abs=0.012)


def test_the_drawn_cup_has_the_ratio_of_the_record(sharp: list[tuple[PhantomRecord, PhantomEye]]) -> None:
    errors = []
    for record, _ in sharp:
        eye = draw([replace(record, disc_tilt=0.0, rim_notch=False, **SHARP)], 512)[0]
        cup, disc = (np.ptp(np.nonzero((eye.disc_cup >= least).any(1))[0]) + 1 for least in (2, 1))
        errors.append(cup / disc - record.vcdr)
    assert np.abs(errors).max() < 0.05


def test_rim_widths_on_the_map_follow_the_record(records: list[PhantomRecord]) -> None:
    ill = [r for r in sample_records(60, 5, (1, 0, 0, 0, 0), (0, 0, 1)) if r.glaucoma == "glaucoma"][:5]
    for record in [*records[:4], *ill]:
        upright = replace(record, eye="left", disc_tilt=0.0, rim_notch=False, **SHARP)
        disc_cup = draw([upright], 512)[0].disc_cup
        pixel = FIELD_MM / 512
        column, row = (round((c / FIELD_MM + 0.5) * 512 - 0.5) for c in upright.disc)
        vertical, horizontal = disc_cup[:, column], disc_cup[row]
        measured = {
            "superior": (vertical[:row] == 1).sum() * pixel,
            "inferior": (vertical[row:] == 1).sum() * pixel,
            "nasal": (horizontal[:column] == 1).sum() * pixel,
            "temporal": (horizontal[column:] == 1).sum() * pixel,
        }
        for pole, width in upright.rim_mm.items():
            assert measured[pole] == pytest.approx(width, abs=2.5 * pixel)


def contrast(eye: PhantomEye, mask: np.ndarray, channel: int = 1) -> float:
    """Mean of the channel in the mask less its mean in the unlabelled ring round it, grey levels."""
    ring = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    ring &= (eye.lesions == 0) & (eye.vessels == 0) & (eye.disc_cup == 0) & (eye.fov > 0)
    return float(eye.image[mask, channel].mean() - eye.image[ring, channel].mean())


def test_the_maps_agree_with_the_picture(sharp: list[tuple[PhantomRecord, PhantomEye]]) -> None:
    signs = {"haemorrhage": -1, "preretinal_haemorrhage": -1, "hard_exudate": 1, "soft_exudate": 1}
    seen = set()
    for _, eye in sharp:
        retina = eye.disc_cup == 0
        assert contrast(eye, (eye.vessels == 1) & retina) < -4
        assert contrast(eye, (eye.vessels == 2) & retina) < contrast(eye, (eye.vessels == 1) & retina)
        assert contrast(eye, (eye.disc_cup > 0) & (eye.vessels == 0)) > 10
        cup, rim = (eye.image[(eye.disc_cup == part) & (eye.vessels == 0)].astype(float).mean(0) for part in (2, 1))
        assert cup[1] > rim[1] + 15
        beyond = cv2.dilate(eye.fov, np.ones((5, 5), np.uint8)) == 0
        assert eye.image[beyond].max() < 12
        for name, sign in signs.items():
            mask = (eye.lesions == LESION_CLASSES.index(name)) & (eye.vessels == 0) & retina
            if mask.sum() > 12:
                seen.add(name)
                assert sign * contrast(eye, mask) > 4
    assert seen == set(signs)


def test_lesions_on_the_map_have_the_area_of_the_record(sharp: list[tuple[PhantomRecord, PhantomEye]]) -> None:
    drawn, true = [], []
    for record, eye in sharp:
        drawn.append((eye.lesions > 0).sum() / (eye.fov > 0).sum())
        true.append(sum(lesion_loads(record)[1]))
        assert (eye.lesions > 0).any() or record.dr_grade <= 1
    # Overlaps and lesions thinner than a pixel keep the two from being equal.
    assert np.corrcoef(drawn, true)[0, 1] > 0.98
    assert sum(drawn) == pytest.approx(sum(true), rel=0.25)


def test_a_cut_field_is_cut_and_a_whole_one_touches_the_borders(records: list[PhantomRecord]) -> None:
    whole, cut = (draw([replace(records[0], field_cut=share)], 128)[0].fov for share in (0.0, 0.08))
    assert whole[0].any()
    assert whole[:, 0].any()
    rows = np.flatnonzero(cut.any(1))
    assert rows[0] == pytest.approx(0.08 * 128, abs=1)
    assert 127 - rows[-1] == pytest.approx(0.08 * 128, abs=1)
    assert whole.mean() / 255 == pytest.approx(np.pi / 4, abs=0.02)
