import numpy as np
import pytest

from retinalogos.contact_sheet import make_sheet
from retinalogos.errors import UsageError


def test_sheet_keeps_pictures_in_order_and_captions_within_their_width():
    images = [np.full((20, 20, 3), value, np.uint8) for value in (10, 90, 170)]
    sheet = make_sheet(images, ["a", "word " * 100, "x" * 500], columns=2, size=64)
    assert sheet.shape[1] == 2 * 72 + 8
    assert [sheet[20, 20].tolist(), sheet[20, 92].tolist()] == [[10] * 3, [90] * 3]
    assert (sheet[:, -4:] == sheet[0, 0]).all(), "no caption runs over the margin"
    with pytest.raises(UsageError, match="captions"):
        make_sheet(images, ["one"])
    with pytest.raises(UsageError, match="at least one"):
        make_sheet([])
