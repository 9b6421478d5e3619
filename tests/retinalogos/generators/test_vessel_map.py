"""Vessel maps: maps and their checks, the processes, tiles, networks, and the cascade."""

import dataclasses
import json
import shutil
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from components.cli import main, parser
from components.register.kinds import KINDS
from retinalogos.cohort.readers import Source, read
from retinalogos.errors import UsageError
from retinalogos.generators.vessel_map import captions, loaders, maps, tiles
from retinalogos.generators.vessel_map.cascade import (
    VesselMapCascade,
    Wish,
    bundle,
    load_part,
    painted_by_prior,
    unbundled,
)
from retinalogos.generators.vessel_map.configuration import DenoiserConfig, DiffusionConfig, TextConfig
from retinalogos.generators.vessel_map.diffusion import Process, draw, starting_noise
from retinalogos.generators.vessel_map.examples import Examples
from retinalogos.generators.vessel_map.judgement import arms
from retinalogos.generators.vessel_map.networks import Denoiser
from retinalogos.generators.vessel_map.objective import (
    Denoising,
    distances_as_maps,
    grown,
    images_as_bytes,
    images_as_signal,
    maps_as_distances,
    new_denoiser,
    shrunk,
    spots,
)
from retinalogos.metrics.overlap import dice
from retinalogos.provenance import read_png

UNET = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "norm_num_groups": 4,
}


def config(prediction: str = "v_prediction", scheduler: str = "ddim", **changes: object) -> DenoiserConfig:
    values = {
        "conditioning": "concatenate",
        "unet": UNET,
        "diffusion": {"prediction": prediction, "beta_schedule": "squaredcos_cap_v2", "train_timesteps": 1000},
        "sampling": {"scheduler": scheduler, "steps": 4, "guidance": 1.0, "autoguidance": 1.0, "precision": "float32"},
        "condition_dropout": 0.1,
        "prior_components": 0,
    }
    return DenoiserConfig.model_validate(values | changes)


def eyes(n: int = 6, size: int = 16) -> Examples:
    rng = np.random.default_rng(0)
    classes = (rng.random((n, size, size)) < 0.1) * rng.integers(1, 4, (n, size, size))
    return Examples(
        [f"eye{i}" for i in range(n)],
        [f"patient{i // 2}" for i in range(n)],
        ["test"] * n,
        rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8),
        classes.astype(np.uint8),
        np.ones((n, size, size), bool),
        np.arange(n) % 3,
        rng.random((n, 2, 2)).astype(np.float32),
        np.full(n, 0.15, np.float32),
        np.ones(n, bool),
    )


