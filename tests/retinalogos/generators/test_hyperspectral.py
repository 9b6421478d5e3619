"""Codebook, adversary, resumed training, drawing: on cubes of a few pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from pydantic import ValidationError
from short_training import TRAINING
from torch.nn import functional as F

from retinalogos.cohort.cubes import Cube, encode_cube
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.errors import DataError, UsageError
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.configuration import (
    AdversaryConfig,
    AutoencoderConfig,
    CodebookConfig,
    CubeSamplingConfig,
    DiffusionConfig,
    PerceptualConfig,
)
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.denoising import new_scheduler, new_unet, told
from retinalogos.generators.hyperspectral.diffusion import LatentDenoising, fit_prior, train_diffusion
from retinalogos.generators.hyperspectral.discriminator import PatchDiscriminator
from retinalogos.generators.hyperspectral.perceptual import PerceptualDistance
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.generators.hyperspectral.quantised_training import (
    QuantisedReconstruction,
    Trained,
    new_trained,
    train_autoencoder,
)

WAVELENGTHS = (480.0, 560.0, 660.0, 850.0)
SMALL = AutoencoderConfig(
    compression=4, latent_channels=4, codes=16, depth=2, base_channels=8, layers=1, unshuffle=4, shortcut=True
)
CODEBOOK = CodebookConfig(
    learning="kmeans", commitment=0.25, kmeans_cubes=6, kmeans_rounds=3, decay=0.9, dead_below=0.5
)
PERCEPTUAL = PerceptualConfig(name="projected", network="random", weight=0.1, bands=2)
ADVERSARY = AdversaryConfig(weight=0.1, feature_weight=0.1, from_step=1, channels=8, layers=2)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    folder = tmp_path_factory.mktemp("cubes") / "cohort"
    rng = np.random.default_rng(0)
    with CohortWriter(folder, "c", wavelengths=WAVELENGTHS) as writer:
        for number in range(14):
            smooth = np.kron(rng.random((4, 4, 4)), np.ones((1, 4, 4))) * np.array([0.05, 0.1, 0.3, 0.4])[:, None, None]
            row = {
                "image_id": f"{number:016x}", "patient_id": str(number), "source": "s", "sha256": "0",
                "split": "validation" if number >= 10 else "train",
                "width": 16, "height": 16, "image": {"bytes": b"", "path": "x"},
            }  # fmt: skip
            writer.add(row | {"cube": encode_cube(Cube.of(smooth, WAVELENGTHS))})
    return Cohort(folder)


@pytest.fixture(scope="module")
def files(cohort, tmp_path_factory) -> tuple[CubeFile, CubeFile]:
    folder = tmp_path_factory.mktemp("unpacked")
    return CubeFile(cohort, "train", folder), CubeFile(cohort, "validation", folder)


def objective(files, **changes) -> tuple[QuantisedReconstruction, Trained]:
    parts = {"codebook": CODEBOOK, "perceptual": PERCEPTUAL, "adversary": ADVERSARY} | changes
    train, validation = files
    model = new_trained(SMALL, parts["adversary"], train.wavelengths, train.scale(0), seed=0)
    return QuantisedReconstruction(train, validation, None, 4, 0, **parts), model


def test_the_perceptual_distance_is_that_of_directions() -> None:
    distance = PerceptualDistance(PERCEPTUAL, list(WAVELENGTHS), 0)
    one, other = torch.rand(2, 2, 4, 16, 16)
    assert float(distance(one, 3 * one, 0)) == pytest.approx(0, abs=1e-4)
    # Features are not negative, so that no two of the three layers' directions lie further apart than √2.
    assert 0.01 < float(distance(one, other, 0)) < 6


def test_attention_by_products_tells_what_the_fused_one_tells() -> None:
    config = DIFFUSION.model_copy(update={"attention": (True, True, True), "prior_components": 0})
    unet = new_unet(config, 4, 8)
    x, times = torch.randn(2, 4, 8, 8), torch.tensor([3, 90])
    by_products = unet(x, times).sample
    for module in unet.modules():
        if isinstance(module, Attention):
            assert isinstance(module.processor, AttnProcessor)
            module.set_processor(AttnProcessor2_0())
    assert torch.allclose(unet(x, times).sample, by_products, atol=1e-4)


def test_cubes_go_to_the_networks_and_back(files) -> None:
    train, _ = files
    autoencoder = CubeAutoencoder(train.wavelengths, train.scale(0), **SMALL.model_dump())
    values = train[[0, 3]]
    x = autoencoder.to_model(values)
    assert float(x.min()) >= -1
    assert float(x.quantile(0.99)) == pytest.approx(1, abs=0.1)
    assert np.abs(autoencoder.from_model(x).astype(int) - values).max() <= 1
    assert autoencoder.encode(x).shape == (2, 4, 4, 4)
    assert autoencoder.decode(autoencoder.encode(x)).shape == x.shape
    with pytest.raises(UsageError, match="multiple of 4"):
        autoencoder.encode(x[..., :-1])


def test_training_begins_at_the_principal_components(files) -> None:
    train, _ = files
    torch.manual_seed(0)
    autoencoder = CubeAutoencoder(train.wavelengths, train.scale(0), **SMALL.model_dump())
    x = autoencoder.to_model(train[range(10)])
    autoencoder.begin(x)
    with torch.no_grad():
        z = autoencoder.encode(x)
        y = autoencoder.decode(z)
    squares = F.pixel_unshuffle(x, 4).permute(0, 2, 3, 1).reshape(-1, 64).double().numpy()
    centred = squares - squares.mean(0)
    *_, axes = np.linalg.svd(centred, full_matrices=False)
    left = centred - centred @ axes[:4].T @ axes[:4]
    assert float((y - x).square().mean()) == pytest.approx(np.square(left).mean(), rel=1e-3)
    assert float(z.square().mean()) == pytest.approx(1, rel=1e-3)
    wide = CubeAutoencoder(train.wavelengths, train.scale(0), **SMALL.model_dump() | {"latent_channels": 80})
    wide.begin(x)
    with torch.no_grad():
        assert torch.allclose(wide.decode(wide.encode(x)), x, atol=1e-3), "64 values in 80 channels lose nothing"
    plain = CubeAutoencoder(train.wavelengths, train.scale(0), **SMALL.model_dump() | {"shortcut": False})
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    plain.begin(x)
    assert all(torch.equal(weight, before[name]) for name, weight in plain.state_dict().items())


def test_a_latent_becomes_the_sum_of_codes_nearest_to_what_is_left(files) -> None:
    _, model = objective(files)
    books = model.autoencoder.codebook.detach()
    assert books.shape == (2, 16, 4)
    z = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    q, index = model.autoencoder.quantise(z)
    rows = z.permute(0, 2, 3, 1).reshape(-1, 4)
    first = torch.cdist(rows, books[0]).argmin(1)
    second = torch.cdist(rows - books[0, first], books[1]).argmin(1)
    assert torch.equal(index, torch.stack([first, second], 1))
    assert torch.allclose(q.permute(0, 2, 3, 1).reshape(-1, 4), books[0, first] + books[1, second])
    q.sum().backward()
    assert model.autoencoder.codebook.grad is not None
    moved = model.autoencoder.codebook.grad.abs().sum(2) > 0
    assert torch.equal(moved, torch.stack([torch.bincount(level, minlength=16) > 0 for level in index.T]))


def test_k_means_brings_codes_to_the_outputs_and_keeps_them_there(files) -> None:
    reconstruction, model = objective(files)
    outputs = torch.from_numpy(reconstruction._encoded(model.autoencoder, 0))

    def error() -> float:
        quantised, _ = model.autoencoder.quantise(outputs.T[None, :, :, None])
        return float((quantised[0, :, :, 0].T - outputs).detach().norm(dim=1).mean())

    before = error()
    reconstruction.first_codebook(model)
    first = error()
    assert first < 0.5 * before
    was = model.autoencoder.codebook.detach().clone()
    with torch.no_grad():
        reconstruction.after(model, step=0)  # an epoch is 10 cubes, a step 4
        assert torch.equal(model.autoencoder.codebook, was)
        reconstruction.after(model, step=2)
    assert not torch.equal(model.autoencoder.codebook, was)
    assert error() < 1.5 * first
    with pytest.raises(DataError, match=r"codebook\.kmeans_cubes"):
        reconstruction.first_codebook(
            new_trained(SMALL.model_copy(update={"codes": 4096}), ADVERSARY, files[0].wavelengths, files[0].scale(0), 0)
        )


def test_moving_averages_follow_the_outputs_and_dead_codes_are_put_elsewhere(files) -> None:
    reconstruction, model = objective(files, codebook=CODEBOOK.model_copy(update={"learning": "ema"}))
    with torch.no_grad():
        model.autoencoder.codebook[:, 0] = 100.0  # far from every output
        reconstruction(model, 0, slice(0, 4))
        assert len(reconstruction._seen) == 1
        model.uses[:, 0] = 0.0
        reconstruction.after(model, 0)
    assert float(model.autoencoder.codebook[:, 0].detach().abs().max()) < 50
    assert not reconstruction._seen
    with torch.no_grad():
        used = reconstruction.measure(model)
    assert 0 < used["codes_used"] <= 1 <= used["perplexity"] <= 16


def test_each_network_is_frozen_in_the_others_part(files) -> None:
    discriminator = PatchDiscriminator(4, 8, 2)
    x = torch.randn(2, 4, 16, 16, requires_grad=True)
    scores, features = discriminator(x, frozen=True)
    (scores.mean() + features[0].mean()).backward()
    assert x.grad is not None
    assert all(weight.grad is None for weight in discriminator.parameters())
    discriminator(x.detach())[0].mean().backward()
    assert all(weight.grad is not None for weight in discriminator.parameters())


def test_the_adversary_begins_when_it_is_told_to(files) -> None:
    reconstruction, model = objective(files)
    assert model.adversary is not None
    for step, moved in ((0, False), (1, True)):
        model.zero_grad()
        reconstruction(model, step, slice(None)).backward()
        assert any(weight.grad is not None for weight in model.adversary.parameters()) == moved
        assert model.autoencoder.encoder.conv_in.weight.grad is not None
    _, plain = objective(files, adversary=ADVERSARY.model_copy(update={"weight": 0, "feature_weight": 0}))
    assert plain.adversary is None


def trained(files, folder: Path, learning: str, steps: int = 4) -> dict[str, float]:
    train, validation = files
    return train_autoencoder(
        train,
        validation,
        autoencoder=SMALL,
        codebook=CODEBOOK.model_copy(update={"learning": learning}),
        perceptual=PERCEPTUAL,
        adversary=ADVERSARY,
        training=TRAINING.model_copy(
            update={"steps": steps, "batch_size": 4, "checkpoint_every": 2, "ema_decay": 0.0, "sample_every": 100}
        ),
        crop=8,
        seed=0,
        checkpoints=folder / "checkpoints",
        folder=folder / "autoencoder",
        log=folder / "log",
        what="train_vqgan",
    )


@pytest.mark.parametrize("learning", ["kmeans", "ema"])
def test_a_killed_training_goes_on_to_the_same_weights(files, tmp_path, monkeypatch, learning: str) -> None:
    metrics = trained(files, tmp_path / "whole", learning)
    assert {"psnr", "perplexity", "codes_used", "validation_loss"} <= metrics.keys()
    after = QuantisedReconstruction.after

    def killed(self, model, step) -> None:
        if step == 3:
            raise KeyboardInterrupt
        after(self, model, step)

    monkeypatch.setattr(QuantisedReconstruction, "after", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(files, tmp_path / "killed", learning)
    monkeypatch.setattr(QuantisedReconstruction, "after", after)
    trained(files, tmp_path / "killed", learning)
    one, other = (
        CubeAutoencoder.from_pretrained(str(tmp_path / run / "autoencoder")).state_dict() for run in ("whole", "killed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


DIFFUSION = DiffusionConfig(
    base_channels=16, multipliers=(1, 1, 2), layers=1, attention=(False, False, True), timesteps=20,
    schedule="squaredcos_cap_v2", prediction="flow", prior_components=3, loss="l2", mirror=True,
)  # fmt: skip
SAMPLING = CubeSamplingConfig(steps=2, autoguidance=1.0, tile=None)


def diffused(files, folder: Path, steps: int = 2, **changes) -> CubePipeline:
    train, validation = files
    reconstruction, model = objective(files)
    model.autoencoder.begin(model.autoencoder.to_model(train[range(len(train))]))
    reconstruction.first_codebook(model)
    train_diffusion(
        model.autoencoder,
        train,
        validation,
        [None] * len(train),
        diffusion=DIFFUSION.model_copy(update=changes),
        sampling=SAMPLING,
        training=TRAINING.model_copy(update={"steps": steps, "sample_every": 100}),
        seed=0,
        checkpoints=folder / "checkpoints",
        generator=folder / "generator",
        log=folder / "log",
        what="train_cube_diffusion",
    )
    return CubePipeline.from_pretrained(folder / "generator")


@pytest.mark.parametrize(("prediction", "components"), [("v_prediction", 0), ("epsilon", 0), ("flow", 0), ("flow", 3)])
def test_what_is_trained_draws_by_seed_alone(files, tmp_path, prediction: str, components: int) -> None:
    pipeline = diffused(files, tmp_path, prediction=prediction, prior_components=components)
    drawn = pipeline(seeds=[3, 4, 5], batch_size=2)
    assert drawn.shape == (3, 4, 16, 16)
    assert drawn.dtype == np.uint16
    alone = pipeline(seeds=[5])
    assert np.abs(alone[0].astype(int) - drawn[2]).max() <= 2
    assert not np.array_equal(drawn[0], drawn[1])
    assert pipeline.wavelengths == list(WAVELENGTHS)
    if components:
        with pytest.raises(UsageError, match="draw at the size it was trained for"):
            pipeline(seeds=[1], size=32)
    else:
        assert pipeline(seeds=[1], size=32).shape == (1, 4, 32, 32)
    with pytest.raises(UsageError, match="multiple of 16"):
        pipeline(seeds=[1], size=24)
    with pytest.raises(UsageError, match=r"model_index\.json"):
        CubePipeline.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def sided() -> tuple[torch.Tensor, list[str]]:
    """Latents in which something lies at the left of left eyes and at the right of right ones."""
    latents = torch.randn(32, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    latents[::2, :, :, 0] += 3
    latents[1::2, :, :, 3] += 3
    return latents, ["left", "right"] * 16


def test_each_side_has_its_gaussian_and_a_mirrored_left_eye_is_a_right_one(sided) -> None:
    latents, eyes = sided
    prior = fit_prior(torch.cat([latents, latents.flip(-1)]), eyes, mirror=True, components=2)
    assert prior.config.sides == 2
    left, right = prior.mean
    assert torch.allclose(left, right.flip(-1), atol=1e-5)
    assert float(left[:, :, 0].mean()) == pytest.approx(3, abs=0.1)
    assert float(left[:, :, 3].mean()) == pytest.approx(0, abs=0.1)
    assert fit_prior(latents, [None] * 32, mirror=False, components=2).config.sides == 1


def test_the_prior_alone_draws_left_eyes_and_right_ones_and_nothing_between(sided) -> None:
    prior = fit_prior(*sided, mirror=False, components=2)
    unet, scheduler = new_unet(DIFFUSION, 2, 4).eval(), new_scheduler(DIFFUSION)
    x = torch.randn(40, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(20)
    with torch.no_grad():
        for time in scheduler.timesteps:
            x = scheduler.step(told(unet, prior, scheduler, x, time.expand(len(x)))[0], time, x).prev_sample
    left, right = x[..., 0].mean((1, 2)), x[..., 3].mean((1, 2))
    assert torch.allclose(left + right, torch.tensor(3.0), atol=0.3)
    assert float(torch.minimum(left, right).abs().max()) < 0.3
    assert 10 < int((left > right).sum()) < 30
    assert float(x[..., 1:3].std()) < 0.2


def test_the_loss_of_a_network_that_adds_nothing_is_the_prior_s_own_error(files) -> None:
    """In units of what the prior expects of itself."""
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 2, 4, 4, generator=rng)
    prior = fit_prior(latents, [None] * 400, mirror=False, components=2)
    unet, scheduler = new_unet(DIFFUSION, 2, 4), new_scheduler(DIFFUSION)
    loss = LatentDenoising(latents, latents[:64], scheduler, prior, "l2", 200, 0)
    with torch.no_grad():
        assert float(loss(unet, 0, slice(None))) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("compression", "tile"), [(4, 32), (8, 64), (16, 64)])
def test_a_network_that_sees_only_its_place_gives_the_same_by_tiles(monkeypatch, compression: int, tile: int) -> None:
    autoencoder = CubeAutoencoder(
        [500.0, 600.0], [0.5, 0.5], compression=compression, latent_channels=2, base_channels=8
    )
    monkeypatch.setattr(autoencoder, "_encoded", lambda x: F.avg_pool2d(x, compression))
    monkeypatch.setattr(autoencoder, "_decoded", lambda z: F.interpolate(z, scale_factor=compression))
    x = torch.randn(2, 2, 160, 96, generator=torch.Generator().manual_seed(0))
    z = autoencoder.encode(x)
    assert torch.allclose(autoencoder.encode(x, tile), z, atol=1e-5)
    assert torch.allclose(autoencoder.decode(z, tile), autoencoder.decode(z), atol=1e-5)
    assert torch.allclose(autoencoder.encode(x, 512), z, atol=1e-5), "a cube smaller than a tile is one"
    with pytest.raises(UsageError, match="no multiple"):
        autoencoder.encode(x, tile + 1)


def test_statistics_of_the_latents_are_kept_channel_by_channel(files, tmp_path) -> None:
    train, _ = files
    config = DIFFUSION.model_copy(update={"prediction": "epsilon", "prior_components": 0})
    for channels in (1, 2, 5):
        sizes = SMALL.model_dump() | {"latent_channels": channels}
        parts = new_unet(config, channels, 4), CubeAutoencoder(train.wavelengths, train.scale(0), **sizes)
        mean, std = (torch.arange(channels) * 0.1).tolist(), (torch.arange(channels) + 1.0).tolist()
        folder = tmp_path / str(channels)
        CubePipeline(*parts, new_scheduler(config), size=16, steps=2, mean=mean, std=std).save_pretrained(folder)
        again = CubePipeline.from_pretrained(folder)
        assert (again.config.mean, again.config.std) == (mean, std)
        assert again(seeds=[0]).shape == (1, 4, 16, 16)
        assert CubePipeline(*parts, new_scheduler(config)).config.mean == [0.0] * channels
        with pytest.raises(UsageError, match=f"mean has {channels + 1} values, the latents have {channels} channels"):
            CubePipeline(*parts, new_scheduler(config), mean=[0.0] * (channels + 1), std=std)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match="compression"):
        AutoencoderConfig(**SMALL.model_dump() | {"compression": 6})
    with pytest.raises(ValidationError, match="prior_components 3 need the prediction flow"):
        DiffusionConfig(**DIFFUSION.model_dump() | {"prediction": "epsilon"})


def test_an_empty_split_is_named(cohort, tmp_path) -> None:
    with pytest.raises(DataError, match="'test' is empty"):
        CubeFile(cohort, "test", tmp_path)
