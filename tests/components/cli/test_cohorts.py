import hashlib

import numpy as np
from PIL import Image

from components import cli
from retinalogos.cohort.shards import CohortWriter, encode_jpeg


def test_inspect_counts_and_draws(tmp_path, capsys):
    rng = np.random.default_rng(0)
    with CohortWriter(tmp_path / "cohort", "toy") as writer:
        for index in range(6):
            image = encode_jpeg(rng.integers(0, 256, (40, 40, 3), np.uint8))
            writer.add(
                {
                    "image_id": f"{index:016x}",
                    "patient_id": f"p{index // 2}",
                    "eye": ("left", "right")[index % 2],
                    "dr_grade": None if index == 5 else index % 3,
                    "split": "train" if index < 4 else "test",
                    "source": "toy",
                    "width": 40,
                    "height": 40,
                    "sha256": hashlib.sha256(image).hexdigest(),
                    "image": {"bytes": image, "path": f"{index}.jpg"},
                }
            )
    assert cli.main(["inspect", str(tmp_path / "cohort"), "--out", str(tmp_path / "s.png"), "--images", "6"]) == 0
    text = capsys.readouterr().out
    assert "6 images of 3 patients" in text
    assert any("train" in line and " 4 " in line and "66.7%" in line for line in text.splitlines())
    assert Image.open(tmp_path / "s.png").width > 100
    assert cli.main(["inspect", str(tmp_path / "cohort"), "--out", str(tmp_path / "three.png"), "--images", "3"]) == 0
    assert "contact sheet of 3 images" in capsys.readouterr().out