def write(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    return next(iter(read("phantom", Source(n=1, size=256)))).image().maps["vessels"]


# --- maps


def test_classes_and_channels_and_colours_are_the_same_map(phantom: np.ndarray, tmp_path: Path) -> None:
    assert (maps.to_classes(maps.to_channels(phantom)) == phantom).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (phantom, maps.to_colour(phantom)):
            assert (maps.read_drawn(write(tmp_path / "map.png", array), 256) == phantom).all()


def test_a_map_is_where_its_distances_are_positive(phantom: np.ndarray) -> None:
    empty = np.zeros_like(phantom)
    signal = maps_as_distances(np.stack([phantom, empty])).numpy()
    assert (maps.to_classes(signal[0] > 0) == phantom).all()
    assert (signal[1] == -1).all()
    # So it is about its centre lines, but for corners.
    drawn, nothing = distances_as_maps(torch.from_numpy(signal))
    assert dice(drawn > 0, phantom > 0) > 0.9
    assert not nothing.any()
    far = np.abs(signal) < 1
    assert 0.2 < far[0].mean() < 0.8, "a band about the vessels"
    square = np.zeros((20, 20), np.uint8)
    square[8:12, 8:12] = 1
    # Borders lie between pixels: half a pixel from the last one inside and the first one outside. 0.05 of 20 is one.
    assert maps_as_distances(square[None])[0, 0, 10, 6:10].tolist() == [-1, -0.5, 0.5, 1]


def test_a_palette_says_what_its_numbers_mean(phantom: np.ndarray, tmp_path: Path) -> None:
    colours = Image.fromarray(maps.to_colour(phantom)).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    labels = Image.fromarray(phantom, "P")
    labels.putpalette([value for number in range(4) for value in (number, 50 * number, 9)])
    assert np.asarray(colours).max() <= 3
    for picture in (colours, labels):
        picture.save(tmp_path / "map.png")
        assert (maps.read_drawn(tmp_path / "map.png", 256) == phantom).all()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_fine_map_is_drawn_at_half_its_size(phantom: np.ndarray, width: int) -> None:
    line = np.zeros((64, 64), np.uint8)
    # At an odd place: a coarse pixel holds one side of it more than the other.
    line[21 : 21 + width, 8:56] = 2
    signal = maps_as_distances(line[None], 2)
    assert signal.shape == (1, 2, 32, 32)
    drawn = distances_as_maps(signal, 2)[0]
    assert (drawn > 0).any(0)[12:52].all(), "in one piece"
    assert (drawn[:, 12:52] > 0).sum(0).mean() == pytest.approx(width, abs=1)
    again = distances_as_maps(maps_as_distances(phantom[None], 2), 2)[0]
    assert again.shape == phantom.shape
    assert dice(again > 0, phantom > 0) > 0.8
    halved = maps.resize_map(maps.resize_map(phantom, 128), 256)
    assert dice(again > 0, phantom > 0) > dice(halved > 0, phantom > 0), "finer than a map of half the size"


def test_a_vessel_with_flat_walls_is_drawn_no_wider_than_its_middle_says() -> None:
    signal = torch.full((1, 2, 40, 40), -1.0)
    # 0.05 of 40 is two pixels: a half pixel in the middle, and walls that should be outside.
    signal[0, 0, 19, 5:35] = 0.25
    signal[0, 0, 18, 5:35] = signal[0, 0, 20, 5:35] = 0.05
    drawn = distances_as_maps(signal)[0]
    assert (drawn[19, 8:32] == 1).all()
    assert not np.delete(drawn, 19, axis=0).any()


def test_kinds_are_told_by_maps_that_hold_both(phantom: np.ndarray) -> None:
    assert maps.tells_kinds(phantom)
    assert not maps.tells_kinds(np.where(phantom > 0, 3, 0).astype(np.uint8))
    assert not maps.tells_kinds(np.where(phantom == 1, 1, 0).astype(np.uint8))


def test_swapped_kinds_are_warned_of(phantom: np.ndarray, tmp_path: Path) -> None:
    swapped = np.array([0, 2, 1, 3], np.uint8)[phantom]
    with pytest.warns(UserWarning, match="swapped"):
        maps.read_drawn(write(tmp_path / "map.png", maps.to_colour(swapped)), 64)


@pytest.mark.parametrize(("kind", "missing"), [(1, "vein"), (2, "artery")])
def test_a_map_of_one_kind_is_warned_of(phantom: np.ndarray, tmp_path: Path, kind: int, missing: str) -> None:
    alone = np.where(phantom == kind, phantom, 0).astype(np.uint8)
    with pytest.warns(UserWarning, match=f"shows no {missing}"):
        maps.read_drawn(write(tmp_path / "map.png", maps.to_colour(alone)), 64)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((32, 32, 3), np.uint8), "empty"),
        (np.full((32, 32, 3), (255, 128, 0), np.uint8), "not binary: 1024 pixels"),
        (np.full((32, 32), 255, np.uint8), "one channel and the value 255"),
        (np.eye(32, dtype=bool), "is black and white"),
        (np.full((32, 32, 3), (255, 0, 0), np.uint8), "100% of it is vessel"),
        (np.full((32, 32, 4), 255, np.uint8), r"channels R\+G\+B\+A"),
        (np.zeros((32, 16, 3), np.uint8), "16×32"),
    ],
)
def test_unfit_maps_are_refused(array: np.ndarray, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        maps.read_drawn(write(tmp_path / "map.png", array), 32)


def test_a_vessel_that_is_lost_at_the_painters_size_is_refused(tmp_path: Path) -> None:
    dot = np.zeros((400, 400, 3), np.uint8)
    dot[3, 3], dot[9, 9] = (255, 0, 0), (0, 0, 255)
    with pytest.raises(UsageError, match="none of its vessels is left at 16×16"):
        maps.read_drawn(write(tmp_path / "dot.png", dot), 16)


def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(UsageError, match="exceeds limit"):
        maps.read_drawn(tmp_path / "huge.png", 16)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_text("no picture")
    with pytest.raises(UsageError, match="no picture"):
        maps.read_drawn(tmp_path / "map.png", 32)


# --- processes


@pytest.mark.parametrize(
    ("prediction", "scheduler"),
    [("epsilon", "ddim"), ("v_prediction", "ddim"), ("v_prediction", "dpm_solver"), ("flow", "flow")],
)
def test_a_network_that_knows_the_picture_draws_it(prediction: str, scheduler: str) -> None:
    """With the true answer at every step each sampler must end on the picture itself."""
    chosen = config(prediction, scheduler)
    process = Process(chosen.diffusion)
    data, noise = torch.rand(1, 2, 8, 8) * 2 - 1, torch.randn(1, 2, 8, 8)

    def knows(x: torch.Tensor, t: torch.Tensor, _: object, __: object) -> torch.Tensor:
        if prediction == "flow":
            return (x - data) / (t / 1000).view(-1, 1, 1, 1)
        scaled = process.noisy(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), t.long())
        spread = (1 - scaled**2).sqrt()
        true_noise = (x - scaled * data) / spread.clamp(min=1e-3)
        return true_noise if prediction == "epsilon" else scaled * true_noise - spread * data

    network = Denoiser(
        part="masks", size=8, channels=2, condition_channels=1, conditioning="concatenate", labels=0, levels=False,
        scale=1.0, unet=UNET, diffusion=chosen.diffusion.model_dump(), sampling=chosen.sampling.model_dump(),
    )  # fmt: skip
    sampling = chosen.sampling.model_copy(update={"steps": 20})
    drawn = draw(network, noise, torch.zeros(1, 1, 8, 8), None, sampling, lambda _: knows)
    assert (drawn - data).abs().max() < 0.1


