"""The contact sheet of the documentation."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from retinalogos.phantom.__main__ import main, sheet_records


def test_sheet_has_a_row_for_each_grade_and_one_for_glaucoma() -> None:
    rows = sheet_records(5, 0)
    assert [{r.dr_grade for r in row} for row in rows] == [{0}, {1}, {2}, {3}, {4}, {0}]
    assert [{r.glaucoma for r in row} for row in rows] == [{"no"}] * 5 + [{"glaucoma"}]
    for row in rows:
        assert len({r.patient_id for r in row}) == 5
        assert {r.eye for r in row} == {"left", "right"}


def test_sheet_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["phantom", "--out", str(out), "--size", "32", "--columns", "2"])
    main()
    assert Image.open(out).size == (64, 192)
