import pytest
import torch
from backbones_at_hand import TINY, inputs, jolt, tiny
from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
from latents_at_hand import CHANNELS, DIM, WIDTH
from short_training import FLOW, TRAINING

from retinalogos.errors import UsageError
from retinalogos.generators.text.backbones import build_backbone, load_backbone, velocity
from retinalogos.generators.text.flow import solve, unit_gaussian
from retinalogos.generators.text.latents import Latents
from retinalogos.generators.text.objective import FlowMatching
from retinalogos.generators.text.stages import new_conditioning, new_prior
from retinalogos.training.loop import train


@pytest.mark.parametrize("name", TINY)
def test_all_speak_one_interface_at_any_size(name):
    model = tiny(name)
    for width in (8, 16):
        assert velocity(model, None, *inputs(width=width))[0].shape == (2, 4, width, width)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_padding_is_not_seen_and_text_and_time_are(name):
    model = jolt(tiny(name))
    x, t, text, mask, pooled = inputs()
    plain = velocity(model, None, x, t, text, mask, pooled)[0]
    noisy = torch.where(mask.bool().unsqueeze(-1), text, 100.0)
    torch.testing.assert_close(velocity(model, None, x, t, noisy, mask, pooled)[0], plain, atol=1e-4, rtol=1e-4)
    assert (velocity(model, None, x, t, -text, mask, -pooled)[0] - plain).abs().max() > 1e-3
    assert (velocity(model, None, x, t * 0.5, text, mask, pooled)[0] - plain).abs().max() > 1e-4


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_all_start_at_zero_velocity_with_no_uninitialised_weight(name):
    assert float(velocity(tiny(name), None, *inputs())[0].abs().max()) == 0
    first, second = tiny(name).state_dict(), tiny(name).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_saved_and_loaded_as_published_weights_are(name, tmp_path):
    model = jolt(tiny(name))
    model.save_pretrained(tmp_path / "transformer")
    loaded = load_backbone(tmp_path, "transformer").eval()
    torch.testing.assert_close(velocity(loaded, None, *inputs())[0], velocity(model, None, *inputs())[0])


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(UsageError, match="unknown backbone 'gan'"):
        build_backbone("gan", 4, 12, 8, {})
    with pytest.raises(UsageError, match="hidden_sizes"):
        build_backbone("next_dit", 4, 12, 8, {"hidden_sizes": 4})
    with pytest.raises(UsageError, match="do not add up to a head's 8 channels"):
        build_backbone("lumina2", 4, 12, 8, TINY["lumina2"] | {"axes_dim_rope": [4, 4, 4]})
    with pytest.raises(UsageError, match="heads of 64 channels do not fit into a level of 32"):
        build_backbone("unet", 4, 12, 8, TINY["unet"] | {"attention_head_dim": 64})
    with pytest.raises(UsageError, match="nowhere"):
        load_backbone(tmp_path / "nowhere")


@torch.no_grad()
def test_lumina2_goes_the_way_of_diffusers_own_pipeline(tmp_path):
    jolt(Lumina2Transformer2DModel(in_channels=4, cap_feat_dim=12, **TINY["lumina2"])).save_pretrained(tmp_path)
    published = Lumina2Transformer2DModel.from_pretrained(tmp_path).eval()
    ours = load_backbone(tmp_path).eval()
    x, t, text, mask, pooled = inputs()
    torch.testing.assert_close(velocity(ours, None, x, t, text, mask, pooled)[0], published(x, t, text, mask).sample)
    pipeline = Lumina2Pipeline(published, FlowMatchEulerDiscreteScheduler(), None, None, None)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt_embeds=text, prompt_attention_mask=mask, latents=x, guidance_scale=1.0, num_inference_steps=4,
        output_type="latent",
    ).images  # fmt: skip
    field = unit_gaussian(lambda x, t: velocity(ours, None, x, t, text, mask, pooled)[0])
    mine = solve(field, x, 4, solver="euler")
    torch.testing.assert_close(mine, drawn, atol=1e-4, rtol=1e-4)
    assert (mine - x).abs().mean() > 1e-2


def lumina2_on(folder, prior):
    latents = Latents(folder)
    conditioning = new_conditioning(latents, standardise=True)
    known = new_prior(latents, conditioning, 8) if prior else None
    torch.manual_seed(0)
    network = build_backbone("lumina2", CHANNELS, DIM, WIDTH, TINY["lumina2"], prior)
    return network, FlowMatching(latents, conditioning, known, 8, 0, FLOW)


@pytest.mark.parametrize("prior", [True, False])
def test_gradients_reach_every_weight_of_lumina2(latents_folder, prior):
    network, loss = lumina2_on(latents_folder, prior)
    loss(jolt(network), 0).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_lumina2_learns(latents_folder, tmp_path):
    network, loss = lumina2_on(latents_folder, prior=False)
    with torch.no_grad():
        before = float(loss(network, None))
    training = TRAINING.model_copy(
        update={
            "steps": 30,
            "learning_rate": 5e-3,
            "warmup_steps": 2,
            "weight_decay": 0.0,
            "checkpoint_every": 30,
            "log_every": 30,
            "validate_every": 30,
            "sample_every": 30,
        }
    )
    trained = train(network, loss, training, tmp_path / "log", tmp_path / "checkpoints", "test")
    with torch.no_grad():
        assert float(loss(trained, None)) < 0.7 * before
