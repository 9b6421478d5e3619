import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from sklearn.decomposition import PCA

from retinalogos.errors import UsageError
from retinalogos.generators.text.autoencoder import (
    PatchAutoencoder,
    as_autoencoder,
    load_autoencoder_model,
    to_model_range,
    to_uint8,
)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    smooth = rng.normal(size=(24, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(128 + 40 * smooth + rng.normal(size=(24, 32, 32, 3)), 0, 255).astype(np.uint8)


def fit(pictures, components=16, whitening=0.5, batch=5):
    def batches():
        return (to_model_range(pictures[i : i + batch]) for i in range(0, len(pictures), batch))

    return PatchAutoencoder.fit(batches, 4, components, whitening)


def test_components_are_scikit_learns_and_rebuilding_gains_from_the_neighbourhood(pictures):
    # Moved by half a patch, so that edges run through patches and the neighbours have something to tell.
    pictures = np.roll(pictures, (2, 2), (1, 2))
    model, kept = fit(pictures)
    x = to_model_range(pictures)
    rebuilt = model.decode(model.encode(x))
    patches = torch.nn.functional.pixel_unshuffle(x, 4).permute(0, 2, 3, 1).reshape(-1, 48).numpy()
    pca = PCA(16, svd_solver="full").fit(patches)
    error = np.square(pca.inverse_transform(pca.transform(patches)) - patches).mean()
    alone = torch.einsum("bchw,cp->bphw", model.encode(x), model.directions / model.scale[:, None])
    alone = torch.nn.functional.pixel_shuffle(alone + model.mean[:, None, None], 4)
    assert float((alone - x).square().mean()) == pytest.approx(error, rel=1e-3)
    assert float((rebuilt - x).square().mean()) < 0.98 * error
    assert kept == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-4)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_latents_have_mean_variance_one_and_whitening_evens_them_out(pictures, whitening):
    model, _ = fit(pictures, whitening=whitening)
    variances = model.encode(to_model_range(pictures)).var((0, 2, 3))
    assert float(variances.mean()) == pytest.approx(1, rel=0.05)
    spread = float(variances.max() / variances.min())
    assert spread == pytest.approx(1, rel=0.05) if whitening == 1 else spread > 5


def test_all_components_lose_nothing_and_batches_do_not_matter(pictures):
    model, kept = fit(pictures, components=48)
    assert kept == pytest.approx(1)
    np.testing.assert_array_equal(to_uint8(model.decode(model.encode(to_model_range(pictures)))), pictures)
    other, _ = fit(pictures, components=48, batch=7)
    torch.testing.assert_close(model.directions, other.directions, atol=1e-4, rtol=1e-4)


def test_saved_and_loaded_by_the_call_that_loads_published_ones(pictures, tmp_path):
    model, _ = fit(pictures)
    model.save_pretrained(tmp_path / "patch")
    loaded = load_autoencoder_model(tmp_path / "patch")
    x = to_model_range(pictures)
    torch.testing.assert_close(as_autoencoder(loaded).encode(x), model.encode(x))

    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=4, norm_num_groups=4, scaling_factor=0.13025, shift_factor=0.1,
    )  # fmt: skip
    vae.save_pretrained(tmp_path / "vae")
    published = as_autoencoder(load_autoencoder_model(tmp_path / "vae"))
    assert (published.latent_channels, published.downscale) == (4, 2)
    latents = published.encode(x)
    torch.testing.assert_close(latents, (vae.encode(x).latent_dist.mean - 0.1) * 0.13025)
    torch.testing.assert_close(published.decode(latents), vae.decode(latents / 0.13025 + 0.1).sample)
    of_a_pipeline = as_autoencoder(load_autoencoder_model(tmp_path))
    torch.testing.assert_close(of_a_pipeline.encode(x), latents)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        load_autoencoder_model(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="components=49"):
        PatchAutoencoder(4, 49)
    with pytest.raises(UsageError, match="no multiple of the patch"):
        PatchAutoencoder(8, 4).encode(torch.zeros(1, 3, 12, 12))
    with pytest.raises(UsageError, match="training split"):
        PatchAutoencoder.fit(list, 4, 4, 0.5)
