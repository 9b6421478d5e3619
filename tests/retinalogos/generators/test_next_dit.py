"""Our Next-DiT against the published class: same weights, same numbers, same files."""

import json

import pytest
import torch
from diffusers import LuminaNextDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from hypothesis import given, settings
from hypothesis import strategies as st

from retinalogos.errors import UsageError
from retinalogos.generators.text.backbones import load_backbone
from retinalogos.generators.text.next_dit import NextDiT, attention, rotary_table

TEXT = 12


@st.composite
def configurations(draw):
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    return {
        "patch_size": draw(st.integers(1, 2)),
        "in_channels": draw(st.integers(1, 5)),
        "hidden_size": heads * 4 * draw(st.integers(1, 3)),
        "num_layers": draw(st.integers(1, 2)),
        "num_attention_heads": heads,
        "num_kv_heads": kv_heads,
        "multiple_of": draw(st.sampled_from([1, 8])),
        "ffn_dim_multiplier": draw(st.sampled_from([None, 0.7])),
        "learn_sigma": draw(st.booleans()),
        "qk_norm": draw(st.booleans()),
        "cross_attention_dim": TEXT,
    }


def published(configuration, seed=0):
    """diffusers' model with weights that hide nothing behind a gate of zero."""
    torch.manual_seed(seed)
    model = LuminaNextDiT2DModel(**configuration)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2)
    return model.eval()


def ours(model):
    own = NextDiT(**{name: value for name, value in model.config.items() if not name.startswith("_")})
    own.load_state_dict(model.state_dict(), strict=True)
    return own.eval()


def inputs(channels, height, width, tokens=(5, 3), seed=0):
    draw = torch.Generator().manual_seed(seed)
    n = len(tokens)
    mask = (torch.arange(max(tokens)) < torch.tensor(tokens)[:, None]).long()
    text = torch.randn(n, max(tokens), TEXT, generator=draw)
    return torch.randn(n, channels, height, width, generator=draw), torch.rand(n, generator=draw), text, mask


def theirs(model, x, t, text, mask, linear_factor=1.0, ntk_factor=1.0):
    rotary = get_2d_rotary_pos_embed_lumina(model.head_dim, 16, 16, linear_factor, ntk_factor)
    return model(x, t, text, mask, rotary, cross_attention_kwargs={}, return_dict=False)[0]


@settings(max_examples=40)
@given(configurations(), st.integers(1, 5), st.integers(1, 5), st.lists(st.integers(1, 6), min_size=1, max_size=3))
@torch.no_grad()
def test_same_weights_give_the_same_numbers(configuration, rows, columns, tokens):
    model = published(configuration)
    patch = configuration["patch_size"]
    given_ = inputs(configuration["in_channels"], rows * patch, columns * patch, tokens)
    torch.testing.assert_close(ours(model)(*given_), theirs(model, *given_), atol=2e-4, rtol=2e-4)


SMALL = {"patch_size": 1, "in_channels": 4, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 4} | {
    "num_kv_heads": 2, "multiple_of": 8, "learn_sigma": False, "cross_attention_dim": TEXT,
}  # fmt: skip


def test_gradients_are_the_same():
    model = published(SMALL)
    own = ours(model)
    given_ = inputs(4, 4, 6)
    own(*given_).square().mean().backward()
    theirs(model, *given_).square().mean().backward()
    wanted = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    found = {name: weight.grad for name, weight in own.named_parameters() if weight.grad is not None}
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


@torch.no_grad()
def test_what_a_compiler_sees_gives_the_same_numbers():
    own = ours(published(SMALL))
    given_ = inputs(4, 4, 6)
    wanted = own(*given_)
    for block in own.layers:
        block.compile(backend="eager")  # needs no C++ compiler: what is traced runs as it is
    torch.testing.assert_close(own(*given_), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("linear_factor", "ntk_factor"), [(2.0, 1.0), (1.0, 4.0)])
