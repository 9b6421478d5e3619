import pytest
import torch
from conftest import CHANNELS, DIM, WIDTH, write_latents

from retinalogos.errors import UsageError
from retinalogos.generators.text.backbones import build_backbone
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.objective import FlowMatching
from retinalogos.generators.text.stages import new_conditioning, new_prior

NETWORK = {"patch_size": 2, "hidden_size": 32, "num_layers": 1, "num_attention_heads": 4, "multiple_of": 8}


def objective(folder, prior=True, dropout=0.1):
    latents = Latents(folder)
    conditioning = new_conditioning(latents, standardise=True)
    known = new_prior(latents, conditioning, 8) if prior else None
    torch.manual_seed(0)
    network = build_backbone("next_dit", CHANNELS, DIM, WIDTH, NETWORK, prior)
    return FlowMatching(latents, conditioning, known, 8, 0, "logit_normal", 1.0, dropout, 0.5), network


def test_untrained_it_is_one_with_a_prior_at_every_time_and_the_velocitys_own_square_without(tmp_path):
    write_latents(tmp_path / "many", images=600)
    loss, network = objective(tmp_path / "many")
    with torch.no_grad():
        steps = [float(loss(network, step)) for step in range(40)]
        assert sum(steps) / len(steps) == pytest.approx(1, abs=0.05)
        assert float(loss(network, None)) == pytest.approx(1, abs=0.1)
        plain, network = objective(tmp_path / "many", prior=False)
        data = torch.stack([plain.latents.latent(row) for row in range(600)])
        assert float(plain(network, None)) == pytest.approx(1 + float(data.square().mean()), rel=0.1)


def test_a_batch_depends_on_its_step_alone_and_is_the_mean_of_its_pieces(latents_folder):
    loss, network = objective(latents_folder)
    with torch.no_grad():
        whole = float(loss(network, 5))
        assert float(loss(network, 6)) != whole
        assert float(loss(network, 5)) == whole
        pieces = [float(loss(network, 5, slice(start, start + 2))) for start in (0, 2, 4, 6)]
    assert sum(pieces) / 4 == pytest.approx(whole, rel=1e-5)


def test_no_image_is_shown_twice_in_an_epoch(latents_folder):
    loss, _ = objective(latents_folder)
    first, second = loss._images(0), loss._images(1)
    assert sorted(first + second) == loss.latents.rows("train")
    assert loss._images(2) + loss._images(3) != first + second


def test_captions_are_dropped_in_training_and_never_in_validation(latents_folder):
    loss, _ = objective(latents_folder, dropout=0.5)
    draw = torch.Generator().manual_seed(0)
    empty = [loss._caption(0, draw, training=True) == loss.empty for _ in range(400)]
    assert sum(empty) / 400 == pytest.approx(0.5, abs=0.08)
    assert not any(loss._caption(0, draw, training=False) == loss.empty for _ in range(100))


def test_latents_without_a_training_image_are_refused(tmp_path):
    write_latents(tmp_path / "one", images=1)  # the first is of the validation split
    latents = Latents(tmp_path / "one")
    with pytest.raises(UsageError, match="no image of the split 'train'"):
        FlowMatching(latents, new_conditioning(latents, True), None, 8, 0, "uniform", 1.0, 0.1, 0.5)
