"""The benchmarks of hyperspectral cubes at toy size."""

import csv

from benchmarks import cube_grid, cubes, paired
from benchmarks.paired import Memory


def test_the_front_holds_what_no_other_beats() -> None:
    points = [
        {"cubes_per_second": speed, cube_grid.METRIC: quality}
        for speed, quality in ((10, 5.0), (8, 6.0), (5, 2.0), (5, 3.0), (1, 2.5), (0.5, 1.0))
    ]
    best = [(point["cubes_per_second"], point[cube_grid.METRIC]) for point in cube_grid.front(points)]
    assert best == [(10, 5.0), (5, 2.0), (0.5, 1.0)]


def test_the_grid_writes_its_table_and_its_plot_and_goes_on(tmp_path, monkeypatch) -> None:
    tried = []

    def stage(name, values, inputs, home):
        tried.append((name, home.name))
        return {"autoencoder_psnr": 20.0, **{cube_grid.METRIC + end: 1.0 for end in ("", "_low", "_high", "_real")}}

    monkeypatch.setattr(cube_grid, "stage", stage)
    monkeypatch.setattr(cube_grid, "speed", lambda generator: 3.0)
    cube_grid.main(["--preset", "smoke", "--compression", "4", "8", "--latent-channels", "8", "--base-channels", "16",
                    "--out", str(tmp_path)])  # fmt: skip
    with (tmp_path / "grid.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["compression"] for row in rows] == ["4", "8"]
    assert (tmp_path / "pareto.png").stat().st_size > 1000
    assert ("train_vqgan", "f8-c8") in tried
    assert ("judge_cubes", "base16") in tried


def test_a_step_and_the_memory_of_reading_are_told(capsys, monkeypatch) -> None:
    monkeypatch.setattr(paired, "memory", lambda *_: Memory(300.0, 100.0))
    cubes.main(["--size", "16", "--base-channels", "8", "--batch", "2", "--turns", "1"])
    cubes.main(["--memory", "16", "1", "2"])
    told = capsys.readouterr().out
    assert all(name in told for name in ("ours", "float32 defaults", "1 cubes", "2 cubes"))
