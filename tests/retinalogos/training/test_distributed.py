"""Two processes against one: the same weights to float32's tolerance, for the order of a sum differs."""

import json

import pytest
import torch
from test_loop import CONFIG, loss, regression
from torch import nn
from two_processes import in_two_processes

from retinalogos.errors import DataError, UsageError
from retinalogos.training import distributed
from retinalogos.training.averages import TRACKED, reconstruct
from retinalogos.training.loop import Gradients, train


def assert_close(found, wanted):
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_two_processes_stopped_and_started_again_end_with_the_weights_of_one(tmp_path):
    # Each process has a log folder of its own, to see who writes; checkpoints are shared.
    config = CONFIG.model_copy(update={"sample_every": 40, "snapshot_every": 20})
    alone = train(regression(), loss, config, tmp_path / "log", tmp_path / "ck-alone", "test")

    def work(rank):
        rows_seen = set()

        def failing(model, step, rows):
            if step == 27:
                raise KeyboardInterrupt
            if step is not None:
                rows_seen.add((rows.start, rows.stop))
            return loss(model, step, rows)

        def sample(_, path):
            if rank:
                return
            path.parent.mkdir(parents=True)
            path.touch()

        log, kept = tmp_path / f"log-{rank}", tmp_path / "ck"
        with pytest.raises(KeyboardInterrupt):
            train(regression(), failing, config, log, kept, "test", sample)
        assert distributed.count() == 2
        assert [path.name for path in sorted(kept.glob("*.json"))] == ["step-00000010.json", "step-00000020.json"]
        model = train(regression(), loss, config, log, kept, "test", sample)
        torch.save((model.state_dict(), sorted(rows_seen)), tmp_path / f"end-{rank}.pt")

    assert in_two_processes(work) == [0, 0]
    (one, rows_of_one), (other, rows_of_other) = (torch.load(tmp_path / f"end-{rank}.pt") for rank in (0, 1))
    assert rows_of_one == [(0, 1), (1, 2)]
    assert rows_of_other == [(2, 3), (3, 4)]
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    written = sorted(path.name for path in (tmp_path / "log-0").iterdir())
    assert written == ["averages", "curves.json", "log.jsonl", "samples"]
    assert not (tmp_path / "log-1").exists()

    assert_close(one, alone.state_dict())
    # What two processes left, one goes on with.
    assert_close(one, train(regression(), loss, config, tmp_path / "log", tmp_path / "ck", "test").state_dict())


class Blocks(nn.Module):
    """A network of blocks, each of which is sharded by itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3)) for _ in range(2))
        self.out = nn.Linear(3, 1)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def test_a_sharded_run_stopped_and_started_again_ends_with_the_weights_of_one_process(tmp_path):
    alone = train(Blocks(), loss, CONFIG, tmp_path / "log-alone", tmp_path / "ck-alone", "test")
    config = CONFIG.model_copy(update={"sharded": True, "checkpoint_activations": True, "snapshot_every": 40})

    def work(rank):
        def failing(model, step, rows):
            assert model.blocks[1][0].weight.to_local().shape == (4, 3)  # half of it
            if step == 27:
                raise KeyboardInterrupt
            return loss(model, step, rows)

        log, kept = tmp_path / "log", tmp_path / "ck"
        with pytest.raises(KeyboardInterrupt):
            train(Blocks(), failing, config, log, kept, "test")
        assert [path.name for path in sorted(kept.iterdir())] == [
            f"step-000000{step}.{kind}" for step in (10, 20) for kind in ("json", "shards")
        ]
        distributed.wait_for_all()
        if rank == 0:
            shard = kept / "step-00000020.shards" / "__1_0.distcp"
            shard.write_bytes(shard.read_bytes()[:-7])
        distributed.wait_for_all()
        with pytest.warns(UserWarning, match=r"step-00000020.shards is damaged"):
            model = train(Blocks(), loss, config, log, kept, "test")
        torch.save(model.state_dict(), tmp_path / f"end-{rank}.pt")

    assert in_two_processes(work) == [0, 0]
    one, other = (torch.load(tmp_path / f"end-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert_close(one, alone.state_dict())
    found, _ = reconstruct(tmp_path / "log" / "averages", TRACKED[1])
    assert found.keys() == one.keys()
    records, wanted = (
        [json.loads(line) for line in (tmp_path / log / "log.jsonl").read_text().splitlines()]
        for log in ("log", "log-alone")
    )
    assert [record["loss"] for record in records] == pytest.approx([record["loss"] for record in wanted], abs=2e-6)


def test_activations_that_are_computed_again_give_the_same_weights(tmp_path):
    computed = []
    ends = []
    for again in (False, True):
        model = Blocks()
        model.blocks[0][0].register_forward_hook(lambda *_, again=again: computed.append(again))
        config = CONFIG.model_copy(update={"checkpoint_activations": again, "steps": 3})
        ends.append(train(model, loss, config, tmp_path / "log", tmp_path / f"ck-{again}", "test"))
        assert model.blocks[0].forward.__name__ == "forward"
    assert computed.count(True) == 2 * 2 * 3 + 1  # pieces, twice, of three steps; and the validation once
    assert computed.count(False) == 2 * 3 + 1
    assert all(torch.equal(value, ends[1].state_dict()[name]) for name, value in ends[0].state_dict().items())


def test_sharding_needs_torchrun(tmp_path):
    with pytest.raises(UsageError, match="torchrun"):
        train(Blocks(), loss, CONFIG.model_copy(update={"sharded": True}), tmp_path, tmp_path / "ck", "test")


def test_every_process_stops_at_a_gradient_that_is_not_finite_in_one(tmp_path):
    def broken(model, step, rows):
        return loss(model, step, rows) * (float("nan") if step == 3 and rows.start == 2 else 1)

    def work(rank):
        with pytest.raises(DataError, match="step 3"):
            train(regression(), broken, CONFIG, tmp_path / "log", tmp_path / "ck", "test", batch=lambda _: {"by": rank})
        # Whoever is here finds it written: a process that ends with an error has torchrun end the others.
        assert torch.load(tmp_path / "ck" / "not-finite-step-00000003.pt")["batch"] == {"by": 0}

    assert in_two_processes(work) == [0, 0]


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 3)
    with pytest.raises(UsageError, match="batch_size 4 is no multiple of 3 processes with 2 pieces each"):
        Gradients(regression(), loss, CONFIG, torch.float32)
