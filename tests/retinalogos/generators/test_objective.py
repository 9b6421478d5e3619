import pytest
import torch
from latents_at_hand import CHANNELS, DIM, WIDTH, write_latents
from short_training import FLOW, TRAINING

from retinalogos.errors import DataError, UsageError
from retinalogos.generators.text.backbones import build_backbone, velocity
from retinalogos.generators.text.conditioning import TextConditioning
from retinalogos.generators.text.flow import interpolate, loss_weight
from retinalogos.generators.text.latents import Latents, LatentWriter
from retinalogos.generators.text.objective import FlowMatching
from retinalogos.generators.text.stages import new_conditioning, new_prior
from retinalogos.training.loop import train

NETWORK = {"patch_size": 2, "hidden_size": 32, "num_layers": 1, "num_attention_heads": 4, "multiple_of": 8}


def objective(folder, prior=True, **changes):
    latents = Latents(folder)
    conditioning = new_conditioning(latents, standardise=True)
    known = new_prior(latents, conditioning, 8) if prior else None
    torch.manual_seed(0)
    network = build_backbone("next_dit", CHANNELS, DIM, WIDTH, NETWORK, prior)
    return FlowMatching(latents, conditioning, known, 8, 0, FLOW.model_copy(update=changes)), network


def test_untrained_it_is_one_with_a_prior_at_every_time_and_the_velocitys_own_square_without(tmp_path):
    write_latents(tmp_path / "many", images=600)
    loss, network = objective(tmp_path / "many")
    with torch.no_grad():
        steps = [float(loss(network, step)) for step in range(40)]
        assert sum(steps) / len(steps) == pytest.approx(1, abs=0.05)
        assert float(loss(network, None)) == pytest.approx(1, abs=0.1)
        plain, network = objective(tmp_path / "many", prior=False)
        data = plain.latents.latents(range(600))
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
    loss, _ = objective(latents_folder, caption_dropout=0.5)
    draw = torch.Generator().manual_seed(0)
    empty = [loss._caption(0, draw, training=True) == loss.empty for _ in range(400)]
    assert sum(empty) / 400 == pytest.approx(0.5, abs=0.08)
    assert not any(loss._caption(0, draw, training=False) == loss.empty for _ in range(100))


def test_captions_of_an_image_are_chosen_with_the_probabilities_asked_for(tmp_path):
    with LatentWriter(tmp_path / "many", {"empty_text": 0, "text_dim": DIM}) as writer:
        for text in ("", "coarse", "one", "another", "a third"):
            writer.add_text(text, torch.ones(2, DIM))
        writer.add_image("eye", "train", "left", torch.zeros(CHANNELS, WIDTH, WIDTH), [1], [2, 3, 4])
    latents = Latents(tmp_path / "many")
    flow = FLOW.model_copy(update={"coarse_share": 0.25, "caption_dropout": 0.0})
    loss = FlowMatching(latents, TextConditioning(DIM), None, 8, 0, flow)
    draw = torch.Generator().manual_seed(0)
    shown = [loss._caption(0, draw, training=True) for _ in range(2000)]
    assert [shown.count(text) / 2000 for text in range(5)] == pytest.approx([0, 0.25, 0.25, 0.25, 0.25], abs=0.04)


@pytest.mark.parametrize("weighting", ["cosmap", "min_snr"])
def test_the_weighting_is_of_training_alone(latents_folder, weighting):
    plain, network = objective(latents_folder, prior=False)
    weighted, _ = objective(latents_folder, prior=False, loss_weighting=weighting)
    with torch.no_grad():
        assert float(weighted(network, None)) == float(plain(network, None))
        for row in range(8):
            one = slice(row, row + 1)
            weight = float(loss_weight(plain.batch(3)["times"][one], weighting))
            assert float(weighted(network, 3, one)) == pytest.approx(weight * float(plain(network, 3, one)), rel=1e-5)


def test_latents_without_a_training_image_are_refused(tmp_path):
    write_latents(tmp_path / "one", images=1)  # the first is of the validation split
    latents = Latents(tmp_path / "one")
    with pytest.raises(UsageError, match="no image of the split 'train'"):
        FlowMatching(latents, new_conditioning(latents, True), None, 8, 0, FLOW)


def test_a_step_that_is_not_finite_is_saved_and_gives_the_same_loss_again(latents_folder, tmp_path):
    loss, network = objective(latents_folder, prior=False)
    spoilt = loss._images(1)[3]
    sound = loss.latents.latents

    def read(images):
        found = sound(images)
        return torch.where(torch.tensor([image == spoilt for image in images])[:, None, None, None], torch.inf, found)

    loss.latents.latents = read
    config = TRAINING.model_copy(update={"weight_decay": 0.0})
    with pytest.raises(DataError, match="not-finite-step-00000001"):
        train(network, loss, config, tmp_path / "log", tmp_path / "ck", "pretrain", batch=loss.batch)
    saved = torch.load(tmp_path / "ck" / "not-finite-step-00000001.pt", weights_only=True)
    assert saved["batch"]["image_ids"][3] == loss.latents.images[spoilt]["image_id"]
    assert saved["batch"]["captions"][3] in {row["text"] for row in loss.latents.texts}
    assert saved["batch"].keys() == {"image_ids", "captions", "noise", "times"}

    _, fresh = objective(latents_folder, prior=False)
    fresh.load_state_dict(saved["model"])
    with torch.no_grad():
        assert not torch.isfinite(loss(fresh, saved["step"]))
        # Without the spoilt image, from the tensors of the file.
        data = sound(loss._images(1))
        x = interpolate(data, saved["batch"]["noise"], saved["batch"]["times"])
        numbers = {row["text"]: i for i, row in enumerate(loss.latents.texts)}
        tokens, mask = loss.latents.batch_tokens([numbers[text] for text in saved["batch"]["captions"]])
        text, pooled = loss.conditioning(tokens, mask)
        predicted, _ = velocity(fresh, None, x, saved["batch"]["times"], text, mask, pooled)
        loss.latents.latents = sound
        expected = loss(fresh, saved["step"])
        torch.testing.assert_close((predicted - data + saved["batch"]["noise"]).square().mean(), expected)
