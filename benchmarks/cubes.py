"""Training steps of the hyperspectral networks and drawing from them against float32 defaults, and memory.

    python -m benchmarks.cubes
    python -m benchmarks.cubes --what diffusion
    python -m benchmarks.cubes --what drawing --size 672 --tile 224 --compression 8 --batch 1
    python -m benchmarks.cubes --memory 672 4 16
    python -m benchmarks.cubes --tiles 672 224 --unshuffle 1 --compression 8 --base-channels 32

A step is the whole loss of a batch of random cubes, or of their latents, and its gradients, with the settings of
workflows/hyperspectral/params.yaml where no option changes them. Ours is the workflow's: pieces side by side on cores,
the precision that the processor is fast in, attention by matrix products. Against it stand PyTorch's and diffusers'
defaults, float32, channels first, PyTorch's own threads: with the same networks; for the VQ-GAN also the same in two
passes, as Medical Diffusion has it, whose adversary takes its step after a forward pass of its own, and with networks
of the same compression, latent channels, codes and base channels that work on whole pixels, as they are published. The
last line of a training step is what its matrix products and convolutions would take by themselves, at the rate of one
large product: no way that does them can be faster.

Drawing is from untrained networks, by tiles and whole. With --memory SIZE FEW MANY the peak memory of reading a cohort
of that many cubes is told instead. With --tiles SIZE TILE a cube of that size is encoded and decoded whole and by
tiles: memory, time, and how well a phantom cube is rebuilt either way, which tells something only of a trained
autoencoder (--autoencoder FOLDER).
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from benchmarks.paired import Way, compare, memories
from benchmarks.products import tell_products
from retinalogos.cohort.cubes import Cube, encode_cube
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.generators.hyperspectral.configuration import (
    AdversaryConfig,
    AutoencoderConfig,
    CodebookConfig,
    DiffusionConfig,
    PerceptualConfig,
)
from retinalogos.generators.hyperspectral.cube_files import CubeFile
from retinalogos.generators.hyperspectral.denoising import new_scheduler, new_unet
from retinalogos.generators.hyperspectral.diffusion import LatentDenoising, fit_prior
from retinalogos.generators.hyperspectral.pipeline import CubePipeline
from retinalogos.generators.hyperspectral.quantised_training import QuantisedReconstruction, Trained, new_trained
from retinalogos.memory import keep_freed_memory
from retinalogos.phantom import sample_records
from retinalogos.phantom.cubes import Camera, draw_cube
from retinalogos.phantom.spectra import DEFAULT_WAVELENGTHS
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import compute_dtype, device
from retinalogos.training.loop import Gradients

OURS, SAME, TWICE, PIXELS = "ours", "same networks, float32", "the same in two passes", "whole pixels, float32"
WHOLE, TILES = "whole", "by tiles"
WAYS = {"vqgan": (OURS, SAME, TWICE, PIXELS), "diffusion": (OURS, SAME), "drawing": (TILES, WHOLE)}
_PARAMS = Path("workflows/hyperspectral/params.yaml")
_LATE = 10_000  # a step at which the adversary has begun
_LATENTS = 64  # of which batches are drawn


def _settings(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_PARAMS.read_text(encoding="utf-8"))[stage]
    return found


def _training(stage: dict[str, Any], options: argparse.Namespace, pieces: int) -> TrainingConfig:
    given = {key: value for key, value in stage.items() if key in TrainingConfig.model_fields}
    return TrainingConfig(**given | {"batch_size": options.batch, "pieces": pieces})


def _autoencoder_config(options: argparse.Namespace, **changes: Any) -> AutoencoderConfig:
    chosen = {"compression": options.compression, "unshuffle": min(options.unshuffle, options.compression)}
    if options.base_channels:
        chosen["base_channels"] = options.base_channels
    return AutoencoderConfig(**_settings("train_vqgan")["autoencoder"] | chosen | changes)


def _vqgan(name: str, options: argparse.Namespace) -> Way:
    """Gradients of the autoencoder and of its adversary."""
    given = _settings("train_vqgan")
    with tempfile.TemporaryDirectory() as folder:
        _noise(Path(folder) / "cohort", options.size, options.batch)
        cubes = CubeFile(Cohort(Path(folder) / "cohort"), "train", Path(folder))
        cubes.values = np.array(cubes.values)  # the file goes with its folder
    adversary = AdversaryConfig(**given["adversary"])
    # Whole pixels have no linear path beside them, as published.
    changes = {"unshuffle": 1, "shortcut": False} if name == PIXELS else {}
    model = new_trained(_autoencoder_config(options, **changes), adversary, cubes.wavelengths, [0.5] * 16, 0)
    parts = CodebookConfig(**given["codebook"]), PerceptualConfig(**given["perceptual"])
    objective = QuantisedReconstruction(cubes, cubes, options.crop, options.batch, 0, *parts, adversary)
    return _gradients(name, model, partial(_two_passes, objective) if name == TWICE else objective, given, options)


def _two_passes(
    objective: QuantisedReconstruction, model: torch.nn.Module, step: int | None, rows: slice
) -> torch.Tensor:
    """The loss, and a forward pass more, from which the adversary would take its step."""
    assert isinstance(model, Trained)
    assert step is not None
    with torch.no_grad():
        x = model.autoencoder.to_model(objective.batch(step)["cubes"][rows])
        model.autoencoder.decode(model.autoencoder.quantise(model.autoencoder.encode(x))[0])
    return objective(model, step, rows)


def _diffusion(name: str, options: argparse.Namespace) -> Way:
    """Gradients of the U-Net, relative to a prior that was fitted to noise."""
    given = _settings("train_cube_diffusion")
    config = DiffusionConfig(**given["diffusion"])
    shape = (_autoencoder_config(options).latent_channels, *(options.size // options.compression,) * 2)
    latents = torch.randn(2 * _LATENTS, *shape)
    prior = fit_prior(latents, ["left", "right"] * (_LATENTS // 2), True, config.prior_components)
    model = new_unet(config, shape[0], shape[1])
    objective = LatentDenoising(latents, latents, new_scheduler(config), prior, config.loss, options.batch, 0)
    return _gradients(name, model, objective, given, options)


def _gradients(
    name: str,
    model: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    stage: dict[str, Any],
    options: argparse.Namespace,
) -> Way:
    ours = name == OURS
    if ours:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        for module in model.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor2_0())
    config = _training(stage, options, options.threads if ours else 1)
    gradients = Gradients(model, loss, config, compute_dtype("auto", device()) if ours else torch.float32)
    return lambda: gradients(_LATE)


def _drawing(name: str, options: argparse.Namespace) -> Way:
    """Cubes from an untrained generator without a prior."""
    given = _settings("train_cube_diffusion")
    config = DiffusionConfig(**given["diffusion"] | {"prior_components": 0})
    autoencoder = CubeAutoencoder(DEFAULT_WAVELENGTHS, [0.5] * 16, **_autoencoder_config(options).model_dump())
    unet = new_unet(config, autoencoder.latent_channels, options.size // options.compression)
    tile = options.tile if name == TILES else None
    pipeline = CubePipeline(
        unet, autoencoder, new_scheduler(config), size=options.size, steps=given["sampling"]["steps"], tile=tile
    )
    for part in pipeline.networks():
        part.eval()
    return lambda: pipeline(seeds=range(options.batch), batch_size=options.batch)


def make(name: str, options: argparse.Namespace) -> Way:
    """A training step, or the drawing of a batch."""
    torch.set_num_threads(options.threads)
    if name == OURS:
        keep_freed_memory()
    torch.manual_seed(0)
    return {"vqgan": _vqgan, "diffusion": _diffusion, "drawing": _drawing}[options.what](name, options)


def reading(name: str, options: argparse.Namespace) -> Way:
    """Reading all cubes of a cohort of so many, which is written before the reading is measured."""

    def run() -> None:
        for _, cube in Cohort(options.folder / name).cubes():
            assert cube.values.shape[-1] == options.memory[0]

    return run


def _autoencoder(options: argparse.Namespace) -> CubeAutoencoder:
    if options.autoencoder is not None:
        return CubeAutoencoder.from_pretrained(str(options.autoencoder)).eval()
    torch.manual_seed(0)
    config = _autoencoder_config(options, shortcut=False)
    return CubeAutoencoder(DEFAULT_WAVELENGTHS, [0.5] * 16, **config.model_dump()).eval()


@torch.inference_mode()
def _rebuilt(model: CubeAutoencoder, x: torch.Tensor, tile: int | None) -> torch.Tensor:
    return model.decode(model.quantise(model.encode(x, tile))[0], tile)


def rebuilding(name: str, options: argparse.Namespace) -> Way:
    """A cube of noise through the autoencoder and back, whole or by tiles."""
    torch.set_num_threads(options.threads)
    size, tile = options.tiles
    model = _autoencoder(options)
    x = torch.rand(1, len(model.config.wavelengths), size, size) * 2 - 1
    return lambda: _rebuilt(model, x, tile if name == TILES else None)


def tell_quality(options: argparse.Namespace) -> None:
    """Signal-to-noise ratio, dB, of a phantom cube rebuilt whole and by tiles, and of one against the other."""
    size, tile = options.tiles
    model = _autoencoder(options)
    drawn = draw_cube(sample_records(1, 0)[0], size, model.config.wavelengths, Camera(4000, 0.1)).reflectance
    x = model.to_model(Cube.of(drawn, model.config.wavelengths).values[None])
    whole, tiled = (_rebuilt(model, x, way) for way in (None, tile))
    for what, one, other in (("whole", x, whole), ("by tiles", x, tiled), ("one against the other", whole, tiled)):
        print(f"phantom cube, {what}: {10 * math.log10(4 / float((one - other).square().mean())):.2f} dB")


def _noise(folder: Path, size: int, count: int) -> None:
    """A cohort of cubes of noise, which compress least."""
    rng = np.random.default_rng(0)
    with CohortWriter(folder, "noise", wavelengths=DEFAULT_WAVELENGTHS) as writer:
        for number in range(count):
            values = rng.integers(0, 65536, (len(DEFAULT_WAVELENGTHS), size, size), np.uint16)
            writer.add(
                {
                    "image_id": f"{number:016x}", "patient_id": str(number), "split": "train", "source": "noise",
                    "width": size, "height": size, "sha256": "0", "image": {"bytes": b"", "path": "x"},
                    "cube": encode_cube(Cube(values, DEFAULT_WAVELENGTHS)),
                }
            )  # fmt: skip


def write_cohorts(options: argparse.Namespace) -> list[str]:
    """Cohorts of few and of many cubes."""
    size, *counts = options.memory
    names = [f"{count} cubes" for count in counts]
    for name, count in zip(names, counts, strict=True):
        _noise(options.folder / name, size, count)
    return names


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels (default: 64)")
    parser.add_argument(
        "--what", choices=tuple(WAYS), default="vqgan", help="training step, or drawing (default: vqgan)"
    )
    parser.add_argument("--crop", type=int, help="pixels of --what vqgan that are shown of a cube (default: all)")
    parser.add_argument("--tile", type=int, default=224, help="pixels, of --what drawing (default: 224)")
    parser.add_argument("--ways", nargs="+", help="of --what, the first is compared with (default: all)")
    parser.add_argument("--compression", type=int, default=4, help="(default: 4)")
    parser.add_argument("--base-channels", type=int, help="of the autoencoder (default: the workflow's)")
    parser.add_argument("--batch", type=int, default=16, help="cubes of a step (default: 16)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--turns", type=int, default=5, help="steps of each that are timed (default: 5)")
    parser.add_argument("--memory", type=int, nargs=3, metavar=("SIZE", "FEW", "MANY"), help="of reading cohorts")
    parser.add_argument("--tiles", type=int, nargs=2, metavar=("SIZE", "TILE"), help="pixels; of encoding and decoding")
    parser.add_argument("--unshuffle", type=int, default=4, help="at most (default: 4)")
    parser.add_argument("--autoencoder", type=Path, metavar="FOLDER", help="of --tiles: a trained one")
    options = parser.parse_args(arguments)
    if options.tiles is not None:
        compare(rebuilding, [TILES, WHOLE], options, options.turns, 1, "cubes")
        tell_quality(options)
        return
    if options.memory is None:
        compare(make, options.ways or WAYS[options.what], options, options.turns, options.batch, "cubes")
        if options.what != "drawing":
            tell_products(make(SAME, options))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        memories(reading, write_cohorts(options), options)


if __name__ == "__main__":
    main()
