import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, GemmaConfig, GemmaModel

from retinalogos.captions.tokens import resolve_text_encoder
from retinalogos.errors import UsageError
from retinalogos.generators.text import TextToFundusPipeline
from retinalogos.generators.text.autoencoder import PatchAutoencoder
from retinalogos.generators.text.backbones import build_backbone
from retinalogos.generators.text.conditioning import TextConditioning, load_text_encoder
from retinalogos.generators.text.pipeline import starting_noise
from retinalogos.generators.text.prior import LatentPrior
from retinalogos.provenance import generator_hash


def tiny_pipeline(dim=384, prior=True, **options):
    torch.manual_seed(0)
    config = {"patch_size": 2, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 4, "num_kv_heads": 2}
    backbone = build_backbone("next_dit", 4, dim, 4, config | {"multiple_of": 8}, prior).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    options = {"token_budget": 16, "size": 32, "steps": 4} | options
    known = LatentPrior(4, 4, 2, dim) if prior else None
    return TextToFundusPipeline(backbone, PatchAutoencoder(8, 4, 1.0), TextConditioning(dim), known, **options)


def test_a_picture_depends_on_its_prompt_and_seed_and_not_on_its_batch():
    pipeline = tiny_pipeline(precision="float32")
    prompts = ["left eye", "right eye, severe", "left eye"]
    together = pipeline(prompts, seeds=[1, 2, 3]).astype(int)
    alone = np.concatenate([pipeline(p, seeds=s, batch_size=1) for p, s in zip(prompts, [1, 2, 3], strict=True)])
    assert together.shape == (3, 32, 32, 3)
    assert np.abs(together - alone).max() <= 1  # rounding of another batch size
    assert np.abs(together[0] - together[2]).max() > 1
    assert np.abs(pipeline("right eye", seeds=1).astype(int) - together[0]).max() > 1
    assert np.abs(pipeline("left eye", seeds=1, guidance=1.0).astype(int) - together[0]).max() > 1


def test_how_it_samples_can_be_said_in_the_call():
    pipeline = tiny_pipeline(solver="euler")
    for asked in (
        {"solver": "heun"}, {"steps": 2}, {"guidance": 3.0, "guidance_interval": [0.0, 0.5]},
        {"guidance": 3.0, "renormalise": True}, {"autoguidance": 2.0}, {"time_shift": 3.0},
    ):  # fmt: skip
        given = tiny_pipeline(**{"solver": "euler"} | asked)
        drawn = pipeline("left eye", seeds=5, **asked)
        np.testing.assert_array_equal(drawn, given("left eye", seeds=5))
        assert drawn.tobytes() != pipeline("left eye", seeds=5).tobytes()
    np.testing.assert_array_equal(pipeline(["left eye"] * 2), pipeline(["left eye"] * 2, seeds=[0, 1]))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"solver": "ddim"}, "solver='ddim'.*splitting"),
        ({"guidance": float("nan")}, "guidance=nan"),
        ({"steps": 0}, "steps=0"),
        ({"step": 4}, "step=4.*known are steps"),
        ({"guidance_interval": [0.8, 0.2]}, r"guidance_interval=\[0.8, 0.2\].*earlier one first"),
        ({"size": 0}, "size 0 is no multiple of 8"),
        ({"size": -64}, "size -64"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"seeds": [1, 2]}, "1 prompts but 2 seeds"),
    ],
)
def test_wrong_settings_of_a_call_are_named(asked, message):
    with pytest.raises(UsageError, match=message):
        tiny_pipeline()("left eye", **{"seeds": 5} | asked)


def test_pictures_and_shares_that_cannot_be_edited_are_named():
    pipeline = tiny_pipeline()
    old = pipeline(["left eye", "right eye"])
    with pytest.raises(UsageError, match="no prompt"):
        pipeline([])
    for images, message in (
        (old / 255.0, r"float64 of shape \(2, 32, 32, 3\): a numpy array of uint8, 2×height"),
        (old[0], r"uint8 of shape \(32, 32, 3\)"),
        (old[:1], r"uint8 of shape \(1, 32, 32, 3\)"),
        ([old[0]], "images are a list"),
    ):
        with pytest.raises(UsageError, match=message):
            pipeline.edit(images, ["left eye", "right eye"])
    for shares in ([], [2.0], [-0.1]):
        with pytest.raises(UsageError, match="shares"):
            pipeline.between("left eye", "right eye", shares, seed=1)


