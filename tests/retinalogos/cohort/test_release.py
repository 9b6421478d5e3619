from pathlib import Path

import numpy as np
import pytest

from components import cli
from retinalogos.cohort.release import FLAGGED, release
from retinalogos.cohort.shards import Cohort, CohortWriter, encode_png
from retinalogos.errors import DataError, UsageError


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    with CohortWriter(tmp_path / "synthetic", "eyes-synthetic") as writer:
        for number in range(4):
            image = {"bytes": encode_png(np.full((8, 8, 3), 40 * number, np.uint8)), "path": f"{number}.png"}
            row = {"image_id": f"eye{number}", "patient_id": f"p{number}", "split": "train", "source": "synthetic"}
            writer.add({**row, "image": image, "seed": number, "width": 8, "height": 8, "sha256": f"{number:064}"})
    return Cohort(tmp_path / "synthetic")


def assessed(folder: Path, *flagged: str) -> Path:
    folder.mkdir()
    lines = ["image_id,train_id,space,relative,ratio,rare", *(f"{name},t0,aligned,0.1,0.2,0" for name in flagged)]
    (folder / FLAGGED).write_text("\n".join(lines) + "\n")
    return folder


def test_flagged_images_are_left_out_and_the_rest_is_as_it_was(cohort: Cohort, tmp_path: Path, capsys) -> None:
    folder, out = assessed(tmp_path / "assessment", "eye1", "eye3"), tmp_path / "released"
    assert cli.main(["release", str(cohort.folder), "--assessment", str(folder), "--out", str(out)]) == 0
    assert "2 images; 2 left out" in capsys.readouterr().out
    kept = list(Cohort(out).rows())
    assert kept == [row for row in cohort.rows() if row["image_id"] in ("eye0", "eye2")]
    assert not (out / FLAGGED).exists()  # it names training images


def test_nothing_flagged_leaves_nothing_out(cohort: Cohort, tmp_path: Path) -> None:
    assert release(cohort, assessed(tmp_path / "assessment"), tmp_path / "released") == 0
    assert len(Cohort(tmp_path / "released")) == 4


def test_what_cannot_be_released_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no flagged\.csv"):
        release(cohort, tmp_path / "none", tmp_path / "out")
    with pytest.raises(DataError, match="names other, which"):
        release(cohort, assessed(tmp_path / "a", "other"), tmp_path / "out")
    with pytest.raises(DataError, match="nothing to release"):
        release(cohort, assessed(tmp_path / "b", *(f"eye{i}" for i in range(4))), tmp_path / "out")
    with pytest.raises(UsageError, match="exists"):
        release(cohort, assessed(tmp_path / "c"), cohort.folder)
    assert not (tmp_path / "out").exists()
