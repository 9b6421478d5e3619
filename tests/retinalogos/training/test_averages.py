import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_loop import CONFIG, loss, regression

from retinalogos.errors import UsageError
from retinalogos.training.averages import TRACKED, profile, reconstruct, save_snapshots, share_of_new
from retinalogos.training.loop import train

WIDTHS = st.floats(0.01, 0.288)


@settings(max_examples=30)
@given(WIDTHS, st.integers(1, 4000), st.integers(0, 50))
def test_a_profile_has_the_width_asked_for_and_sums_to_one(width, step, later):
    shares = profile(width, step, step + later)
    assert shares.sum() == pytest.approx(1)
    assert not shares[step:].any()
    places = (np.arange(len(shares)) + 0.5) / step
    mean = float(shares @ places)
    # Shares are constant within a step, which adds the variance of one.
    variance = float(shares @ (places - mean) ** 2) + 1 / (12 * step**2)
    if step > 1000:
        assert variance**0.5 == pytest.approx(width, rel=0.02)


@settings(max_examples=30)
@given(WIDTHS, st.integers(1, 200))
def test_tracking_step_by_step_gives_the_profile(width, steps):
    tracked = np.zeros(steps)
    for step in range(1, steps + 1):
        tracked += share_of_new(width, step) * (np.eye(steps)[step - 1] - tracked)
    np.testing.assert_allclose(tracked, profile(width, steps, steps), atol=1e-12)


def test_of_a_run_any_width_is_reconstructed_as_if_it_had_been_tracked(tmp_path):
    # The average of decay 0 is the weights themselves: what the run returns are the last ones.
    config = CONFIG.model_copy(update={"snapshot_every": 4, "ema_decay": 0.0})
    after_step: dict[int, dict[str, torch.Tensor]] = {}

    def watched(model, step, rows):
        if step:
            after_step[step - 1] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        return loss(model, step, rows)

    after_step[39] = train(regression(), watched, config, tmp_path / "log", tmp_path / "ck", "test").state_dict()
    assert sorted(after_step) == list(range(40))
    for width in (*TRACKED, 0.04, 0.07, 0.15, 0.2):
        found, off = reconstruct(tmp_path / "log" / "averages", width)
        assert off < 0.05
        direct = {
            name: sum(float(share) * after_step[k][name] for k, share in enumerate(profile(width, 40, 40)))
            for name in found
        }
        for name, value in direct.items():
            way = max(float((after_step[k][name] - after_step[39][name]).abs().max()) for k in range(40))
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5 if width in TRACKED else 0.03 * way)
    # Far narrower than the distance of two snapshots: it says so.
    assert reconstruct(tmp_path / "log" / "averages", 0.005)[1] > 0.3


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(UsageError, match="snapshot_every"):
        reconstruct(tmp_path, 0.1)
    save_snapshots(tmp_path, 3, {0.1: {"weight": torch.ones(2)}})
    for width in (0.0, 0.3):
        with pytest.raises(UsageError, match=f"relative width {width}"):
            reconstruct(tmp_path, width)
