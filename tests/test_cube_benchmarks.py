"""The benchmarks of hyperspectral cubes at toy size."""

from benchmarks import cubes


def test_a_step_tiles_and_the_memory_of_reading_are_told(capsys, no_processes) -> None:
    small = ["--size", "16", "--base-channels", "8", "--batch", "2", "--turns", "1", "--threads", "1"]
    cubes.main(small)
    cubes.main([*small, "--what", "diffusion"])
    cubes.main([*small, "--what", "drawing", "--tile", "8"])
    cubes.main(["--memory", "16", "1", "2"])
    cubes.main(["--tiles", "64", "32", "--base-channels", "8", "--turns", "1", "--threads", "1"])
    told = capsys.readouterr().out
    assert all(
        name in told
        for name in (
            "ours",
            "same networks, float32",
            "the same in two passes",
            "whole pixels, float32",
            "1 cubes",
            "2 cubes",
            "by tiles",
            "whole",
            " dB",
        )
    )