def test_the_folder_loads_and_draws_the_same_and_holds_no_pickle(tmp_path):
    pipeline = tiny_pipeline(guidance=3.0)
    pipeline.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "TextToFundusPipeline"
    assert index["backbone"] == ["retinalogos.generators.text.next_dit", "NextDiT"]
    assert json.loads((tmp_path / "backbone" / "config.json").read_text())["_class_name"] == "LuminaNextDiT2DModel"
    loaded = TextToFundusPipeline.from_pretrained(tmp_path)
    assert loaded.config.guidance == 3.0
    np.testing.assert_array_equal(loaded("left eye", seeds=5), pipeline("left eye", seeds=5))
    before = generator_hash(tmp_path)
    weights = tmp_path / "backbone" / "diffusion_pytorch_model.safetensors"
    with safe_open(weights, "pt") as file:
        assert file.keys()
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert generator_hash(tmp_path) != before


def test_a_generator_without_a_prior_loads_and_draws_without_one(tmp_path):
    pipeline = tiny_pipeline(prior=False)
    pipeline.save_pretrained(tmp_path)
    loaded = TextToFundusPipeline.from_pretrained(tmp_path)
    assert loaded.prior is None
    np.testing.assert_array_equal(loaded("left eye", seeds=5), pipeline("left eye", seeds=5))


def test_guidance_acts_within_its_interval_only():
    nowhere = tiny_pipeline(guidance=3.0, guidance_interval=[0.0, 0.0], solver="euler")("left eye", seeds=5)
    half = tiny_pipeline(guidance=3.0, guidance_interval=[0.0, 0.5], solver="euler")("left eye", seeds=5)
    everywhere = tiny_pipeline(guidance=3.0, solver="euler")("left eye", seeds=5)
    renormalised = tiny_pipeline(guidance=3.0, solver="euler", renormalise=True)("left eye", seeds=5)
    plain = tiny_pipeline(guidance=1.0, solver="euler")("left eye", seeds=5)
    pictures = [picture.tobytes() for picture in (nowhere, half, everywhere, renormalised, plain)]
    assert len(set(pictures)) == 5  # at t = 0 guidance acted even in the first


def test_autoguidance_needs_a_prior():
    drawn = {
        (prior, scale): tiny_pipeline(prior=prior, autoguidance=scale)("left eye", seeds=5).tobytes()
        for prior in (True, False)
        for scale in (1.0, 2.0)
    }
    assert drawn[True, 1.0] != drawn[True, 2.0]
    assert drawn[False, 1.0] == drawn[False, 2.0]


