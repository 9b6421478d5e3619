"""Rate and memory of the reader of latents, with few shards and with many.

    python -m benchmarks.loader

Shards are of equal size, so that ten thousand hold a thousand times as much as ten. A run reads images and captions at
random over all of a folder, as training does. Rate and memory should not depend on the number of shards; what grows
with the number of images is the index in memory. The folders are written first (a minute, 0.5 GB) and removed after.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.paired import Way, compare, seconds
from retinalogos.generators.text.latents import Latents, LatentWriter

# Of stage 1 at 64 px, params.yaml. A caption of 16 tokens of 64 channels keeps 10,000 shards small.
CHANNELS, WIDTH, TOKENS, TEXT = 32, 8, 16, 64


def write(folder: Path, shards: int, images: int) -> None:
    """A latents folder with this many shards of either kind, ``images`` images and captions in each."""
    meta = {"channels": CHANNELS, "latent_size": WIDTH, "text_dim": TEXT}
    # Shards of the usual 25 MB: ten thousand would be 250 GB.
    with LatentWriter(folder, meta, images_per_shard=images, tokens_per_shard=images * TOKENS) as writer:
        latents, text = torch.randn(CHANNELS, WIDTH, WIDTH), torch.randn(TOKENS, TEXT)
        for i in range(shards * images):
            number = writer.add_text(f"caption {i}", text)
            writer.add_image(f"image-{i:08d}", "train", "left", latents, [number], [number])


def make(name: str, options: argparse.Namespace) -> Way:
    """Opens a folder; a run reads ``options.batches`` batches of it."""
    latents = Latents(Path(options.folder) / name)
    draw = np.random.default_rng(0)

    def read() -> None:
        for _ in range(options.batches):
            rows = draw.integers(len(latents.images), size=options.batch).tolist()
            latents.latents(rows)
            latents.batch_tokens([latents.captions(row, "fine")[0] for row in rows])

    return read


def main(arguments: list[str] | None = None) -> None:
    """Prints a line for each number of shards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 10000], help="(default: 10 10000)")
    parser.add_argument("--images", type=int, default=8, help="images of a shard (default: 8)")
    parser.add_argument("--batch", type=int, default=32, help="images read at once (default: 32)")
    parser.add_argument("--batches", type=int, default=50, help="batches of a run (default: 50)")
    parser.add_argument("--turns", type=int, default=5, help="runs of each that are timed (default: 5)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        names = [f"{shards} shards" for shards in options.shards]
        for name, shards in zip(names, options.shards, strict=True):
            write(Path(folder) / name, shards, options.images)
        opening = {name: seconds(lambda name=name: make(name, options)) for name in names}
        print("opened in", ", ".join(f"{taken.wall:.2f} s ({name})" for name, taken in opening.items()))
        compare(make, names, options, options.turns, options.batch * options.batches, "images")


if __name__ == "__main__":
    main()
