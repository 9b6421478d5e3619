from collections.abc import Callable

import cv2
import numpy as np
import pytest

from retinalogos.errors import DataError
from retinalogos.metrics import alignment
from retinalogos.phantom import draw, sample_records

SIZE = 96


@pytest.fixture(scope="module")
def eyes() -> np.ndarray:
    return np.stack([eye.image for eye in draw(sample_records(40, seed=3), SIZE)])


def shifted(image: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(image, np.array([[1.0, 0, 6], [0, 1.0, -5]]), (SIZE, SIZE))


def brighter(image: np.ndarray) -> np.ndarray:
    return (image * 1.2 + 15).clip(0, 255).astype(np.uint8)


def as_jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)


def cropped(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image[8:92, 4:88], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def mirrored(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


ALTERATIONS = (shifted, brighter, as_jpeg, cropped, mirrored)


@pytest.mark.parametrize("alter", ALTERATIONS, ids=lambda alter: alter.__name__)
def test_an_altered_copy_is_nearer_to_its_original_than_any_stranger(
    eyes: np.ndarray, alter: Callable[[np.ndarray], np.ndarray]
) -> None:
    references, strangers = alignment.structure(eyes[:24]), alignment.structure(eyes[24:])
    copies = alignment.align(alignment.structure(np.stack([alter(eye) for eye in eyes[:6]])), references)
    unlike = alignment.align(strangers, references)
    np.testing.assert_array_equal(copies.index, np.arange(6))
    assert copies.relative.max() < unlike.relative.min()
    assert copies.distance.max() < unlike.distance.min()


def test_the_same_picture_is_at_no_distance_at_any_chunk(eyes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = alignment.structure(eyes[:12])
    found = alignment.align(maps, maps)
    np.testing.assert_allclose(found.distance, 0, atol=1e-5)
    np.testing.assert_array_equal(found.index, np.arange(12))
    monkeypatch.setattr(alignment, "CHUNK", 5)
    monkeypatch.setattr(alignment, "REFERENCES", 9)
    again = alignment.align(maps[::-1], maps)
    np.testing.assert_allclose(again.relative[::-1], found.relative, atol=1e-5)
    assert len(alignment.align(maps[:0], maps).distance) == 0


def test_structure_is_empty_where_there_is_nothing_and_outside_the_field(eyes: np.ndarray) -> None:
    assert not alignment.structure(np.zeros((1, 32, 32, 3), np.uint8)).any()
    maps = alignment.structure(eyes)
    assert not maps[:, :4, :4].any()
    assert (np.abs(maps[:, 24:40, 24:40]).mean((1, 2)) > 5).all()


def test_likeness_of_pairs(eyes: np.ndarray) -> None:
    maps = alignment.structure(eyes[:8])
    moved = alignment.structure(np.stack([shifted(eye) for eye in eyes[:8]]))
    turned = alignment.structure(np.stack([mirrored(eye) for eye in eyes[:8]]))
    np.testing.assert_allclose(alignment.likeness(maps, maps, mirrored=False), 1, atol=1e-5)
    strangers = alignment.likeness(maps, maps[::-1], mirrored=False)
    assert alignment.likeness(moved, maps, mirrored=False).min() > strangers.max()
    assert alignment.likeness(turned, maps, mirrored=True).min() > 0.95
    assert alignment.likeness(turned, maps, mirrored=False).max() < 0.8


def test_one_reference_is_too_few(eyes: np.ndarray) -> None:
    maps = alignment.structure(eyes[:1])
    with pytest.raises(DataError, match="two training images or more, there are 1"):
        alignment.align(maps, maps)
