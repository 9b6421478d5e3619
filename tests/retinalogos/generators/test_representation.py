"""Alignment to an encoder's features: what it adds to a backbone, what it asks for, and that nothing of it is left."""

import numpy as np
import pytest
import torch
from backbones_at_hand import TINY, inputs, jolt, tiny
from latents_at_hand import write_latents
from short_training import FLOW, TRAINING
from test_objective import objective

from retinalogos.errors import UsageError
from retinalogos.generators.text import representation
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.configuration import RepresentationConfig
from retinalogos.generators.text.representation import Representation, attach, detach, disagreement
from retinalogos.training.loop import train

ENCODER = RepresentationConfig(encoder="cohort", grid=2, pictures=8, steps=2, mean_of=8)
META = {"representation": {"channels": 5, "grid": 3}}


@pytest.fixture
def folder(tmp_path):
    return write_latents(tmp_path / "latents", channels_of_encoder=5)


@pytest.mark.parametrize("name", TINY)
def test_every_backbone_is_aligned_by_what_precedes_its_block_and_is_itself_again_afterwards(name):
    model, (x, t, text, mask, pooled) = jolt(tiny(name)), inputs()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        alone = velocity(model, None, x, t, text, mask, pooled)[0]
    attach(model, META, seed=0)
    model.train()
    velocity(model, None, x, t, text, mask, pooled)
    disagreement(torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))).backward()
    learnt = {key for key, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert {key for key in learnt if "representation_projector" in key} == {
        f"representation_projector.layers.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")
    }
    first, last = {
        "next_dit": ("patch_embedder.proj.weight", "norm_out.linear_2.weight"),
        "unet": ("conv_in.weight", "conv_out.weight"),
        "lumina2": ("x_embedder.weight", "layers.0.attn.to_q.weight"),
    }[name]
    assert first in learnt, "what leads to the block"
    assert last in before, "a name of the network"
    assert last not in learnt, "what comes after it"

    detach(model.eval())
    assert model.state_dict().keys() == before.keys()
    with torch.no_grad():
        assert torch.equal(velocity(model, None, x, t, text, mask, pooled)[0], alone)
    model.train()
    velocity(model, None, x, t, text, mask, pooled)
    assert "projected" not in representation._FOUND.__dict__


def test_disagreement_is_none_for_the_same_direction_two_for_the_opposite_and_looks_where_things_are():
    features = torch.randn(2, 5, 4, 4)
    for projected, expected in ((3 * features, 0), (-features, 2), (features.flip(3), None)):
        representation._FOUND.projected = projected
        found = float(disagreement(features))
        assert found == pytest.approx(expected, abs=1e-5) if expected is not None else 0.3 < found < 1.7
    # A coarser block is told the means of what lies there.
    representation._FOUND.projected = features.unflatten(3, (2, 2)).unflatten(2, (2, 2)).mean((3, 5))
    assert float(disagreement(features)) == pytest.approx(0, abs=1e-5)


def test_the_loss_gains_it_in_training_alone_and_is_still_the_mean_of_its_pieces(folder):
    plain, network = objective(folder)
    aligned, _ = objective(folder, alignment_weight=0.5)
    attach(network, aligned.latents.meta, seed=0)
    with torch.no_grad():
        found, without = float(aligned(network, 3)), float(plain(network, 3))
        assert 0.2 < (found - without) / 0.5 < 1.8
        pieces = [float(aligned(network, 3, slice(start, start + 2))) for start in (0, 2, 4, 6)]
        assert sum(pieces) / 4 == pytest.approx(found, rel=1e-5)
        assert float(aligned(network.eval(), None)) == float(plain(network, None))


def test_a_killed_run_ends_as_one_that_was_not_and_learns_to_agree(folder, tmp_path):
    config = TRAINING.model_copy(update={"steps": 30, "checkpoint_every": 4, "learning_rate": 1e-2})

    def run(name, killed_at=-1):
        loss, network = objective(folder, alignment_weight=1.0)
        attach(network, loss.latents.meta, seed=0)

        def killed(model, step, rows):
            if step == killed_at:
                raise RuntimeError("killed")
            return loss(model, step, rows)

        trained = train(network, killed, config, tmp_path / name, tmp_path / "ck" / name, "pretrain")
        aligned = float(loss(trained.train(), 0))
        loss.flow = FLOW
        agreed = aligned - float(loss(trained, 0))
        detach(trained)
        return trained.state_dict(), agreed

    with pytest.raises(RuntimeError, match="killed"):
        run("killed", killed_at=14)
    again, agreed = run("killed")
    whole, _ = run("whole")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert agreed < 0.8, "features of a mean of zero agree by chance at 1"


def test_an_encoder_is_trained_on_the_pictures_and_its_mean_picture_says_nothing():
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    first, again = (Representation(ENCODER, pictures, seed=0) for _ in range(2))
    found = first(pictures)
    assert found.shape == (8, 192, 2, 2)
    assert first.meta == {"encoder": "cohort", "channels": 192, "grid": 2}
    assert torch.equal(found, again(pictures))
    assert float(found.mean(0).abs().max()) < 1e-4 < float(found.std())
    moved = first(np.roll(pictures, 16, axis=2))
    assert not torch.allclose(moved, found, atol=1e-3), "features tell places"


def test_what_cannot_be_aligned_to_is_refused():
    pictures = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(UsageError, match="'random_conv' gives one vector for a picture"):
        Representation(ENCODER.model_copy(update={"encoder": "random_conv"}), pictures, seed=0)
    with pytest.raises(UsageError, match=r"set encode\.representation\.encoder"):
        attach(tiny("unet"), {"channels": 4}, seed=0)