def test_process_and_scheduler_must_fit() -> None:
    with pytest.raises(ValidationError, match="flow goes with flow"):
        config("flow", "ddim")
    with pytest.raises(ValidationError, match="prior_components 5 need the prediction flow"):
        config(prior_components=5)
    with pytest.raises(ValidationError, match="condition_dropout"):
        config(
            condition_dropout=0.0,
            sampling={"scheduler": "ddim", "steps": 2, "guidance": 2.0, "autoguidance": 1.0, "precision": "float32"},
        )


def test_training_targets_are_of_the_named_kind() -> None:
    data, noise, t = torch.rand(3, 1, 2, 2), torch.randn(3, 1, 2, 2), torch.tensor([10, 500, 990])
    by_kind = {
        kind: Process(DiffusionConfig(prediction=kind, beta_schedule="linear", train_timesteps=1000))
        for kind in ("epsilon", "flow")
    }
    assert torch.equal(by_kind["epsilon"].target(data, noise, t), noise)
    assert torch.equal(by_kind["flow"].target(data, noise, t), noise - data)
    assert torch.allclose(by_kind["flow"].noisy(data, noise, torch.tensor([0.0, 0.0, 0.0])), data)


# --- tiles


@settings(max_examples=50)
@given(st.integers(8, 200), st.integers(8, 64), st.data())
def test_tiles_cover_everything_and_overlap(length: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    begins = tiles.starts(length, tile, overlap)
    assert begins[0] == 0
    if length > tile:
        assert begins[-1] == length - tile
        assert all(0 < b - a <= tile - overlap for a, b in pairwise(begins))


def test_tiled_drawing_leaves_no_seam_where_abutting_tiles_do() -> None:
    """Each tile darkens towards its right edge: abutting tiles show steps, blended ones hardly any."""

    def predict(x: torch.Tensor, _: object, __: object, ___: object) -> torch.Tensor:
        return x + torch.linspace(-0.5, 0.5, x.shape[-1])

    drawn = {}
    for overlap in (0, 24):
        flat = torch.zeros(1, 3, 96, 96)
        found = tiles.in_tiles(32, overlap)(predict)(flat, torch.zeros(1), flat, None)
        drawn[overlap] = tiles.seam(images_as_bytes(found)[0], 32, overlap)
    assert drawn[0] > 5
    assert drawn[24] < 2


def test_one_tile_is_the_whole_picture() -> None:
    network = new_denoiser("paint", config(), eyes(), 1, 16, 0).eval()
    torch.nn.init.normal_(network.backbone.conv_out.weight)
    x, condition = torch.randn(1, 3, 16, 16), torch.randn(1, 2, 16, 16)
    whole = network(x, torch.tensor([5]), condition, None)
    assert torch.allclose(tiles.in_tiles(32, 8)(network)(x, torch.tensor([5]), condition, None), whole, atol=1e-5)


def test_an_overlap_must_be_smaller_than_a_tile() -> None:
    with pytest.raises(UsageError, match="overlap"):
        tiles.starts(100, 16, 16)


# --- networks and losses


@pytest.mark.parametrize("part", ["masks", "paint", "enlarge"])
@pytest.mark.parametrize("conditioning", ["concatenate", "control"])
def test_each_part_learns_and_its_condition_matters(part: str, conditioning: str, tmp_path: Path) -> None:
    chosen, sample = config(conditioning=conditioning), eyes()
    factor = 2 if part == "enlarge" else 1
    network = new_denoiser(part, chosen, sample, factor, 16, seed=0)
    loss = Denoising(part, sample, sample, chosen, 4, 0, factor, None, 0.3, network.config.scale)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    before = float(loss(network, None).detach())
    for step in range(12):
        value = loss(network, step)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss(network, None).detach()) < before
    network.save_pretrained(tmp_path / part)
    again = load_part(tmp_path / part, part)
    drawn = loss.batch(None)
    told = [
        again(drawn["noise"], drawn["times"], condition, drawn["joined"])
        for condition in (drawn["condition"], torch.zeros_like(drawn["condition"]))
    ]
    assert torch.allclose(
        told[0], network.eval()(drawn["noise"], drawn["times"], drawn["condition"], drawn["joined"]), atol=1e-5
    )
    assert not torch.allclose(told[0], told[1])


