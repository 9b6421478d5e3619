"""A training step of the hyperspectral VQ-GAN against the same sizes with float32 defaults, and the cohort's memory.

    python -m benchmarks.cubes
    python -m benchmarks.cubes --memory 672 4 16
    python -m benchmarks.cubes --tiles 672 224 --unshuffle 1 --compression 8 --base-channels 32

A step is the loss of a batch of random cubes and its gradients. Ours is the workflow's: pixels made channels first,
pieces side by side on the cores, the precision that the processor is fast in. Against it stand PyTorch's defaults,
float32 and its own threads: with the same networks, and with networks of the same compression, latent channels, codes
and base channels that work on whole pixels, as they are published. With
--memory SIZE FEW MANY no step is timed; the peak memory of reading a cohort of that many cubes is told instead. With
--tiles SIZE TILE a cube of that size is encoded and decoded whole and by tiles: memory, time, and how well a phantom
cube is rebuilt either way, which tells something only of a trained autoencoder (--autoencoder FOLDER).
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.paired import Way, compare, memories
from retinalogos.cohort.cubes import Cube, encode_cube
from retinalogos.cohort.shards import Cohort, CohortWriter
from retinalogos.generators.hyperspectral.autoencoder import CubeAutoencoder
from retinalogos.memory import keep_freed_memory
from retinalogos.phantom import sample_records
from retinalogos.phantom.cubes import Camera, draw_cube
from retinalogos.phantom.spectra import DEFAULT_WAVELENGTHS
from retinalogos.training.configuration import TrainingConfig
from retinalogos.training.device import compute_dtype, device
from retinalogos.training.loop import Gradients

OURS, SAME, DEFAULTS = "ours", "same networks, float32", "whole pixels, float32"
WHOLE, TILES = "whole", "by tiles"


def make(name: str, options: argparse.Namespace) -> Way:
    """Loss and gradients of a batch."""
    torch.set_num_threads(options.threads)
    if name == OURS:
        keep_freed_memory()
    torch.manual_seed(0)
    bands = len(DEFAULT_WAVELENGTHS)
    model = CubeAutoencoder(
        DEFAULT_WAVELENGTHS, [0.5] * bands, compression=options.compression, base_channels=options.base_channels,
        unshuffle=1 if name == DEFAULTS else 4,
    )  # fmt: skip
    x = torch.rand(options.batch, bands, options.size, options.size) * 2 - 1

    def loss(module: torch.nn.Module, step: int | None, rows: slice) -> torch.Tensor:
        z = model.encode(x[rows])
        q, _ = model.quantise(z)
        return (model.decode(z + (q - z).detach()).float() - x[rows]).abs().mean() + (q - z.detach()).square().mean()

    ours = name == OURS
    config = TrainingConfig(
        steps=1, batch_size=options.batch, pieces=options.threads if ours else 1, learning_rate=1e-3, warmup_steps=0,
        weight_decay=0.0, beta2=0.99, gradient_clip=1.0, ema_decay=0.0, snapshot_every=0, sharded=False,
        checkpoint_activations=False, compile_blocks=False, precision="auto", checkpoint_every=1, log_every=1,
        validate_every=1, sample_every=1,
    )  # fmt: skip
    dtype = compute_dtype("auto", device()) if ours else torch.float32
    if ours:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    gradients = Gradients(model, loss, config, dtype)
    return lambda: gradients(0)


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
    bands = len(DEFAULT_WAVELENGTHS)
    return CubeAutoencoder(
        DEFAULT_WAVELENGTHS, [0.5] * bands, compression=options.compression, base_channels=options.base_channels,
        unshuffle=options.unshuffle,
    ).eval()  # fmt: skip


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


def write_cohorts(options: argparse.Namespace) -> list[str]:
    """Cohorts of few and of many cubes of noise, which compress least."""
    size, *counts = options.memory
    bands = len(DEFAULT_WAVELENGTHS)
    rng = np.random.default_rng(0)
    for count in counts:
        with CohortWriter(options.folder / f"{count} cubes", "noise", wavelengths=DEFAULT_WAVELENGTHS) as writer:
            for number in range(count):
                cube = Cube(rng.integers(0, 65536, (bands, size, size), np.uint16), DEFAULT_WAVELENGTHS)
                writer.add(
                    {
                        "image_id": f"{number:016x}", "patient_id": str(number), "split": "train", "source": "noise",
                        "width": size, "height": size, "sha256": "0", "image": {"bytes": b"", "path": "x"},
                        "cube": encode_cube(cube),
                    }
                )  # fmt: skip
    return [f"{count} cubes" for count in counts]


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels (default: 64)")
    parser.add_argument("--compression", type=int, default=4, help="(default: 4)")
    parser.add_argument("--base-channels", type=int, default=64, help="(default: 64)")
    parser.add_argument("--batch", type=int, default=16, help="cubes of a step (default: 16)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--turns", type=int, default=5, help="steps of each that are timed (default: 5)")
    parser.add_argument("--memory", type=int, nargs=3, metavar=("SIZE", "FEW", "MANY"), help="of reading cohorts")
    parser.add_argument("--tiles", type=int, nargs=2, metavar=("SIZE", "TILE"), help="pixels; of encoding and decoding")
    parser.add_argument("--unshuffle", type=int, default=4, help="of --tiles (default: 4)")
    parser.add_argument("--autoencoder", type=Path, metavar="FOLDER", help="of --tiles: a trained one")
    options = parser.parse_args(arguments)
    if options.tiles is not None:
        compare(rebuilding, [TILES, WHOLE], options, options.turns, 1, "cubes")
        tell_quality(options)
        return
    if options.memory is None:
        compare(make, [OURS, SAME, DEFAULTS], options, options.turns, options.batch, "cubes")
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        memories(reading, write_cohorts(options), options)


if __name__ == "__main__":
    main()