@torch.no_grad()
def test_rotary_scaling_is_the_published_one(linear_factor, ntk_factor):
    model = published(SMALL)
    given_ = inputs(4, 6, 4)
    scaled = ours(model)(*given_, linear_factor=linear_factor, ntk_factor=ntk_factor)
    torch.testing.assert_close(scaled, theirs(model, *given_, linear_factor, ntk_factor), atol=2e-4, rtol=2e-4)
    assert (scaled - ours(model)(*given_)).abs().max() > 1e-3


@torch.no_grad()
def test_proportional_attention_sharpens_above_the_base_length_and_is_the_identity_at_it():
    own = ours(published(SMALL))
    given_ = inputs(4, 6, 6)
    torch.testing.assert_close(own(*given_, base_tokens=36), own(*given_))
    assert (own(*given_, base_tokens=9) - own(*given_)).abs().max() > 1e-4


def test_a_size_first_seen_in_inference_mode_can_be_trained_on():
    own = ours(published(SMALL))
    with torch.inference_mode():
        own(*inputs(4, 7, 3))
    own(*inputs(4, 7, 3)).square().mean().backward()
    assert own.layers[0].attn1.to_q.weight.grad is not None


@torch.no_grad()
def test_folders_are_interchangeable_with_diffusers(tmp_path):
    model = published(SMALL)
    given_ = inputs(4, 5, 3)
    model.save_pretrained(tmp_path / "theirs")
    own = NextDiT.from_pretrained(tmp_path / "theirs").eval()
    torch.testing.assert_close(own(*given_), theirs(model, *given_), atol=2e-4, rtol=2e-4)
    own.save_pretrained(tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["_class_name"] == "LuminaNextDiT2DModel"
    assert "stem_channels" not in json.loads((tmp_path / "ours" / "config.json").read_text())
    back = LuminaNextDiT2DModel.from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(theirs(back, *given_), theirs(model, *given_))


@torch.no_grad()
def test_a_stem_starts_as_nothing_then_lets_a_token_see_beyond_its_patch_and_is_kept(tmp_path):
    torch.manual_seed(0)
    model = NextDiT(**SMALL, stem_channels=6).eval()
    bare = NextDiT(**SMALL).eval()
    bare.load_state_dict(model.state_dict(), strict=False)
    given_ = inputs(4, 5, 3)
    torch.testing.assert_close(model(*given_), bare(*given_), atol=0, rtol=0)
    model.stem.conv_out.weight.normal_()
    middle = torch.zeros(1, 4, 5, 3)
    middle[0, :, 2, 1] = 1
    seen = (model.stem(middle) - model.stem(middle * 0)).abs().amax(1)[0]
    assert (seen > 0).all()  # two convolutions of 3 reach two places up and down
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "NextDiT"
    back = load_backbone(tmp_path).eval()
    torch.testing.assert_close(back(*given_), model(*given_), atol=0, rtol=0)


@torch.no_grad()
def test_plain_attention_of_cpus_in_bfloat16_is_the_fused_one():
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=draw) for n in (10, 7, 7))
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    low = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask, 0.3)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), attention(q, k, v, mask, 0.3), atol=0.03, rtol=0.03)


def test_rotary_angles_are_positions_over_wavelengths_row_and_column_in_turn():
    cosine, sine = rotary_table(3, 2, 8, 1.0, 1.0, torch.device("cpu"))
    assert cosine.shape == (6, 4)
    angle = torch.tensor([2.0, 1.0, 2.0 / 100, 1.0 / 100])  # row 2, column 1; base 10,000
    torch.testing.assert_close(cosine[5], angle.cos())
    torch.testing.assert_close(sine[5], angle.sin())


def test_errors_name_what_is_wrong():
    with pytest.raises(UsageError, match="hidden_size=30"):
        NextDiT(**SMALL | {"hidden_size": 30})
    with pytest.raises(UsageError, match="num_kv_heads=3"):
        NextDiT(**SMALL | {"num_kv_heads": 3})
    with pytest.raises(UsageError, match="5×4 do not divide"):
        NextDiT(**SMALL | {"patch_size": 2})(*inputs(4, 5, 4))
