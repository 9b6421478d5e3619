import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from retinalogos.errors import DataError, UsageError
from retinalogos.training import checkpoints, device
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import compute_dtype, reason_not_to_compile
from retinalogos.training.loop import WHOLE, Gradients, schedule, train

CONFIG = TrainingConfig(
    steps=40, batch_size=4, pieces=2, learning_rate=0.05, warmup_steps=4, weight_decay=0.01, beta2=0.99,
    gradient_clip=1.0, ema_decay=0.9, snapshot_every=0, sharded=False,
    checkpoint_activations=False, compile_blocks=False, precision="float32", checkpoint_every=10,
    log_every=5, validate_every=10, sample_every=20,
)  # fmt: skip


def regression():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def loss(model, step, rows):
    draw = torch.Generator().manual_seed(1000 if step is None else step)
    x = torch.randn(16 if step is None else CONFIG.batch_size, 3, generator=draw)[rows]
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def test_it_learns_logs_and_samples(tmp_path):
    drawn = []
    train(regression(), loss, CONFIG, tmp_path / "log", tmp_path / "ck", "test", lambda model, path: drawn.append(path))
    records = [json.loads(line) for line in (tmp_path / "log" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(5, 41, 5))
    assert records[-1]["validation_loss"] < 0.2 * float(loss(regression(), None, WHOLE).detach())
    assert [path.name for path in drawn] == ["step-000020.png", "step-000040.png"]


def weights(model):
    return torch.cat([weight.flatten() for weight in model.parameters()])


def test_a_run_stopped_at_any_step_ends_with_the_same_weights(tmp_path):
    whole = weights(train(regression(), loss, CONFIG, tmp_path / "a", tmp_path / "a-ck", "test"))

    for stop in (3, 10, 27):

        def failing(model, step, rows, stop=stop):
            if step == stop:
                raise KeyboardInterrupt
            return loss(model, step, rows)

        folder = tmp_path / f"ck-{stop}"
        with pytest.raises(KeyboardInterrupt):
            train(regression(), failing, CONFIG, tmp_path / "b", folder, "test")
        resumed = weights(train(regression(), loss, CONFIG, tmp_path / "b", folder, "test"))
        assert torch.equal(whole, resumed)
        assert (tmp_path / "a" / "log.jsonl").read_text() == (tmp_path / "b" / "log.jsonl").read_text()


def test_snapshots_of_a_run_that_was_stopped_are_those_of_one_that_was_not(tmp_path):
    config = CONFIG.model_copy(update={"snapshot_every": 15})

    def failing(model, step, rows):
        if step == 33:
            raise KeyboardInterrupt
        return loss(model, step, rows)

    whole = weights(train(regression(), loss, config, tmp_path / "a", tmp_path / "a-ck", "test"))
    with pytest.raises(KeyboardInterrupt):
        train(regression(), failing, config, tmp_path / "lost", tmp_path / "b-ck", "test")
    assert torch.equal(whole, weights(train(regression(), loss, config, tmp_path / "b", tmp_path / "b-ck", "test")))
    names = sorted(path.name for path in (tmp_path / "a" / "averages").iterdir())
    assert [name[:13] for name in names[::2]] == ["step-00000015", "step-00000030", "step-00000040"]
    for name in names:
        assert (tmp_path / "a" / "averages" / name).read_bytes() == (tmp_path / "b" / "averages" / name).read_bytes()


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from pathlib import Path
        from test_loop import CONFIG, loss, regression
        from retinalogos.training.loop import train
        def dying(model, step, rows):
            if step == 25:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(model, step, rows)
        train(regression(), dying, CONFIG, Path("log"), Path("ck"), "test")
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert killed.returncode == -signal.SIGKILL
    resumed = train(regression(), loss, CONFIG, tmp_path / "log", tmp_path / "ck", "test")
    whole = train(regression(), loss, CONFIG, tmp_path / "log2", tmp_path / "ck2", "test")
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("threads", [1, 3])
def test_gradients_in_pieces_are_those_of_the_whole_batch_on_any_number_of_cores(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = regression()
        model.register_parameter("unused", nn.Parameter(torch.zeros(2)))
        gradients = Gradients(model, loss, CONFIG, torch.float32)
        value = gradients(3)
        gradients.close()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    whole = regression()
    expected = loss(whole, 3, WHOLE)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    assert model.unused.grad is None
    for found, wanted in zip(list(model.parameters())[1:], whole.parameters(), strict=True):
        torch.testing.assert_close(found.grad, wanted.grad)


def test_pieces_are_of_equal_size():
    with pytest.raises(ValidationError, match="batch_size 4 is no multiple of pieces 3"):
        TrainingConfig.model_validate(CONFIG.model_dump() | {"pieces": 3})


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    for step in (10, 20, 30):
        checkpoints.save(tmp_path, step, {"step": step})
    assert len(list(tmp_path.glob("*.pt"))) == 2
    newest = tmp_path / "step-00000030.pt"
    newest.write_bytes(newest.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.load_latest(tmp_path) == {"step": 20}
    assert checkpoints.load_latest(tmp_path / "none") is None


def test_a_gradient_that_is_not_finite_stops_the_run_and_its_step_can_be_replayed(tmp_path):
    def broken(model, step, rows):
        return loss(model, step, rows) * (float("nan") if step == 12 else 1)

    def failing():
        with pytest.raises(DataError, match="not finite at step 12") as stopped:
            train(regression(), broken, CONFIG, tmp_path / "log", tmp_path / "ck", "test", batch=lambda n: {"of": n})
        return tmp_path / "ck" / "not-finite-step-00000012.pt", str(stopped.value)

    path, message = failing()
    assert str(path) in message
    saved = torch.load(path, weights_only=True)
    assert (saved["step"], saved["batch"]) == (12, {"of": 12})
    model = regression()
    model.load_state_dict(saved["model"])
    assert torch.isnan(broken(model, 12, WHOLE))
    # Of the step's beginning: another step of theirs is sound, and a second run meets the same.
    assert torch.isfinite(broken(model, 13, WHOLE))
    again = torch.load(failing()[0], weights_only=True)
    assert all(torch.equal(again["model"][name], value) for name, value in saved["model"].items())


class Block(nn.Module):
    """As those of networks: with a forward of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x).tanh()


class Blocks(nn.Module):
    """Two blocks in a list, as networks have them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.out = nn.Linear(3, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.out(x)


@pytest.mark.skipif(reason_not_to_compile() is not None, reason="torch.compile does not run here")
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_compiled_blocks_learn_what_plain_ones_do(tmp_path, checkpoint_activations):
    config = CONFIG.model_copy(update={"checkpoint_activations": checkpoint_activations})
    plain = train(Blocks(), loss, config, tmp_path / "a", tmp_path / "a-ck", "test")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    config = config.model_copy(update={"compile_blocks": True})
    compiled = train(Blocks(), loss, config, tmp_path / "b", tmp_path / "b-ck", "test")
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "something was compiled"
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-4, atol=1e-5)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert not any("forward" in vars(block) for block in compiled.blocks), "they are as they were"


def test_where_nothing_compiles_that_is_said(tmp_path, monkeypatch):
    def refuse(_):
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(device.torch, "compile", refuse)
    assert reason_not_to_compile() == "no C++ compiler"
    config = CONFIG.model_copy(update={"compile_blocks": True})
    with pytest.raises(UsageError, match=r"pretrain\.compile_blocks.*no C\+\+ compiler"):
        train(Blocks(), loss, config, tmp_path / "log", tmp_path / "ck", "pretrain")


def test_schedule_warms_up_and_ends_at_zero():
    values = [schedule(step, 100, 10) for step in range(100)]
    assert values[:10] == sorted(values[:10])
    assert max(values) == 1
    assert values[10:] == sorted(values[10:], reverse=True)
    assert values[-1] < 0.01


def test_bfloat16_only_where_it_is_native():
    assert compute_dtype("float32", torch.device("cuda")) == torch.float32
    assert compute_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert compute_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
