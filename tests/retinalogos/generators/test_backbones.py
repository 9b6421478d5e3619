import pytest
import torch

from retinalogos.errors import UsageError
from retinalogos.generators.text.backbones import build_backbone, load_backbone, velocity

TINY = {
    "next_dit": {
        "patch_size": 2,
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 4,
        "num_kv_heads": 2,
        "multiple_of": 8,
    },
    "unet": {
        "block_out_channels": [32, 32],
        "layers_per_block": 1,
        "attention_head_dim": 16,
        "norm_num_groups": 8,
        "resnet_time_scale_shift": "scale_shift",
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    },
}


def tiny(name):
    torch.manual_seed(0)
    return build_backbone(name, 4, 12, 8, TINY[name]).eval()


def inputs(n=2, width=8, tokens=5):
    draw = torch.Generator().manual_seed(0)
    mask = torch.ones(n, tokens, dtype=torch.long)
    mask[:, 3:] = 0
    text = torch.randn(n, tokens, 12, generator=draw)
    return torch.randn(n, 4, width, width, generator=draw), torch.rand(n, generator=draw), text, mask, text.mean(1)


def jolt(model):
    """Moves the zero-initialised weights, so that nothing is hidden by a gate of zero."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=draw) * 0.05)
    return model


@pytest.mark.parametrize("name", TINY)
def test_both_speak_one_interface_at_any_size(name):
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
def test_both_start_at_zero_velocity_with_no_uninitialised_weight(name):
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
    with pytest.raises(UsageError, match="nowhere"):
        load_backbone(tmp_path / "nowhere")