def test_an_edit_of_full_strength_is_a_new_picture_and_a_weak_one_is_nearly_the_old():
    pipeline = tiny_pipeline()
    old = pipeline(["left eye", "right eye"], seeds=[1, 2])
    prompts, seeds = ["right eye, severe"] * 2, [3, 4]
    new = pipeline(prompts, seeds=seeds)
    assert np.abs(pipeline.edit(old, prompts, seeds=seeds, strength=1.0).astype(int) - new).max() <= 1
    changes = [
        np.abs(pipeline.edit(old, prompts, seeds=seeds, strength=strength).astype(int) - old).mean()
        for strength in (0.02, 0.5, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[0] < 0.2 * changes[2]


def test_inpainting_keeps_what_is_not_masked():
    pipeline = tiny_pipeline()
    old = pipeline(["left eye", "right eye"], seeds=[1, 2])
    masks = np.zeros((2, 32, 32), np.uint8)
    masks[:, 3:20, 5:11] = 255
    new = pipeline.edit(old, ["right eye", "left eye"], seeds=[3, 4], strength=1.0, masks=masks)
    np.testing.assert_array_equal(new[masks == 0], old[masks == 0])
    assert np.abs(new[masks != 0].astype(int) - old[masks != 0]).mean() > 1
    everywhere = pipeline.edit(old, ["right eye", "left eye"], seeds=[3, 4], masks=np.ones_like(masks))
    np.testing.assert_array_equal(everywhere, pipeline.edit(old, ["right eye", "left eye"], seeds=[3, 4]))


def test_between_two_prompts_lie_both():
    pipeline = tiny_pipeline()
    drawn = pipeline.between("left eye", "right eye, severe", [0.0, 0.5, 1.0], seed=6).astype(int)
    ends = pipeline(["left eye", "right eye, severe"], seeds=[6, 6])
    assert np.abs(drawn[[0, 2]] - ends).max() <= 1
    assert all(np.abs(drawn[1] - drawn[end]).mean() < np.abs(drawn[0] - drawn[2]).mean() for end in (0, 2))


def test_a_wrong_strength_or_mask_is_refused():
    pipeline = tiny_pipeline()
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    for strength in (0.0, 1.5):
        with pytest.raises(UsageError, match=f"strength {strength}"):
            pipeline.edit(picture, "left eye", seeds=0, strength=strength)
    with pytest.raises(UsageError, match="masks of shape"):
        pipeline.edit(picture, "left eye", seeds=0, masks=np.zeros((1, 16, 16)))


def test_a_prompt_over_the_budget_is_refused_not_cut():
    with pytest.raises(UsageError, match="over the budget of 16"):
        tiny_pipeline()("left eye " * 10, seeds=0)


def test_starting_noise_is_each_pictures_own():
    noise = starting_noise([3, 4], 2, 5)
    torch.testing.assert_close(starting_noise([4], 2, 5)[0], noise[1])


def test_conditioning_makes_left_and_right_as_different_as_anything():
    encoder = load_text_encoder("minilm", 32, -1)
    captions = [
        f"Colour fundus photograph of the {eye} eye, {grade} diabetic retinopathy."
        for eye in ("left", "right")
        for grade in ("no apparent", "mild", "moderate", "severe", "proliferative")
    ]
    text, mask = encoder.encode(captions)
    rows = [row[:length] for row, length in zip(text, mask.sum(1).tolist(), strict=True)]
    raw = torch.stack([row.mean(0) for row in rows])
    _, pooled = TextConditioning.fit(rows)(text, mask)
    _, same = TextConditioning(384)(text, mask)
    torch.testing.assert_close(same, raw)

    def contrast(vectors):  # of left and right, against the size of the features themselves
        return float((vectors[:5].mean(0) - vectors[5:].mean(0)).norm() / vectors.norm(dim=1).mean())

    assert contrast(pooled) > 4 * contrast(raw)
    assert float(pooled.std()) == pytest.approx(1, abs=0.15)


def test_a_saved_folder_does_not_tell_where_it_was_loaded_from(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "first")
    TextToFundusPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for file in (tmp_path / "second").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_gemma_is_loaded_by_the_same_call(tmp_path):
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_text_encoder("minilm"))
    config = GemmaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    gemma = GemmaModel(config).eval()
    gemma.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = load_text_encoder(str(tmp_path), 32, -2)
    features, mask = encoder.encode(["left eye", "a right eye with drusen"])
    tokens = tokenizer(["left eye", "a right eye with drusen"], padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        expected = gemma(**tokens, output_hidden_states=True).hidden_states[-2]
    real = mask.bool()
    torch.testing.assert_close(features[real], expected[real])
    with pytest.raises(UsageError, match="nowhere"):
        load_text_encoder(str(tmp_path / "nowhere"), 32, -1)


def test_the_network_alone_computes_in_the_precision_that_is_asked_for():
    fine, coarse = (tiny_pipeline(precision=name)("left eye", seeds=5).astype(int) for name in ("float32", "bfloat16"))
    assert 0 < np.abs(fine - coarse).mean() < 3
    pipeline = tiny_pipeline(precision="bfloat16")
    pipeline("left eye", seeds=5)
    assert {weight.dtype for part in pipeline.parts() for weight in part.parameters()} == {torch.float32}