def test_a_batch_is_a_function_of_its_step_and_rows_are_parts_of_it() -> None:
    loss = Denoising("masks", eyes(), eyes(), config(), 4, 0)
    first, again, other = loss.batch(3), loss.batch(3), loss.batch(4)
    assert torch.equal(first["data"], again["data"])
    assert torch.equal(first["noise"], again["noise"])
    assert not torch.equal(first["noise"], other["noise"])
    network = new_denoiser("masks", config(), eyes(), 1, 16, 0).eval()
    torch.nn.init.normal_(network.backbone.conv_out.weight, std=0.1)
    halves = (loss(network, 3, slice(0, 2)) + loss(network, 3, slice(2, 4))) / 2
    assert torch.allclose(loss(network, 3), halves, atol=1e-5)


def test_a_mirrored_eye_changes_its_side_and_its_marks() -> None:
    sample = eyes(n=1)
    sample.sides[:] = 1
    sample.marks[:] = [[0.25, 0.5], [0.75, 0.5]]
    loss = Denoising("masks", sample, sample, config(condition_dropout=0.0), 1, 0)
    plain = loss.batch(None)
    for drawn in (loss.batch(step) for step in range(12)):
        mirrored = not torch.equal(drawn["data"], plain["data"])
        assert int(drawn["joined"]) == (2 if mirrored else 1)
        expected = plain["condition"].flip(3) if mirrored else plain["condition"]
        assert torch.allclose(drawn["condition"], expected, atol=1e-5)


def test_no_eye_to_learn_from_is_refused() -> None:
    nobody = eyes().take(np.zeros(0, int))
    with pytest.raises(UsageError, match="label_vessels"):
        Denoising("masks", nobody, nobody, config(), 4, 0)


def test_unknown_marks_leave_no_spot() -> None:
    marks = np.array([[[0.25, 0.5], [np.nan, np.nan]]], np.float32)
    found = spots(marks, 32)[0]
    assert np.unravel_index(int(found[0].argmax()), (32, 32)) in {(15, 7), (16, 7), (15, 8), (16, 8)}
    assert not found[1].any()


def test_pictures_survive_the_way_to_signals_and_back() -> None:
    images = eyes().images
    assert (images_as_bytes(images_as_signal(images)) == images).all()


# --- the prior


def lit_eyes(n: int = 24, size: int = 16, map_factor: int = 1) -> Examples:
    """Eyes whose photographs are bright, each by its own, and darker the more of a pixel is vessel."""
    sample = dataclasses.replace(eyes(n, size), maps=eyes(n, size * map_factor).maps)
    rng = np.random.default_rng(1)
    bright = rng.uniform(120, 220, (n, 1, 1, 3)) - 80 * shares(sample.maps, size)[..., None]
    sample.images[:] = np.clip(bright + rng.normal(0, 3, bright.shape), 0, 255).astype(np.uint8)
    return sample


