"""Both networks trained on two processes, stopped and started again, end like those of one process."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from two_processes import in_two_processes

from retinalogos.generators.lesion_map import adversarial
from retinalogos.generators.lesion_map.layout_training import LayoutObjective
from retinalogos.generators.lesion_map.render_training import RenderObjective
from retinalogos.training import checkpoints, distributed


@pytest.mark.parametrize("network", ["layout", "render"])
def test_two_processes_stopped_and_started_again_end_like_one(
    network, eyes, layout_config, layout_loss, render_config, render_loss, training, tmp_path, monkeypatch
) -> None:
    def fit(home, pieces: int) -> None:
        if network == "layout":
            objective = LayoutObjective(eyes, layout_config, layout_loss, training.batch_size, 0)
        else:
            objective = RenderObjective(eyes, render_config, render_loss, None, training.batch_size, 0)
        settings = training.model_copy(update={"pieces": pieces})
        adversarial.train(objective, settings, home, tmp_path / f"checkpoints-{pieces}", "test")
        if distributed.rank() == distributed.FIRST:
            weights = objective.generator.state_dict()
            save_file({name: value.contiguous() for name, value in weights.items()}, home / "weights.safetensors")

    save = checkpoints.save

    def save_and_die(folder, step, state) -> None:
        save(folder, step, state)
        distributed.wait_for_all()
        raise KeyboardInterrupt

    def killed(rank: int) -> None:
        monkeypatch.setattr(checkpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "killed", 1)

    fit(tmp_path / "one", 2)
    assert in_two_processes(killed) == [0, 0]
    assert in_two_processes(lambda rank: fit(tmp_path / f"of-{rank}", 1)) == [0, 0]
    assert not (tmp_path / "of-1").exists(), "the first process writes for all"
    one, two = (load_file(tmp_path / home / "weights.safetensors") for home in ("one", "of-0"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    logs = [json.loads((tmp_path / home / "curves.json").read_text()) for home in ("one", "of-0")]
    assert [record["step"] for record in logs[1]] == [record["step"] for record in logs[0]] == [2, 4]
    for name, value in logs[0][-1].items():
        assert logs[1][-1][name] == pytest.approx(value, rel=1e-2, abs=1e-4), name
