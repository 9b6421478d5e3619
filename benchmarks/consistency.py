"""How well a segmenter finds the vessels of a map on the photograph that is painted for it, by ways of painting.

    python -m benchmarks.consistency

After a run of the workflow `vessel_map`: the maps of its real test eyes are painted by its models, with other guidance
and other numbers of steps, and enlarged by the enlarger or by cubic interpolation; its segmenter looks at all of them.
Beside them stand the eyes' own photographs, whole, and brought to the painter's size and enlarged in the same two ways.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from retinalogos.cohort.shards import Cohort
from retinalogos.generators.vessel_map.agreement import of_eyes, summary
from retinalogos.generators.vessel_map.cascade import VesselMapCascade, unbundled
from retinalogos.generators.vessel_map.configuration import SamplerConfig
from retinalogos.generators.vessel_map.examples import Examples, read_examples
from retinalogos.generators.vessel_map.objective import grown, images_as_bytes, images_as_signal
from retinalogos.generators.vessel_map.segmenter import UNetSegmenter

FIGURES = ("dice", "cl_dice", "auc", "artery_dice", "vein_dice", "kind_accuracy")
BATCH = 8


def ways(
    cascade: VesselMapCascade, eyes: Examples, small: Examples, options: argparse.Namespace
) -> Iterator[tuple[str, np.ndarray]]:
    """Each way's name and its photographs of all eyes."""
    yield "the eyes' own photographs", eyes.images
    yield from enlarged("the same at the painter's size", cascade, small.images, eyes.maps)
    learned = SamplerConfig(**cascade.parts["paint"].config.sampling)
    for steps in options.steps:
        for guidance in options.guidance:
            cascade.sampling["paint"] = learned.model_copy(update={"steps": steps, "guidance": guidance})
            painted = np.concatenate([cascade.paint(eyes.maps[rows], seeds) for rows, seeds in batches(len(eyes))])
            yield from enlarged(f"painted, {steps} steps, guidance {guidance:g}", cascade, painted, eyes.maps)


def enlarged(
    name: str, cascade: VesselMapCascade, images: np.ndarray, maps: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Photographs enlarged in either way."""
    yield f"{name}, cubic", images_as_bytes(grown(images_as_signal(images), cascade.factor))
    yield (
        f"{name}, enlarged",
        np.concatenate([cascade.enlarge(images[rows], seeds, maps[rows]) for rows, seeds in batches(len(images))]),
    )


def batches(n: int) -> Iterator[tuple[slice, list[int]]]:
    """Rows of each batch, and their seeds."""
    for start in range(0, n, BATCH):
        rows = slice(start, min(n, start + BATCH))
        yield rows, list(range(rows.start, rows.stop))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a row of the table as each way is done."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cohort", type=Path, default=Path("data/vessel_map/labelled"), help="eyes with maps")
    options.add_argument("--generator", type=Path, default=Path("models/vessel_map/generator"), help="folder")
    options.add_argument("--segmenter", type=Path, default=Path("models/vessel_map/segmenter"), help="folder")
    options.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0], help="scales; 1 is none")
    options.add_argument("--steps", type=int, nargs="+", default=[10, 20], help="of the painter")
    options.add_argument("--resamples", type=int, default=1000, help="of the intervals")
    chosen = options.parse_args(arguments)
    cascade = VesselMapCascade.load_whole(unbundled(chosen.generator, ("paint", "enlarge")))
    segmenter, cohort = UNetSegmenter.load(chosen.segmenter), Cohort(chosen.cohort)
    with tempfile.TemporaryDirectory() as scratch:
        eyes, small = (
            read_examples(cohort, "test", size, Path(scratch) / str(size))
            for size in (segmenter.size, cascade.parts["paint"].config.size)
        )
        print("| photographs |", " | ".join(FIGURES), "|")
        print("|---" * (1 + len(FIGURES)) + "|")
        for name, images in ways(cascade, eyes, small, chosen):
            seen = np.stack(
                [cv2.resize(image, (segmenter.size,) * 2, interpolation=cv2.INTER_AREA) for image in images]
            )
            found = summary(of_eyes(segmenter, replace(eyes, images=seen)), eyes.patients, chosen.resamples, 0)
            told = (f"{found[key].value:.3f} ({found[key].low:.3f} to {found[key].high:.3f})" for key in FIGURES)
            print(f"| {name} |", " | ".join(told), "|", flush=True)


if __name__ == "__main__":
    main()
