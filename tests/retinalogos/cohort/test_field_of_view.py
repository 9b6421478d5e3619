import cv2
import numpy as np
from drawn_eye import draw_eye
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.cohort.field_of_view import find_field, place, resample, square_image, square_map


def framed(eye: np.ndarray, left: int, top: int, right: int, bottom: int, colour: int = 0) -> np.ndarray:
    return cv2.copyMakeBorder(eye, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(colour,) * 3)


@settings(max_examples=25)
@given(
    left=st.integers(0, 300),
    top=st.integers(0, 120),
    right=st.integers(0, 300),
    bottom=st.integers(0, 120),
    side=st.integers(160, 420),
)
def test_the_field_is_found_wherever_it_lies(left: int, top: int, right: int, bottom: int, side: int) -> None:
    image = framed(draw_eye(2, side), left, top, right, bottom)
    frame = find_field(image)
    height, width = image.shape[:2]
    margin = 0.04 * side  # of the drawn eye's own black margin
    tolerance = 0.0175 * max(width, height) + 2
    assert abs(frame.left * width - (left + margin)) < tolerance
    assert abs(frame.right * width - (left + side - margin)) < tolerance
    assert abs(frame.top * height - (top + margin)) < tolerance
    assert abs(frame.bottom * height - (top + side - margin)) < tolerance
    assert frame.coverage > 0.95


def test_a_white_frame_is_no_field() -> None:
    image = framed(draw_eye(2, 200), 40, 10, 60, 10, colour=255)
    frame = find_field(image)
    assert abs(frame.left * image.shape[1] - 48) < 5
    assert abs(frame.right * image.shape[1] - 232) < 5


def test_text_in_the_margin_is_removed() -> None:
    image = framed(draw_eye(2, 300), 100, 0, 100, 0)
    cv2.putText(image, "ANNA 1950", (5, 290), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    frame = find_field(image)
    at = place(frame, image.shape[1], image.shape[0], 128)
    square = square_image(image, frame, at)
    axis = (np.arange(128) + 0.5) / 64 - 1
    outside = axis[:, None] ** 2 + axis[None, :] ** 2 > 1.08
    assert square[outside].max() == 0
    assert square[~outside].mean() > 60


def test_a_dark_picture_keeps_its_whole_frame() -> None:
    frame = find_field(np.full((100, 140, 3), 3, np.uint8))
    assert (frame.left, frame.top, frame.right, frame.bottom) == (0, 0, 1, 1)
    assert frame.hull is None


def test_a_field_cut_at_top_and_bottom_is_padded_in_the_middle() -> None:
    image = draw_eye(2, 300)[70:230]
    frame = find_field(image)
    at = place(frame, 300, 160, 100)
    assert at.width == 100
    assert at.height < 65
    square = square_image(image, frame, at)
    assert square[: at.y].max() == 0
    assert square[at.y + at.height :].max() == 0
    assert abs((100 - at.height) // 2 - at.y) <= 1


def test_fine_stripes_do_not_alias() -> None:
    stripes = np.where(np.arange(1000) % 3 == 0, 255, 0).astype(np.uint8)
    image = np.repeat(np.repeat(stripes[None, :, None], 400, axis=0), 3, axis=2)
    for width in (101, 290):  # 0.5 cycles a pixel is the finest that can be shown; these are 3.3 and 1.15
        small = resample(image, width, 116)
        assert small[10:-10, 10:-10].std() < 10, width
    nearest = cv2.resize(image, (290, 116), interpolation=cv2.INTER_LINEAR)
    assert nearest[10:-10, 10:-10].std() > 40  # the same stripes without a filter


def test_maps_follow_the_picture() -> None:
    eye = draw_eye(2, 300)
    image = framed(eye, 60, 0, 20, 0)
    classes = framed(np.repeat((eye.min(2) > 100).astype(np.uint8)[..., None], 3, 2), 60, 0, 20, 0)[..., 0] * 2
    frame = find_field(image)
    at = place(frame, image.shape[1], image.shape[0], 128)
    square, small = square_image(image, frame, at), square_map(classes, frame, at, 0.5)
    assert set(np.unique(small)) == {0, 2}
    bright = square.min(2) > 110
    assert (bright & (small == 2)).sum() / max(bright.sum(), (small == 2).sum()) > 0.8


def test_a_thin_line_survives_by_its_share() -> None:
    classes = np.zeros((400, 400), np.uint8)
    classes[:, 199:201] = 1  # half of a pixel at 100
    image = np.full((400, 400, 3), 90, np.uint8)
    frame = find_field(image)
    at = place(frame, 400, 400, 100)
    assert square_map(classes, frame, at, 0.25).sum() >= 95
    assert square_map(classes, frame, at, 0.6).sum() == 0