def shares(maps: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that is vessel, n×size×size."""
    factor = maps.shape[1] // size
    return (maps > 0).reshape(len(maps), size, factor, size, factor).mean((2, 4))


@pytest.mark.parametrize("map_factor", [1, 2])
def test_the_prior_alone_draws_each_vessel_at_its_place(map_factor: int) -> None:
    sample, chosen = lit_eyes(map_factor=map_factor), config("flow", "flow", prior_components=4)
    network = new_denoiser("paint", chosen, sample, 1, 16, seed=0, map_factor=map_factor).eval()
    drawn = painted_by_prior(network, sample.maps[:8])
    assert drawn is not None
    # What a share of a pixel takes from its light: half a vessel half as much.
    covered = shares(sample.maps[:8], 16)
    assert np.polyfit(covered.ravel(), drawn.mean(3).ravel(), 1)[0] == pytest.approx(-80, abs=20)
    # A network that has learned nothing adds nothing.
    cascade = VesselMapCascade({"paint": network}, 1, 0.0, 16, 0, {})
    assert (cascade.paint(sample.maps[:8], list(range(8))) == drawn).all()
    assert painted_by_prior(new_denoiser("paint", config(), sample, 1, 16, seed=0), sample.maps[:2]) is None


@pytest.mark.parametrize(
    ("part", "map_factor"), [("masks", 1), ("masks", 2), ("paint", 2), ("enlarge", 0), ("enlarge", 1)]
)
def test_with_a_prior_the_untrained_loss_is_about_one_and_training_lowers_it(
    part: str, map_factor: int, tmp_path: Path
) -> None:
    chosen, sample = config("flow", "flow", prior_components=4), lit_eyes(map_factor=max(1, map_factor))
    factor = 2 if part == "enlarge" else 1
    network = new_denoiser(part, chosen, sample, factor, 16, seed=0, most_noise=0.1, map_factor=map_factor)
    loss = Denoising(part, sample, sample, chosen, 8, 0, factor, None, 0.1, network.config.scale, map_factor)
    before = float(loss(network, None).detach())
    assert 0.5 < before < 1.5
    fixed = {name: value.clone() for name, value in network.prior.state_dict().items()}
    optimizer = torch.optim.AdamW([weight for weight in network.parameters() if weight.requires_grad], 2e-3)
    for step in range(12):
        loss(network, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss(network, None).detach()) < before
    assert all(torch.equal(value, fixed[name]) for name, value in network.prior.state_dict().items())
    network.save_pretrained(tmp_path)
    again, drawn = load_part(tmp_path, part), loss.batch(None)
    given = (drawn["noise"], drawn["times"], drawn["condition"], drawn["joined"])
    assert torch.allclose(again(*given), network.eval()(*given), atol=1e-5)


def detailed_eyes(n: int = 24, size: int = 32) -> Examples:
    """Eyes whose upper half is smooth and whose lower half is a fine pattern that an enlargement loses."""
    sample = eyes(n, size)
    rng = np.random.default_rng(1)
    grey = 120 + 20 * rng.standard_normal((n, 1, 1, 1)) + np.zeros((n, size, size, 3))
    grey[:, size // 2 :] += 30 * np.sign(rng.standard_normal((n, size // 2, size, 1)))
    sample.images[:] = np.clip(grey, 0, 255).astype(np.uint8)
    return sample


def test_the_prior_of_an_enlarger_adds_grey_detail_where_there_is_some() -> None:
    sample = detailed_eyes()
    chosen = config("flow", "flow", prior_components=4)
    network = new_denoiser("enlarge", chosen, sample, 2, 32, seed=0, most_noise=0.1).eval()
    small = images_as_bytes(shrunk(images_as_signal(sample.images[:4]), 2))
    cascade = VesselMapCascade({"enlarge": network}, 2, 0.0, 32, 0, {})
    enlarged = cascade.enlarge(small, [0, 1, 2, 3], sample.maps[:4])
    added = enlarged.astype(float) - images_as_bytes(grown(images_as_signal(small), 2))
    assert added[:, 20:].std() > 10
    assert added[:, :8].std() < 2
    assert added[:, 20:].std(3).mean() < 3, "all colours together"


def test_an_enlarger_draws_the_vessels_of_its_map() -> None:
    """Vessels of one pixel, of which an enlargement keeps a shadow twice as wide."""
    sample = lit_eyes(size=32)
    network = new_denoiser(
        "enlarge", config("flow", "flow", prior_components=4), sample, 2, 32, 0, most_noise=0.1
    ).eval()
    small = images_as_bytes(shrunk(images_as_signal(sample.images[:8]), 2))
    cascade = VesselMapCascade({"enlarge": network}, 2, 0.0, 32, 0, {})
    vessels, seeds = sample.maps[:8] > 0, list(range(8))

    def depth(enlarged: np.ndarray) -> float:
        return float(enlarged[~vessels].mean() - enlarged[vessels].mean())

    assert depth(cascade.enlarge(small, seeds, sample.maps[:8])) == pytest.approx(80, abs=15)
    assert depth(images_as_bytes(grown(images_as_signal(small), 2))) < 50
    without = new_denoiser("enlarge", config(), sample, 2, 32, 0, map_factor=0)
    assert without.config.condition_channels == 3


def test_the_prior_of_an_enlarger_sharpens_as_far_as_noise_lets_it() -> None:
    rng = np.random.default_rng(2)
    edges = np.repeat(rng.integers(60, 200, (24, 1, 16, 1)), 3, 2)[:, :, :32]
    sample = dataclasses.replace(eyes(24, 32), images=np.broadcast_to(edges, (24, 32, 32, 3)).astype(np.uint8))
    prior = new_denoiser("enlarge", config("flow", "flow", prior_components=4), sample, 2, 32, 0, most_noise=0.8).prior
    explained = 1 - prior.variances.mean((1, 2))
    assert explained[0] > explained[1] > explained[2]
    assert explained[0] > 0.1


# --- captions


TEXT = TextConfig(encoder="minilm", layer=-1, token_budget=64, wordings=1)


def test_a_caption_changes_the_photograph_and_an_open_one_does_not(tmp_path: Path) -> None:
    sample = lit_eyes(8)
    rows = [{"image_id": str(i), "eye": ("left", "right")[i % 2], "dr_grade": i % 5} for i in range(8)]
    texts = captions.write(rows, TEXT, seed=0)
    assert [len(of_eye) for of_eye in texts] == [2] * 8
    assert "right" in texts[1][-1]
    encoder = captions.CaptionFeatures.fit(TEXT, texts)
    features = encoder.of_eyes(texts)
    assert features.shape == (8, 2, 2, 384)
    # Of the mirrored eye the caption says the other side.
    assert torch.allclose(features[1, 1, 1], encoder([texts[1][-1].replace("right", "left")])[0], atol=1e-4)
    chosen = config("flow", "flow", prior_components=2)
    network = new_denoiser("paint", chosen, sample, 1, 16, 0, TEXT, features)
    network.text_mean.data.copy_(encoder.mean)
    network.text_std.data.copy_(encoder.std)
    torch.nn.init.normal_(network.backbone.conv_out.weight, std=0.1)
    loss = Denoising("paint", sample, sample, chosen, 4, 0, captions=(features, features))
    assert loss.batch(3)["joined"].shape == (4, 384)
    assert torch.isfinite(loss(network, 3))
    network.save_pretrained(tmp_path)
    cascade = VesselMapCascade({"paint": load_part(tmp_path, "paint")}, 1, 0.0, 16, 0, {})
    prompts = ["left eye, no sign of disease", "right eye, proliferative diabetic retinopathy", None]
    said, other, left_open = cascade.paint(np.stack([sample.maps[0]] * 3), [0, 0, 0], prompts)
    assert (said != other).any()
    assert (said != left_open).any()
    assert (cascade.paint(sample.maps[:1], [0])[0] == left_open).all()


def test_a_painter_without_captions_refuses_one(models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="trained without captions"):
        VesselMapCascade.load({"paint": models["paint"]}, 0.0, 16, 0).paint(eyes().maps[:1], [0], ["left eye"])


# --- the cascade


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for part, factor, size in (("masks", 1, 16), ("paint", 1, 16), ("enlarge", 2, 32)):
        network = new_denoiser(part, config(), eyes(size=size), factor, size, seed=1)
        torch.nn.init.normal_(network.backbone.conv_out.weight, std=0.1)
        network.save_pretrained(folder / part)
    return {part: folder / part for part in ("masks", "paint", "enlarge")}


@pytest.fixture(scope="module")
def generator(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models as one folder."""
    folder = tmp_path_factory.mktemp("generator") / "whole"
    bundle(models, folder)
    return folder


def test_an_eye_is_its_seeds_whatever_its_batch(models: dict[str, Path]) -> None:
    cascade = VesselMapCascade.load(models, noise=0.2, tile=32, overlap=8)
    wishes = [Wish(seed, seed % 3, np.full((2, 2), np.nan)) for seed in range(3)]
    together = [eye for _, eye in cascade.stream(wishes, 3)]
    alone = [eye for _, eye in cascade.stream(wishes, 1)]
    for one, other in zip(together, alone, strict=True):
        assert (one.classes == other.classes).all()
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
        assert (one.image.shape, one.enlarged.shape) == ((16, 16, 3), (32, 32, 3))
    assert not (together[0].image == together[1].image).all()


def test_larger_pictures_are_enlarged_in_tiles(models: dict[str, Path]) -> None:
    cascade = VesselMapCascade.load({"enlarge": models["enlarge"]}, noise=0.0, tile=32, overlap=8)
    cascade.factor = 2
    large = eyes(n=1, size=40)
    assert cascade.enlarge(large.images, [0], large.maps).shape == (1, 80, 80, 3)


def test_seams_of_drawn_pictures_are_measured(models: dict[str, Path]) -> None:
    cascade = VesselMapCascade.load(
        {part: models[part] for part in ("paint", "enlarge")}, noise=0.0, tile=32, overlap=8
    )
    found = cascade.seams(eyes(n=2).images, [0, 1], eyes(n=2).maps)
    assert set(found) == {"blended", "abutting", "whole"}
    assert all(value > 0 for value in found.values())
    large = cascade.seams(eyes(n=1, size=40).images, [0], eyes(n=1, size=40).maps)
    assert set(large) == {"blended", "abutting"}, "larger than a tile: memory may not hold it whole"


def test_a_bundle_draws_as_its_parts_do(models: dict[str, Path], generator: Path, tmp_path: Path) -> None:
    index = json.loads((generator / "model_index.json").read_text())
    assert index["_class_name"] in KINDS, "it can be registered"
    assert index["sizes"] == {"masks": 16, "paint": 16, "enlarge": 32}
    wish = Wish(1, 0, np.full((2, 2), np.nan))
    (_, one), (_, other) = (
        next(VesselMapCascade.load_whole(folders).stream([wish], 1)) for folders in (models, unbundled(generator))
    )
    assert (one.enlarged == other.enlarged).all()
    with pytest.raises(UsageError, match="the model 'paint'"):
        unbundled(tmp_path, ("paint",))


def test_a_part_that_is_missing_or_another_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no model"):
        load_part(tmp_path, "masks")
    with pytest.raises(UsageError, match="not 'paint'"):
        load_part(models["masks"], "paint")
    cascade = VesselMapCascade.load({"masks": models["masks"]}, 0.0, 32, 8)
    with pytest.raises(UsageError, match="needs the model 'paint'"):
        cascade.paint(eyes().maps[:1], [0])


def test_starting_noise_is_each_picture_s_own() -> None:
    assert torch.equal(starting_noise([3, 4], 2, 8, 8)[1], starting_noise([4], 2, 8, 8)[0])


# --- the command


def test_command_draws_and_paints(generator: Path, phantom: np.ndarray, tmp_path: Path, capsys) -> None:
    command = parser()
    folder, out = str(generator), tmp_path / "out"

    def run(*words: str) -> None:
        arguments = command.parse_args(["vessel-map", *words, "--model", folder, "--out", str(out)])
        arguments.run(arguments)

    run("generate", "--n", "2", "--eye", "left", "--disc", "0.3", "0.5")
    swapped = np.array([0, 2, 1, 3], np.uint8)[phantom]
    mask = write(tmp_path / "mask.png", maps.to_colour(swapped))
    run("render", str(mask), "--n", "2")
    assert "warning" in capsys.readouterr().out
    records = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    assert len(records) == 12
    for record in records:
        assert read_png(out / record["file"])["synthetic"] == "true"
    with pytest.raises(UsageError, match="from 0 to 1"):
        run("generate", "--disc", "3", "0.5")
    for half_open in ("nan", "inf"):
        with pytest.raises(UsageError, match="finite"):
            run("generate", "--fovea", half_open, "0.5")
    with pytest.raises(UsageError, match="no level"):
        run("generate", "--noise", "1.5")
    for seed, said in (("-1", "less than 0"), ("9" * 20, "too large")):
        with pytest.raises(UsageError, match=said):
            run("generate", "--seed", seed)


def test_a_map_is_painted_a_batch_at_a_time(
    generator: Path, phantom: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[int] = []
    paint = VesselMapCascade.paint
    monkeypatch.setattr(
        VesselMapCascade, "paint", lambda self, maps, *asked: painted.append(len(maps)) or paint(self, maps, *asked)
    )
    mask, out = write(tmp_path / "mask.png", maps.to_colour(phantom)), tmp_path / "out"
    words = ["vessel-map", "render", str(mask), "--n", "3", "--batch-size", "2", "--out", str(out)]
    assert main([*words, "--model", str(generator)]) == 0
    assert painted == [2, 1]
    assert len(list(out.glob("*-enlarged.png"))) == 3


def test_damaged_models_are_named_in_one_line(generator: Path, tmp_path: Path, capsys) -> None:
    for part, change, said in (
        ("masks", {"unet": UNET | {"block_out_channels": [16, 32]}}, "expected shape"),
        ("enlarge", None, "size"),
    ):
        folder = tmp_path / part
        shutil.copytree(generator, folder)
        file = folder / part / "config.json"
        config = {"something": "else"} if change is None else json.loads(file.read_text()) | change
        file.write_text(json.dumps(config))
        assert main(["vessel-map", "generate", "--model", str(folder), "--out", str(tmp_path / "out")]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert f"{folder / part} holds no model of vessel maps" in lines[0]
        assert said in lines[0]
    assert not (tmp_path / "out").exists()


# --- use


def test_what_there_are_no_drawn_eyes_for_is_left_out() -> None:
    assert arms([0.5, 2.0], synthetic=6, real=8) == {"real": 0, "real_plus_50": 4, "synthetic": 6}
    assert arms([0.5], synthetic=0, real=8) == {"real": 0}


# --- public segmenters


class Ensemble(torch.nn.Module):
    """Two members that find arteries where the contrast-enhanced copy is dark in green; logits stacked in front."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dark = -8 * x[:, 4:5]
        nothing = torch.zeros_like(dark)
        logits = torch.cat([nothing, dark, nothing - 9, nothing - 9], 1)
        return torch.stack([logits + 1, logits - 1])


def test_published_segmenters_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.jit.script(Ensemble()).save(str(tmp_path / "av.pt"))
    layout = dataclasses.replace(loaders.PUBLISHED["vascx"].layout, size=64, window=32)
    published = dataclasses.replace(loaders.PUBLISHED["vascx"], layout=layout)
    monkeypatch.setitem(loaders.PUBLISHED, "vascx", published)
    segmenter = loaders.load_segmenter(f"vascx:{tmp_path / 'av.pt'}")
    image = np.full((48, 48, 3), 150, np.uint8)
    image[23:25, 10:38] = 60
    probabilities = segmenter.probabilities(image[None])
    assert probabilities.shape == (1, 2, 48, 48)
    assert probabilities[0, 0, 23:25, 14:34].min() > 0.6
    assert probabilities[0, 0, 34:40, 14:34].max() < 0.3
    assert probabilities[0, 1].max() < 0.1
    asked = []

    def fetch(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(tmp_path / "av.pt")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert (loaders.load_segmenter("vascx").probabilities(image[None]) == probabilities).all()
    assert asked == [("Eyened/vascx", "artery_vein/av_july24.pt")]

    def fail(*_: str) -> str:
        raise OSError("no way there")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UsageError, match=r"no way there.*give vascx:FILE"):
        loaders.load_segmenter("vascx")
    with pytest.raises(UsageError, match="no folder; give one"):
        loaders.load_segmenter(str(tmp_path / "nothing"))


def test_contrast_is_enhanced_within_the_field() -> None:
    image = np.full((64, 64, 3), 0.5, np.float32)
    image[31:33] = 0.4
    enhanced = loaders.contrast_enhanced(image)
    assert enhanced[0, 0].max() == 0, "outside the field"
    assert abs(enhanced[12, 32] - 0.5).max() < 0.02
    assert enhanced[32, 32].max() < 0.4
