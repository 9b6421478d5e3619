"""Planted copies of training eyes are found, fresh eyes are not taken for copies."""

import numpy as np
import pytest

from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import CopyConfig
from retinalogos.generators.lesion_map.copies import find_copies, lesion_descriptor
from retinalogos.generators.lesion_map.examples import Examples

SETTINGS = CopyConfig(side=16, neighbours=20, quantile=0.02)


@pytest.fixture(scope="module")
def sets(draw_phantom) -> tuple[Examples, Examples, Examples]:
    eyes = draw_phantom(160, 32)
    with_lesions = eyes.take(np.isin(eyes.classes, maps.LESIONS).sum((1, 2)) > 4)
    third = len(with_lesions) // 3
    training, test, fresh = (with_lesions.take(np.arange(i, 3 * third, 3)) for i in range(3))
    return training, test, fresh


def brighter(images: np.ndarray) -> np.ndarray:
    return np.clip(images * 1.2 + 5, 0, 255).astype(np.uint8)


def test_planted_copies_are_found_by_map_and_by_photograph(sets) -> None:
    training, test, fresh = sets
    planted = training.take(np.arange(6))
    drawn = Examples(
        np.concatenate([fresh.candidates, planted.candidates]),
        np.concatenate([fresh.images, brighter(planted.images)]),
        *(np.concatenate([getattr(fresh, n), getattr(planted, n)]) for n in ("grades", "patients", "ids")),
    )
    found = find_copies(training, test, drawn, SETTINGS, 20, 0)
    assert set(found) == {"maps", "photographs"}
    for report in found.values():
        nearest = {(pair.drawn, pair.training) for pair in report.pairs[:6]}
        assert nearest == {(len(fresh) + i, i) for i in range(6)}
        assert all(pair.ratio < 1 for pair in report.pairs[:6])
        assert 6 / len(drawn) <= report.share.value < 0.4
        assert report.membership_auc.value > 0.55


def test_fresh_eyes_are_no_copies(sets) -> None:
    training, test, fresh = sets
    for report in find_copies(training, test, fresh, SETTINGS, 20, 0).values():
        assert report.compared == len(fresh)
        assert report.share.value < 0.15
        assert report.share_real.value < 0.15
        assert report.figures.keys() == {"compared", "share", "share_real", "membership_auc"}


def test_maps_without_lesions_are_nobodys_own(sets) -> None:
    training, test, fresh = sets
    bare = Examples(
        np.where(np.isin(fresh.classes, maps.LESIONS), np.uint8(maps.bits((maps.VB,))), fresh.candidates),
        *(getattr(fresh, n) for n in ("images", "grades", "patients", "ids")),
    )
    report = find_copies(training, test, bare, SETTINGS, 20, 0)["maps"]
    assert report.compared == 0
    assert report.share.value != report.share.value
    assert not report.pairs


def test_what_tells_maps_apart_is_which_lesion_lies_where() -> None:
    classes = np.stack([maps.template(16)] * 4)
    classes[0, 4:6, 4:6] = classes[1, 4:6, 4:6] = maps.HE
    classes[1, 10:12, 8:10] = maps.OD
    classes[2, 4:6, 4:6] = maps.EX
    same, other, none = (
        float(np.linalg.norm(d - lesion_descriptor(classes, 8)[0])) for d in lesion_descriptor(classes, 8)[1:]
    )
    assert same == 0
    assert other == pytest.approx(2**0.5)
    assert none == pytest.approx(1)
