"""The benchmark of the lesion-map networks: it runs, and both sides compute the same convolution."""

import pytest
import torch

from benchmarks import lesion_map
from retinalogos.generators.lesion_map.layout import ModulatedConv


def test_both_ways_of_modulating_are_the_same() -> None:
    torch.manual_seed(0)
    for demodulate in (True, False):
        layer = ModulatedConv(4, 6, 3, 5, demodulate)
        x, style = torch.randn(3, 4, 8, 8), torch.randn(3, 5)
        assert torch.allclose(lesion_map.grouped(layer, x, style), layer(x, style), atol=1e-5)


@pytest.mark.parametrize("network", ["layout", "render"])
def test_both_loops_run(network, capsys, no_processes) -> None:
    threads = torch.get_num_threads()
    words = ["--network", network, "--eyes", "4", "--batch", "2", "--steps", "1", "--turns", "1", "--threads", "1"]
    lesion_map.main(words)
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "\nours " in out
    assert "\nplain loop " in out
